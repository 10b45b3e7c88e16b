"""What the flow says of itself on a terminal: a line at the start, and one at the end."""

from __future__ import annotations

import atexit
import sys

from prometheus_client import Counter

from dataflow.detectors import compiled, find
from dataflow.metrics import counters
from dataflow.recovery.store import Store
from dataflow.settings import Settings

__all__ = ["beginning", "end", "to_a_terminal"]


def beginning(settings: Settings, threshold: float, resumes: Store | None) -> str:
    """Return the line at the start: what is read, with which detector, since where.

    >>> beginning(Settings(_env_file=None, detector="zscore"), 0.5, None)
    "reading the topic 'ec2_metrics' of localhost:9092 from its first record, with zscore (alerts \
above 0.5); anomalies go to stdout"
    """
    if settings.input == "kafka":
        place = f"the topic {settings.topic!r} of {settings.brokers}"
    else:
        place = f"the file {settings.input}"
    since = "from its first record" if resumes is None else f"on from the store {resumes.folder}"
    form = ", not compiled" if find(settings.detector).compilable and not compiled() else ""
    return (
        f"reading {place} {since}, with {settings.detector}{form} (alerts above {threshold:g}); "
        f"anomalies go to {settings.output}"
    )


def end() -> str:
    """Return the line at the end: what this process has read and found."""
    scored, anomalies, alerts = (
        int(_value(counter))
        for counter in (
            counters.READINGS_SCORED,
            counters.ANOMALIES_FOUND,
            counters.ALERTS_FOUND,
        )
    )
    return f"scored {scored:,} readings: {alerts:,} alerts, {anomalies:,} anomalies"


def _value(counter: Counter) -> float:
    return next(
        sample.value
        for metric in counter.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    )


def to_a_terminal(settings: Settings, threshold: float, store: Store | None) -> None:
    """Print both lines on standard error, now and when the process ends, if a person sees it."""
    if not sys.stderr.isatty():
        return
    print(beginning(settings, threshold, store), file=sys.stderr, flush=True)
    atexit.register(lambda: print(end(), file=sys.stderr, flush=True))
