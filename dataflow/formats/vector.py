"""Vector's metrics as JSON: gauges of CPU, and the counters of its source `host_metrics`.

A name that says a percentage is read as one, a name that says a ratio as a share from 0 to 1.
`cpu_seconds_total` has the idle seconds of each CPU so far. Any other gauge is a metric by its
name, with the tags that are not those of the host behind it; what else there is, is skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any, ClassVar

from dataflow.formats.metrics import series
from dataflow.formats.paths import UNSET, find
from dataflow.formats.recipes import Other, Recipe, RecipeFormat

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
    cpu_names = ("cpu_usage_percent", "cpu_seconds_total", "aws_ec2_cpuutilization_average")
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

    def others(self, record: Any) -> Iterator[Other]:
        """Yield the gauge, if it is not CPU."""
        name, value, tags = record["name"], find(record, ("gauge", "value")), record.get("tags")
        if not isinstance(name, str) or value is UNSET:
            return
        tags = tags if isinstance(tags, dict) else {}
        if any(fnmatchcase(name, str(recipe.where[0][1])) for recipe in self.recipes):
            return
        own = {tag: one for tag, one in tags.items() if tag != "collector"}
        yield Other(series(name, self.further(own, HOST)), value, HOST, TIME)
