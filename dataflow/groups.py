"""Which group an instance is in: by labels of its readings, or by its name. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from dataflow.formats.paths import parse

__all__ = ["Groups", "label_names", "parse_pattern"]

NAMED = "group"
"""The named part of a pattern that is the group, where a pattern has several parts."""


def label_names(fields: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the labels that fields give: of a path, its last part.

    >>> label_names(("AutoScalingGroupName", "/cloud/availability_zone"))
    ('AutoScalingGroupName', 'availability_zone')
    """
    return tuple(parse(field)[-1] for field in fields)


def parse_pattern(pattern: str) -> re.Pattern[str]:
    """Return a pattern of names, of which one part in parentheses is the group.

    Raises `ValueError` with a sentence if it is no regular expression, or has no such part.
    """
    try:
        parsed = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"is not a regular expression ({error})") from None
    if not parsed.groups:
        raise ValueError("must have the group in parentheses, such as ^(web|db)-")
    return parsed


class Groups:
    """The groups of instances, by the labels that `fields` name or by a pattern of names.

    With several fields, the values of all of them make the group. Without fields and pattern, no
    instance is in a group.

    >>> Groups(pattern="^(web|db)-").of("web-17", {})
    'web'
    >>> Groups(("service", "/cloud/zone")).of("i-1", {"service": "shop", "zone": "eu-1a"})
    'shop/eu-1a'
    """

    def __init__(self, fields: tuple[str, ...] = (), pattern: str = "") -> None:
        """Take what ANOMALY_GROUP_FIELDS and ANOMALY_GROUP_PATTERN say, checked by the settings."""
        self._labels = label_names(fields)
        self._pattern = parse_pattern(pattern) if pattern else None
        self._part: str | int = 1
        if self._pattern is not None and NAMED in self._pattern.groupindex:
            self._part = NAMED

    def __bool__(self) -> bool:
        """Return whether any instance can be in a group."""
        return bool(self._labels) or self._pattern is not None

    def of(self, instance: str, labels: Mapping[str, str] | None) -> str | None:
        """Return the group of an instance whose reading has these labels; None if it is in none.

        An instance that lacks one of the labels, or whose name does not match, is in none.
        """
        if self._pattern is not None:
            match = self._pattern.search(instance)
            return (match[self._part] or None) if match else None
        if not self._labels or not labels:
            return None
        values = [labels.get(name) for name in self._labels]
        return "/".join(value for value in values if value) if all(values) else None
