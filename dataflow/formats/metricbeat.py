"""Metricbeat's and Elastic Agent's events: the CPU of a host, and of EC2 as its module polls it.

Every `pct` is a share from 0 to 1, of all CPUs together where it is normalized (`norm`). The total
without `norm` is the sum of the CPUs' shares.

Other metrics are the numbers of `system.memory`, `system.load` and `system.fsstat`, and the
averages of `aws.ec2`, by their path, such as `system.memory.actual.used.pct`. Events of a disk, an
interface or a process are skipped: an instance has many of them. So is what only grows.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any, ClassVar

from dataflow.formats.paths import UNSET, find
from dataflow.formats.recipes import Other, Recipe, RecipeFormat

__all__ = ["Metricbeat"]

HOST = ("/cloud/instance/id", "/host/name", "/host/hostname", "/agent/name")
EC2 = ("/cloud/instance/id", "/aws/dimensions/InstanceId")
TIME = ("/@timestamp",)
SYSTEM = (("/event/dataset", "system.cpu"),)

WHOLE = ("system.memory", "system.load", "system.fsstat")
"""Metricsets with one event of a host at each time."""

GROWS = {"page_stats", "in", "out", "readahead"}
"""Parts of a path under which numbers only grow."""


class Metricbeat(RecipeFormat):
    """Reads events of `system.cpu` and `aws.ec2`; the others are skipped.

    >>> from dataflow.formats.base import Fields
    >>> fields = Fields("instance", "timestamp", "index", "value", None, 100.0)
    >>> record = (b'{"@timestamp": "2025-03-08T16:00:00.853Z", "event": {"dataset": "system.cpu"},'
    ...           b'"host": {"name": "a", "cpu": {"usage": 0.4155}}, "system": {"cpu": {}}}')
    >>> list(Metricbeat(fields).read(record))
    [Point(instance='a', value=41.55, time='2025-03-08T16:00:00.853Z')]
    """

    feed = "Metricbeat"
    cpu_names = ("system.cpu.total.norm.pct", "host.cpu.usage", "CPUUtilization")
    marks: ClassVar = ("/@timestamp", "/event/dataset")
    recipes: ClassVar = (
        Recipe(SYSTEM, HOST, TIME, "/system/cpu/total/norm/pct", times=100.0),
        Recipe(SYSTEM, HOST, TIME, "/host/cpu/usage", times=100.0),
        Recipe(SYSTEM, HOST, TIME, "/system/cpu/total/pct", times=100.0, per="/system/cpu/cores"),
        Recipe((("/event/dataset", "aws.ec2*"),), EC2, TIME, "/aws/ec2/cpu/total/pct", times=100.0),
        Recipe((("/event/dataset", "aws.ec2*"),), EC2, TIME, "/aws/ec2/metrics/CPUUtilization/avg"),
    )

    def others(self, record: Any) -> Iterator[Other]:
        """Yield the numbers of an event of a whole host, and CloudWatch's averages."""
        dataset = find(record, ("event", "dataset"))
        if not isinstance(dataset, str):
            return
        if dataset in WHOLE:
            for name, value in _numbers(dataset, find(record, tuple(dataset.split(".")))):
                unit = "ratio" if name.endswith(".pct") else None
                yield Other(name, value, HOST, TIME, unit)
        elif fnmatchcase(dataset, "aws.ec2*"):
            found = find(record, ("aws", "ec2", "metrics"))
            for name, statistics in found.items() if isinstance(found, dict) else ():
                mean = find(statistics, ("avg",))
                if mean is not UNSET and name != "CPUUtilization":
                    yield Other(name, mean, EC2, TIME)


def _numbers(path: str, found: Any) -> Iterator[tuple[str, int | float]]:
    """Yield each number below a path, with its own path."""
    if isinstance(found, dict):
        for name, inner in found.items():
            if name not in GROWS:
                yield from _numbers(f"{path}.{name}", inner)
    elif isinstance(found, (int, float)) and not isinstance(found, bool):
        yield path, found
