"""The file of rules: reads it, and says what applies to a series. Pure.

Each table is a rule; its header is the name:

    [web]
    instances = "web-*"
    threshold = 0.6
    direction = "high"
    least = 10
    team = "shop"
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias
from urllib.parse import urlsplit

import msgspec

from dataflow.calendars.zones import Zones
from dataflow.incidents import maintenance
from dataflow.incidents.maintenance import Plan, Window
from dataflow.records import Severity

__all__ = ["Applied", "Direction", "Document", "Limits", "Rule", "parse"]

Direction: TypeAlias = Literal["high", "low"]

Several: TypeAlias = str | tuple[str, ...]

NO_ZONES = Zones()

CACHED = 4096
"""Series of which it is kept what applies to them."""

ELSEWHERE = {
    "time_zone": "what detectors learn depends on it: set ANOMALY_TIME_ZONE, which takes patterns",
    "holidays": "what detectors learn depends on them: set ANOMALY_HOLIDAYS, which takes patterns",
    "interval": "what detectors learn depends on it: set ANOMALY_INTERVAL",
    "scale": "what detectors learn depends on it: set ANOMALY_SCALE",
    "detector": "the recovery store holds its states: set ANOMALY_DETECTOR",
    "quiet": "it is the same for all instances: set ANOMALY_INCIDENT_QUIET",
    "silence": "it is the same for all instances: set ANOMALY_SILENCE and ANOMALY_SILENCE_EXCEPT",
}
"""What a person may look for in a rule, and where it is."""

MUST_BE = {
    "instances": "a pattern or a list of patterns",
    "metrics": "a pattern or a list of patterns",
    "groups": "a pattern or a list of patterns",
    "labels": 'a table of labels and patterns, such as { service = "shop-*" }',
    "threshold": "a number above 0 and below 1",
    "direction": '"high" or "low"',
    "least": "a number from 0 on, in the unit of the value",
    "maintenance": 'a window or a list of windows, such as "Sat 22:00-Sun 02:00"',
    "team": "a name",
    "severity": '"critical", "error", "warning" or "info"',
    "runbook": "an address such as https://HOST/PATH",
}


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rule. It matches a series that all of its patterns match: one of each kind.

    `threshold`: a reading with a score above it is an anomaly. `direction`: only values above what
    is expected are anomalies (`high`), or only those below (`low`). `least`: how far a value must
    be from the expected one, in its unit. `maintenance`: windows in which no incident opens.
    """

    instances: Several = "*"
    metrics: Several = "*"
    groups: Several | None = None
    labels: dict[str, Several] = {}
    threshold: Annotated[float, msgspec.Meta(gt=0, lt=1)] | None = None
    direction: Direction | None = None
    least: Annotated[float, msgspec.Meta(ge=0)] | None = None
    maintenance: Several = ()
    team: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] | None = None
    severity: Severity | None = None
    runbook: Annotated[str, msgspec.Meta(min_length=1, max_length=2000)] | None = None

    def matches(
        self, instance: str, metric: str, group: str | None, labels: Mapping[str, str]
    ) -> bool:
        """Return whether the rule is for a series."""
        return (
            _one_of(self.instances, instance)
            and _one_of(self.metrics, metric)
            and (self.groups is None or _one_of(self.groups, group))
            and all(_one_of(pattern, labels.get(name)) for name, pattern in self.labels.items())
        )


SELECT = ("instances", "metrics", "groups", "labels")
"""The fields of a rule that say what it is for."""

DECIDE = tuple(name for name in Rule.__struct_fields__ if name not in SELECT)
"""The fields of a rule that apply to what it is for."""

LEVELS = ("threshold", "direction", "least")
"""Those that decide which readings are anomalies."""


class Limits(NamedTuple):
    """What rules cannot say with the settings of a flow: sentences, empty where they can.

    `levels`: why there can be no threshold, direction or least. `expected`: the same of direction
    and least. `times`: of maintenance.
    """

    levels: str = ""
    expected: str = ""
    times: str = ""


class Applied(NamedTuple):
    """What applies to a series, each by the first rule that matches and says it.

    `by` has the name of that rule. The windows are those of all rules that match.
    """

    threshold: float | None = None
    direction: Direction | None = None
    least: float | None = None
    team: str | None = None
    severity: Severity | None = None
    runbook: str | None = None
    windows: tuple[Window, ...] = ()
    by: Mapping[str, str] = {}


class Document:
    """The rules of one version of the file, in their order.

    >>> document = parse(b'''
    ... [web]
    ... instances = "web-*"
    ... threshold = 0.6
    ... [all]
    ... threshold = 0.5
    ... team = "ops"
    ... ''')
    >>> applied = document.of("web-1", "cpu")
    >>> applied.threshold, applied.team, applied.by
    (0.6, 'ops', {'threshold': 'web', 'team': 'all'})
    >>> document.lowest
    0.5
    """

    def __init__(self, rules: Mapping[str, Rule], zones: Zones = NO_ZONES) -> None:
        """Take rules by their names; the zones are those of maintenance windows."""
        self.rules = dict(rules)
        thresholds = [rule.threshold for rule in rules.values() if rule.threshold is not None]
        self.lowest: float | None = min(thresholds, default=None)
        """The lowest threshold that any rule names."""
        self._plans = {name: _plan(rule, zones) for name, rule in rules.items() if rule.maintenance}
        self.has_windows = bool(self._plans)
        """Whether any rule has maintenance windows."""
        self._find = lru_cache(CACHED)(self._of)

    def of(
        self,
        instance: str,
        metric: str,
        group: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Applied:
        """Return what applies to a metric of an instance."""
        return self._find(instance, metric, group, tuple((labels or {}).items()))

    def matching(
        self, instance: str, metric: str, group: str | None, labels: Mapping[str, str]
    ) -> list[str]:
        """Return the names of the rules that match, in their order."""
        return [
            name
            for name, rule in self.rules.items()
            if rule.matches(instance, metric, group, labels)
        ]

    def _of(
        self, instance: str, metric: str, group: str | None, labels: tuple[tuple[str, str], ...]
    ) -> Applied:
        found: dict[str, Any] = {}
        by: dict[str, str] = {}
        windows: tuple[Window, ...] = ()
        for name in self.matching(instance, metric, group, dict(labels)):
            rule = self.rules[name]
            for field in DECIDE:
                value = getattr(rule, field)
                if field != "maintenance" and value is not None and field not in found:
                    found[field], by[field] = value, name
            if name in self._plans:
                windows += self._plans[name].windows(instance)
                by["maintenance"] = ", ".join(filter(None, (by.get("maintenance"), name)))
        return Applied(**found, windows=windows, by=by)


def parse(content: bytes, zones: Zones = NO_ZONES, limits: Limits | None = None) -> Document:
    """Read the file of rules.

    Raises `ValueError` with a sentence that names the rule, or the line that is no TOML.

    >>> parse(b'[web]\\nthreshold = 5')
    Traceback (most recent call last):
    ValueError: the rule 'web': threshold must be a number above 0 and below 1
    """
    try:
        tables = tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"it is not TOML ({error})") from None
    except RecursionError:
        raise ValueError("it is not TOML that can be read (it is nested too deeply)") from None
    rules = {}
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ValueError(
                f"{name!r} stands outside of a rule: begin a rule with a line such as [web]"
            )
        try:
            rules[name] = _rule(table)
            _check(rules[name], limits or Limits())
        except ValueError as error:
            raise ValueError(f"the rule {name!r}: {error}") from None
    return Document(rules, zones)


def _rule(table: dict[str, Any]) -> Rule:
    for name in table:
        if name in ELSEWHERE:
            raise ValueError(f"{name} is no part of a rule, as {ELSEWHERE[name]}")
        if name not in MUST_BE:
            near = difflib.get_close_matches(name, MUST_BE, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(MUST_BE)}"
            raise ValueError(f"{name} is no part of a rule: {hint}")
    try:
        return msgspec.convert(table, Rule)
    except msgspec.ValidationError as error:
        found = re.search(r"\$\.(\w+)", str(error))
        name = found[1] if found else next(iter(table))
        raise ValueError(f"{name} must be {MUST_BE[name]}") from None


def _check(rule: Rule, limits: Limits) -> None:
    for field in ("threshold", "least"):
        value = getattr(rule, field)
        if value is not None and not math.isfinite(value):
            raise ValueError(f"{field} must be {MUST_BE[field]}")
    if rule.runbook is not None:
        try:
            parts = urlsplit(rule.runbook)
            right = parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:
            right = False
        if not right:
            raise ValueError(f"runbook must be {MUST_BE['runbook']}")
    _plan(rule, NO_ZONES)
    for names, sentence in (
        (LEVELS, limits.levels),
        (("direction", "least"), limits.expected),
        (("maintenance",), limits.times),
    ):
        for name in names:
            if sentence and getattr(rule, name) not in (None, ()):
                raise ValueError(f"it names {name}, but {sentence}")


def _plan(rule: Rule, zones: Zones) -> Plan:
    entries = tuple(
        entry
        for window in _several(rule.maintenance)
        for entry in maintenance.parse(f"*: {window}").entries
    )
    return Plan(entries, zones)


def _several(patterns: Several) -> tuple[str, ...]:
    return (patterns,) if isinstance(patterns, str) else patterns


def _one_of(patterns: Several, name: str | None) -> bool:
    return name is not None and any(fnmatchcase(name, one) for one in _several(patterns))
