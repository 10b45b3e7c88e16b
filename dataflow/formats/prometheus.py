"""Prometheus's samples as prometheus-kafka-adapter writes them: remote write, as JSON.

CPU are the recording rules of the node exporter's mixin, which are shares from 0 to 1, CloudWatch's
average as YACE (yet another CloudWatch exporter) exports it, in percent, and, of a host without
these, the idle seconds of each CPU that the node exporter counts. Anything else is a metric by its
name, with the labels that are not those of the target behind it, unless its name says that it only
grows.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any, ClassVar

from dataflow.formats.metrics import series
from dataflow.formats.recipes import Other, Recipe, RecipeFormat

__all__ = ["Prometheus"]

HOST = ("/labels/instance", "/labels/nodename", "/labels/node")
CLOUDWATCH = ("/labels/dimension_InstanceId",)
TIME = ("/timestamp",)

TARGET = {"__name__", "instance", "job", "node", "nodename"}
"""Labels of what is scraped, not of a metric of it."""

GROWS = ("_total", "_count", "_sum", "_bucket", "_created")
"""How names end of what only grows."""


def _share(pattern: str) -> Recipe:
    return Recipe((("/name", pattern),), HOST, TIME, "/value", times=100.0)


class Prometheus(RecipeFormat):
    """Reads `{"labels": {"instance": "a"}, "name": ..., "timestamp": ..., "value": "0.4155"}`.

    >>> from dataflow.formats.base import Fields
    >>> fields = Fields("instance", "timestamp", "index", "value", None, 100.0)
    >>> record = (b'{"labels": {"instance": "a"}, "name": "instance:node_cpu_utilisation:rate5m",'
    ...           b' "timestamp": "2025-03-08T16:00:00Z", "value": "0.4155"}')
    >>> list(Prometheus(fields).read(record))
    [Point(instance='a', value=41.55, time='2025-03-08T16:00:00Z')]
    """

    feed = "prometheus-kafka-adapter"
    marks: ClassVar = ("/labels", "/name", "/timestamp", "/value")
    key_prefix = "/labels/"
    cpu_names = (
        *("instance:node_cpu_utilisation:rate1m", "instance:node_cpu_utilisation:rate5m"),
        *("instance:node_cpu:ratio", "aws_ec2_cpuutilization_average", "node_cpu_seconds_total"),
    )
    recipes: ClassVar = (
        _share("instance:node_cpu_utilisation:rate*"),
        _share("instance:node_cpu_utilization:rate*"),
        _share("instance:node_cpu:ratio*"),
        Recipe(
            (("/name", "aws_ec2_cpuutilization_average"),),
            CLOUDWATCH,
            TIME,
            "/value",
        ),
        Recipe(
            (("/name", "node_cpu_seconds_total"), ("/labels/mode", "idle")),
            HOST,
            TIME,
            "/value",
            part="/labels/cpu",
        ),
    )

    def others(self, record: Any) -> Iterator[Other]:
        """Yield the sample, if it is not CPU and does not say that it only grows."""
        name, labels = record["name"], record["labels"]
        if not isinstance(name, str) or not isinstance(labels, dict):
            return
        if name.endswith(GROWS) or any(
            recipe.where[0][1] is not None and fnmatchcase(name, recipe.where[0][1])
            for recipe in self.recipes
        ):
            return
        keys = CLOUDWATCH if name.startswith("aws_") and "dimension_InstanceId" in labels else HOST
        own = {tag: one for tag, one in labels.items() if tag not in TARGET}
        if keys is CLOUDWATCH:
            own.pop("name", None)  # the resource, which is the instance
        yield Other(series(name, self.further(own, keys)), record["value"], keys, TIME)
