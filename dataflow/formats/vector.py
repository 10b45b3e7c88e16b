"""Vector's metrics as JSON: gauges of CPU, and the counters of its source `host_metrics`.

A name that says a percentage is read as one, a name that says a ratio as a share from 0 to 1;
anything else is skipped. `cpu_seconds_total` has the idle seconds of each CPU so far.
"""

from __future__ import annotations

from typing import ClassVar

from dataflow.formats.recipes import Recipe, RecipeFormat

__all__ = ["Vector"]

HOST = ("/tags/InstanceId", "/tags/instance_id", "/tags/host", "/tags/hostname", "/tags/instance")
TIME = ("/timestamp",)
ALL = (("/tags/cpu", None),)
"""Of one CPU of many, a gauge has a tag."""


def _gauge(name: str, times: float) -> Recipe:
    return Recipe((("/name", name), *ALL), HOST, TIME, "/gauge/value", times=times)


class Vector(RecipeFormat):
    """Reads `{"name": "cpu_usage_percent", "tags": {"host": "a"}, "gauge": {"value": 41.5}, ...}`.

    >>> from dataflow.formats.base import Fields
    >>> fields = Fields("instance", "timestamp", "index", "value", None, 100.0)
    >>> record = (b'{"name": "cpu_usage_percent", "tags": {"host": "a"}, "kind": "absolute",'
    ...           b'"timestamp": "2025-03-08T16:00:00Z", "gauge": {"value": 41.5}}')
    >>> list(Vector(fields).read(record))
    [Point(instance='a', value=41.5, time='2025-03-08T16:00:00Z')]
    """

    feed = "Vector"
    marks: ClassVar = ("/name", "/kind")
    inside = "/metric"
    key_prefix = "/tags/"
    recipes: ClassVar = (
        _gauge("cpu*_percent", 1.0),
        _gauge("cpu*_percentage", 1.0),
        _gauge("cpu*_ratio", 100.0),
        _gauge("aws_ec2_cpuutilization_average", 1.0),
        Recipe(
            (("/name", "cpu_seconds_total"), ("/tags/mode", "idle"), ("/kind", "absolute")),
            HOST,
            TIME,
            "/counter/value",
            part="/tags/cpu",
        ),
    )
