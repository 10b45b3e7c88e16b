"""Metricbeat's and Elastic Agent's events: the CPU of a host, and of EC2 as its module polls it.

Every `pct` is a share from 0 to 1, of all CPUs together where it is normalized (`norm`). The total
without `norm` is the sum of the CPUs' shares.
"""

from __future__ import annotations

from typing import ClassVar

from dataflow.formats.recipes import Recipe, RecipeFormat

__all__ = ["Metricbeat"]

HOST = ("/cloud/instance/id", "/host/name", "/host/hostname", "/agent/name")
EC2 = ("/cloud/instance/id", "/aws/dimensions/InstanceId")
TIME = ("/@timestamp",)
SYSTEM = (("/event/dataset", "system.cpu"),)


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
    marks: ClassVar = ("/@timestamp", "/event/dataset")
    recipes: ClassVar = (
        Recipe(SYSTEM, HOST, TIME, "/system/cpu/total/norm/pct", times=100.0),
        Recipe(SYSTEM, HOST, TIME, "/host/cpu/usage", times=100.0),
        Recipe(SYSTEM, HOST, TIME, "/system/cpu/total/pct", times=100.0, per="/system/cpu/cores"),
        Recipe((("/event/dataset", "aws.ec2*"),), EC2, TIME, "/aws/ec2/cpu/total/pct", times=100.0),
        Recipe((("/event/dataset", "aws.ec2*"),), EC2, TIME, "/aws/ec2/metrics/CPUUtilization/avg"),
    )
