"""Fluent Bit's input `cpu`: `cpu_p` is the share of all CPUs together that is in use, in percent.

Its records name no host, unless the filter `record_modifier` or `modify` adds one.
"""

from __future__ import annotations

from typing import ClassVar

from dataflow.formats.recipes import Recipe, RecipeFormat

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
    marks: ClassVar = ()
    recipes: ClassVar = (Recipe((), HOST, TIME, "/cpu_p"),)
