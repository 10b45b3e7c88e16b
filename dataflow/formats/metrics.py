"""Which metrics of a feed are read, and what their names say of their values. Pure.

CPU is one metric in every feed, whatever the feed calls it. Any other metric has the name that the
feed gives it. Tags that split it into several series (a device, a path, a state) are part of its
name, so that two series are never one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from dataflow.formats.paths import UNSET, find, parse

__all__ = [
    "BOUNDS",
    "CPU",
    "MAX_LENGTH",
    "Labels",
    "Wanted",
    "same_everywhere",
    "series",
    "unit_of",
]

CPU = "cpu"
"""The name by which CPU is selected, and written."""

MAX_LENGTH = 256
"""Characters of a metric's name, at most."""

BOUNDS = {"%": 100.0, "ratio": 1.0}
"""The greatest value of the units that have one; the least is 0. Other units have no bounds."""

CACHED = 4096
"""Names of which it is remembered whether they are selected."""


class Wanted:
    """The metrics that the settings select, by names and patterns with `*` and `?`.

    `names` are what the feed itself calls CPU: a pattern that matches one of them selects CPU.
    `cpu` says whether CPU is selected, `others` whether any other metric may be.

    >>> wanted = Wanted(("CPUUtilization", "disk.*"), ("CPUUtilization",))
    >>> wanted.cpu, wanted.others
    (True, True)
    >>> wanted.named("disk.used_percent{path=/}"), wanted.named("mem.used_percent")
    (True, False)
    """

    def __init__(self, patterns: Iterable[str], names: Iterable[str] = ()) -> None:
        patterns = tuple(patterns)
        self.others = patterns != (CPU,)
        self._patterns = tuple(map(_literal, patterns))
        self.cpu = _matches((CPU, *names), self._patterns)
        self._beginnings = tuple(pattern.partition("{")[0] for pattern in self._patterns)
        self._known: dict[str, bool] = {}
        self._begun: dict[str, bool] = {}

    def named(self, metric: str) -> bool:
        """Return whether a metric is selected: by its whole name, or by the part before a brace."""
        found = self._known.get(metric)
        if found is None:
            names = metric, metric.partition("{")[0]
            found = _matches(names, self._patterns)
            _remember(self._known, metric, found)
        return found

    def begins(self, name: str) -> bool:
        """Return whether a metric may be selected whose name has this part before a brace.

        >>> Wanted(("disk.used{path=/}",)).begins("disk.used")
        True
        """
        found = self._begun.get(name)
        if found is None:
            found = _matches((name,), self._beginnings)
            _remember(self._begun, name, found)
        return found


def _matches(names: Iterable[str], patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _remember(known: dict[str, bool], name: str, found: bool) -> None:
    if len(known) >= CACHED:
        known.clear()
    known[name] = found


def _literal(pattern: str) -> str:
    """Return a pattern in which only `*` and `?` mean something."""
    return pattern.replace("[", "[[]")


def series(name: str, tags: Mapping[str, Any]) -> str:
    """Return the name of a metric with the tags that tell it from others of this name.

    Signs that separate are escaped by a backslash, so that no two series have one name.

    >>> series("disk.used_percent", {"path": "/", "device": "xvda1"}), series("load", {})
    ('disk.used_percent{device=xvda1,path=/}', 'load')
    """
    name = _escaped(name)
    if not tags:
        return name
    pairs = (f"{_escaped(tag)}={_escaped(str(tags[tag]))}" for tag in sorted(tags))
    return f"{name}{{{','.join(pairs)}}}"


def _escaped(text: str) -> str:
    return text if _SIGNS.isdisjoint(text) else re.sub(r"([\\{},=])", r"\\\1", text)


_SIGNS = frozenset("\\{},=")


_PERCENT = re.compile(r"(?i)percent(age)?(_avg|_mean)?(\{|$)|(^|[._])percent[_-]")
_SHARED = re.compile(r"(?i)container|docker|pod|proc")
"""Of a process or a container, 100% is one CPU, and it may use several."""

_RATIO = re.compile(r"(?i)[._]ratio(\{|$)")


def unit_of(name: str) -> str | None:
    """Return the unit of a metric's values if its name says it: `%`, or `ratio` for 0 to 1.

    >>> unit_of("mem.used_percent"), unit_of("memory_free_ratio"), unit_of("load1")
    ('%', 'ratio', None)
    """
    if _PERCENT.search(name):
        return None if _SHARED.search(name) else "%"
    return "ratio" if _RATIO.search(name) else None


_HOST = re.compile(
    r"(?i)(aws[._-]?)?(account([._-]?id)?|region|availability[._-]?zone|zone|az|datacenter|dc|"
    r"environment|env|instance[._-]?type)"
)


def same_everywhere(tag: str) -> bool:
    """Return whether a tag says where an instance runs, which is the same for all its metrics.

    >>> [tag for tag in ("region", "account_id", "path") if same_everywhere(tag)]
    ['region', 'account_id']
    """
    return _HOST.fullmatch(tag) is not None


class Labels:
    """The labels that the settings ask for: names of tags, or paths into the record.

    The last name of a path is the label's. `names` has those that are no paths.

    >>> labels = Labels(("zone", "/cloud/account/id"))
    >>> labels.of({"cloud": {"account": {"id": 7}}}, {"zone": "eu-1a"}), Labels(()).of({}, {})
    ({'zone': 'eu-1a', 'id': '7'}, None)
    """

    def __init__(self, fields: Iterable[str]) -> None:
        self.paths = {parse(field)[-1]: parse(field) for field in fields if field.startswith("/")}
        self.names = frozenset(field for field in fields if not field.startswith("/"))
        self._order = [parse(field)[-1] for field in fields]

    def of(self, record: Any, *tags: Mapping[str, Any]) -> dict[str, str] | None:
        """Return the labels that a record or one of the groups of its tags has, None if none."""
        if not self._order:
            return None
        found: dict[str, str] = {}
        for name in self._order:
            path = self.paths.get(name)
            if path is not None:
                value = find(record, path)
            else:
                value = next((group[name] for group in tags if name in group), UNSET)
            if isinstance(value, (str, int, float)):
                found[name] = str(value)[:MAX_LENGTH]
        return found or None
