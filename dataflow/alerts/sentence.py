"""Says of an anomaly, in one sentence, what was measured, what was expected, and why it matters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dataflow.alerts.news import odds
from dataflow.records import Explanation, Kind, MetricShare

__all__ = ["PERCENT", "Metric", "sentence", "sentence_of_all"]

HOUR = 3600.0
DAY = 24 * HOUR

PERCENT = 100.0
"""The scale of values that are a percentage."""

NAMED = 5
"""Metrics that are named of those off their habit."""

UNSAID = (None, "1", "ratio")
"""Units that say nothing to a person."""


@dataclass(frozen=True)
class Metric:
    """What the values measure: a name, and their unit where it is known.

    `scale` is what a value of 1 stands for; None where values are as they came.

    >>> Metric("CPU", 100.0, "%").amount(0.89812), Metric("latency", None).amount(12_345.6)
    ('89.8%', '12,350')
    >>> Metric("NetworkIn", None, "Bytes").bounds(1200.0, 3400.0)
    '1,200 to 3,400 Bytes'
    """

    name: str
    scale: float | None
    unit: str | None = None

    def raw(self, value: float) -> float:
        """Return a value as it came, but for the last digits that scaling has added."""
        return value if self.scale is None else float(f"{value * self.scale:.15g}")

    def amount(self, value: float) -> str:
        """Return a value with its unit, in as many digits as it means."""
        if self.scale == PERCENT:
            return f"{self.raw(value):.1f}%"
        number = self._number(value)
        return number if self.unit in UNSAID else f"{number} {self.unit}"

    def _number(self, value: float) -> str:
        raw = self.raw(value)
        if abs(raw) >= 1000:
            digits = len(f"{abs(raw):.0f}") - 4
            return f"{round(raw / 10**digits) * 10**digits:,}"
        return f"{raw:.4g}"

    def bounds(self, low: float, high: float) -> str:
        """Return a range of values."""
        if self.scale == PERCENT:
            # Of a host that idles, the tenths say what it does.
            digits = 0 if self.raw(high) >= 10 else 1
            return f"{self.raw(low):.{digits}f} to {self.raw(high):.{digits}f}%"
        return f"{self._number(low)} to {self.amount(high)}"


def sentence(
    metric: Metric,
    value: float,
    expected: float | None,
    bounds: tuple[float, float] | None,
    explanation: Explanation | None,
) -> str:
    """Return the sentence, without a full stop.

    >>> from dataflow.records import Reason
    >>> why = Explanation((Reason("range", 0.6), Reason("hour", 0.4)), None, 28 * DAY)
    >>> sentence(Metric("CPU", 100.0, "%"), 0.997, 0.06, (0.01, 0.11), why)
    'CPU 99.7%, expected 1 to 11% at this hour; highest in 4 weeks'
    """
    said = f"{metric.name} {metric.amount(value)}"
    kinds: tuple[Kind, ...] = ()
    if explanation is not None:
        # What makes less than a tenth of it, no person has to hear.
        kinds = tuple(reason.kind for reason in explanation.reasons if reason.share >= 0.1)
    if bounds is not None:
        said += f", expected {metric.bounds(*bounds)}"
        said += " at this hour" if "hour" in kinds else ""
    high = expected is None or value >= expected
    parts = [_part(kind, high, explanation) for kind in kinds if explanation is not None]
    return "; ".join([said, *(part for part in parts if part)])


def sentence_of_all(metrics: Sequence[MetricShare], threshold: float) -> str:
    """Return the sentence for all metrics of an instance, which come by their shares.

    A metric is off its habit if the odds of its score are above half of the threshold's.

    >>> shares = [MetricShare("load", 0.5, 0.8), MetricShare("mem", 0.3, 0.4)]
    >>> sentence_of_all([*shares, MetricShare("disk", 0.2, 0.3)], 0.5)
    '2 of 3 metrics off their habit: load, mem'
    """
    off = [one.metric for one in metrics if odds(one.score) > odds(threshold) / 2]
    named = ", ".join(off[:NAMED]) + (f" and {len(off) - NAMED} more" if len(off) > NAMED else "")
    said = f"{len(off)} of {len(metrics)} metrics off their habit"
    return f"{said}: {named}" if off else said


def _part(kind: Kind, high: bool, explanation: Explanation) -> str:
    if kind == "range":
        return f"{'highest' if high else 'lowest'} in {_lasting(explanation.known or 0.0)}"
    if kind == "jump":
        return f"a jump {'up' if high else 'down'}"
    if kind == "stuck":
        return "unchanged for far longer than ever"
    if kind == "lately":
        return "unusual for the last hours" if explanation.reasons[0].kind == "lately" else ""
    return ""


def _lasting(seconds: float) -> str:
    """Return a time in its largest unit.

    >>> _lasting(5 * HOUR), _lasting(3.2 * DAY), _lasting(27 * DAY)
    ('5 hours', '3 days', '4 weeks')
    """
    for size, unit in ((7 * DAY, "week"), (DAY, "day"), (HOUR, "hour")):
        count = round(seconds / size)
        if count > 1 or (count == 1 and unit == "hour"):
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "the time that is known"
