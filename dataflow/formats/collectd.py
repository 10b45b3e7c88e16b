"""collectd's values as its plugin `write_kafka` writes them in JSON: its plugin `cpu`.

By default that counts jiffies, hundredths of a second, of each CPU and state; of these, the idle
ones are read. With `ValuesPercentage true` and `ReportByCpu false` it sends percentages of all
CPUs.
"""

from __future__ import annotations

from typing import ClassVar

from dataflow.formats.recipes import Recipe, RecipeFormat

__all__ = ["Collectd"]

HOST = ("/host",)
TIME = ("/time",)
ALL = (("/plugin", "cpu"), ("/plugin_instance", ""))

JIFFY = 0.01


class Collectd(RecipeFormat):
    """Reads `[{"plugin": "cpu", "type": "percent", "type_instance": "active", ...}]`.

    >>> from dataflow.formats.base import Fields
    >>> fields = Fields("instance", "timestamp", "index", "value", None, 100.0)
    >>> record = (b'[{"values": [58.5], "time": 1741449600.265, "host": "a", "plugin": "cpu",'
    ...           b'"plugin_instance": "", "type": "percent", "type_instance": "idle"}]')
    >>> list(Collectd(fields).read(record))
    [Point(instance='a', value=41.5, time=1741449600.265)]
    """

    feed = "collectd"
    marks: ClassVar = ("/plugin", "/values", "/time", "/host")
    recipes: ClassVar = (
        Recipe((*ALL, ("/type", "percent"), ("/type_instance", "active")), HOST, TIME, "/values/0"),
        Recipe(
            (*ALL, ("/type", "percent"), ("/type_instance", "idle")),
            HOST,
            TIME,
            "/values/0",
            idle=True,
        ),
        Recipe(
            (("/plugin", "cpu"), ("/type", "cpu"), ("/type_instance", "idle")),
            HOST,
            TIME,
            "/values/0",
            times=JIFFY,
            part="/plugin_instance",
        ),
    )
