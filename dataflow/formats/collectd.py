"""collectd's values as its plugin `write_kafka` writes them in JSON: its plugin `cpu`.

By default that counts jiffies, hundredths of a second, of each CPU and state; of these, the idle
ones are read. With `ValuesPercentage true` and `ReportByCpu false` it sends percentages of all
CPUs. Any other gauge is a metric by the identifier that collectd itself gives it, without the host:
`memory/memory-used`, and with the name of the value where there are several: `load/load/shortterm`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from dataflow.formats.recipes import Other, Recipe, RecipeFormat

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

    def others(self, record: Any) -> Iterator[Other]:
        """Yield the gauges of a record that are not CPU of all CPUs."""
        plugin, kind = record["plugin"], record.get("type", "")
        values, kinds = record["values"], record.get("dstypes")
        names = record.get("dsnames", ())
        lists = isinstance(values, list) and isinstance(kinds, list) and isinstance(names, list)
        if not lists or plugin == "cpu":
            return
        name = f"{_with(record, 'plugin')}/{_with(record, 'type')}"
        for place, (value, sort) in enumerate(zip(values, kinds, strict=False)):
            if sort == "gauge" and value is not None:
                part = f"/{names[place]}" if len(values) > 1 and place < len(names) else ""
                unit = "%" if isinstance(kind, str) and kind.startswith("percent") else None
                yield Other(f"{name}{part}", value, HOST, TIME, unit)


def _with(record: Any, field: str) -> str:
    instance = record.get(f"{field}_instance")
    return f"{record.get(field)}-{instance}" if instance else str(record.get(field))
