"""Fluent Bit's input `cpu`: `cpu_p` is the share of all CPUs together that is in use, in percent.

Its records name no host, unless the filter `record_modifier` or `modify` adds one.

Other numbers, of this input and of others such as `mem`, are metrics by the name of their field,
with the text in the record, such as the name of a sensor, behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from dataflow.formats.metrics import series
from dataflow.formats.paths import parse
from dataflow.formats.recipes import Other, Recipe, RecipeFormat

__all__ = ["FluentBit"]

HOST = ("/host", "/hostname", "/instance_id", "/instance", "/ec2_instance_id")
TIME = ("/@timestamp", "/timestamp", "/date", "/time")


class FluentBit(RecipeFormat):
    """Reads `{"@timestamp": 1741449600.5, "cpu_p": 41.5, "host": "a"}`.

    >>> from dataflow.formats.base import Fields
    >>> fields = Fields("instance", "timestamp", "index", "value", None, 100.0)
    >>> list(FluentBit(fields).read(b'{"@timestamp": 1741449600.5, "cpu_p": 41.5, "host": "a"}'))
    [Point(instance='a', value=41.5, time=1741449600.5)]
    """

    feed = "Fluent Bit"
    cpu_names = ("cpu_p",)
    marks: ClassVar = ()
    recipes: ClassVar = (Recipe((), HOST, TIME, "/cpu_p"),)

    def others(self, record: Any) -> Iterator[Other]:
        """Yield the numbers of a record."""
        times = {parse(path)[-1] for path in TIME}
        texts = {
            name: one for name, one in record.items() if isinstance(one, str) and name not in times
        }
        further = self.further(texts, HOST)
        for name, value in record.items():
            known = name in times or name == "cpu_p" or isinstance(value, bool)
            if not known and isinstance(value, (int, float)):
                # `user_p`, `cpu0.p_system` and the like.
                unit = "%" if name.endswith("_p") or ".p_" in name else None
                yield Other(series(name, further), value, HOST, TIME, unit)
