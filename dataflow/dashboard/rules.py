"""What applies to each instance on the page: by the settings, and by the rules of ANOMALY_RULES.

The same code judges as in the flow. Without the flow's recovery store it is not known which version
applied to what lies before: the page holds all to the version that the file has when it begins to
read, and each later version applies from the next reading on.
"""

from __future__ import annotations

from typing import NamedTuple

from dataflow.calendars import zones
from dataflow.dashboard.status import maintenance_text
from dataflow.detectors.base import AnyDetector
from dataflow.incidents import maintenance
from dataflow.incidents.maintenance import Window, after
from dataflow.records import Raw, Reading
from dataflow.recovery.places import Places
from dataflow.rules.document import Applied
from dataflow.settings import Settings
from dataflow.steps import rules, score
from dataflow.steps.judge import Judge

__all__ = ["PageRules", "Ruling", "said_of"]

SIDES = {"high": "above", "low": "below"}


class Ruling(NamedTuple):
    """What applies to an instance: its threshold, what rules say, and all maintenance windows.

    `version` is that of the rules, empty without any.
    """

    threshold: float
    applied: Applied = Applied()
    version: str = ""
    windows: tuple[Window, ...] = ()


class PageRules:
    """The rules of the page. Thread-safe."""

    def __init__(self, settings: Settings, detector: AnyDetector) -> None:
        """Read the file, and look at it from now on. Raises `UserError` if it cannot be used."""
        episodes = score.episode_rules(settings, detector)
        self._threshold = episodes.threshold
        self._plan = maintenance.parse(settings.maintenance, zones.parse(settings.time_zone))
        self._places = Places(None) if settings.rules else None
        self._rules = rules.rules(settings, detector, episodes.threshold, self._places)
        self.judge: Judge | None = score.judge(settings, episodes)
        """What says which readings are anomalies, as in the flow; None: the threshold alone."""
        if self._rules is not None and self._rules.judges:
            self.judge = self._rules

    def begin_anew(self) -> None:
        """Let the last version apply to all: the input is read from its beginning."""
        if self._places is not None:
            self._places.begin_anew()

    def reach(self, raw: Raw) -> None:
        """Let the last version apply to a record, if it is new."""
        if self._places is not None:
            self._places.reach(raw.partition, raw.offset, raw.offset)

    def of(self, reading: Reading) -> Ruling:
        """Return what applies to the instance of a reading."""
        windows = self._plan.windows(reading.instance)
        if self._rules is None:
            return Ruling(self._threshold, windows=windows)
        applied, version = self._rules.at(reading)
        own = applied.threshold if self._rules.judges else None
        threshold = self._threshold if own is None else own
        return Ruling(threshold, applied, version, (*windows, *applied.windows))

    @property
    def version(self) -> str:
        """The version that applies from the next reading on; empty without any rules."""
        return "" if self._places is None else self._places.staged(rules.KIND)

    @property
    def wrong(self) -> str:
        """Why the file cannot be used, in a sentence; empty if it can, or if there is none."""
        return "" if self._rules is None else self._rules.wrong


def said_of(ruling: Ruling, time: float | None) -> str:
    """Return what rules and maintenance windows say of an instance; empty if there are none.

    Each is followed by the rule that says it. `time` is now, None if readings have no time.

    >>> high = Applied(0.7, "high", by={"threshold": "web", "direction": "all"})
    >>> said_of(Ruling(0.7, high, "5f"), 0.0)
    'Rules 5f: threshold 0.7 (web), only above what is expected (all)'
    >>> said_of(Ruling(0.5, version="5f"), None), said_of(Ruling(0.5), None)
    ('Rules 5f: none is for this instance', '')
    """
    applied, by = ruling.applied, ruling.applied.by
    ends = None if time is None else after(ruling.windows, time)
    now = maintenance_text(ends) if ends is not None and time is not None and ends > time else ""
    if not ruling.version:
        return now.capitalize()
    said = {
        "threshold": f"threshold {ruling.threshold:g}",
        "direction": f"only {SIDES.get(applied.direction or '')} what is expected",
        "least": f"at least {applied.least:g} from what is expected" if applied.least else "",
        "maintenance": now or "maintenance windows",
        "team": f"team {applied.team}",
        "severity": f"severity {applied.severity}",
        "runbook": f"runbook {applied.runbook}",
    }
    parts = [f"{text} ({by[name]})" for name, text in said.items() if text and name in by]
    if now and "maintenance" not in by:
        parts.append(now)
    return f"Rules {ruling.version}: {', '.join(parts) or 'none is for this instance'}"
