"""Prometheus's samples as prometheus-kafka-adapter writes them: remote write, as JSON.

CPU are the recording rules of the node exporter's mixin, which are shares from 0 to 1, CloudWatch's
average as YACE (yet another CloudWatch exporter) exports it, in percent, and, of a host without
these, the idle seconds of each CPU that the node exporter counts. Everything else is skipped: for a
rule of your own, use the format `json`.
"""

from __future__ import annotations

from typing import ClassVar

from dataflow.formats.recipes import Recipe, RecipeFormat

__all__ = ["Prometheus"]

HOST = ("/labels/instance", "/labels/nodename", "/labels/node")
TIME = ("/timestamp",)


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
    recipes: ClassVar = (
        _share("instance:node_cpu_utilisation:rate*"),
        _share("instance:node_cpu_utilization:rate*"),
        _share("instance:node_cpu:ratio*"),
        Recipe(
            (("/name", "aws_ec2_cpuutilization_average"),),
            ("/labels/dimension_InstanceId",),
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
