"""Finds a part by name: built in, an entry point of an installed package, or `module:Class`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple

from dataflow.errors import UserError, missing_river

__all__ = ["Kind", "load", "names"]


class Kind(NamedTuple):
    """One kind of part that a user can replace.

    `what` names it in messages, `setting` is the setting that selects it, `group` its entry point
    group, and `built_in` maps the names of the parts of this package to `module:Class`.
    """

    what: str
    setting: str
    group: str
    built_in: Mapping[str, str]


def load(kind: Kind, name: str) -> Any:
    """Return the class that a name stands for.

    A name is looked up among the built-ins first, then among the entry points of installed
    packages; `module:Class` is imported as Python imports, from the working directory too.

    Raises `UserError`, in one line that lists what there is, if nothing has this name, and if
    importing it fails.

    >>> load(Kind("map", "ANOMALY_MAP", "maps", {"ordered": "collections:OrderedDict"}), "ordered")
    <class 'collections.OrderedDict'>
    """
    path = kind.built_in.get(name)
    if path is None and name in (installed := _installed(kind)):
        path = installed[name]
    if path is None and ":" in name:
        path = name
        if "" not in sys.path and str(Path.cwd()) not in sys.path:
            sys.path.append(str(Path.cwd()))
    if path is None:
        raise UserError(
            f"{kind.setting} names the {kind.what} {name!r}, which does not exist: use one of "
            f"{', '.join(names(kind))}, or module:Class for your own."
        )
    module, _, attribute = path.partition(":")
    try:
        part = import_module(module)
        for step in attribute.split("."):
            part = getattr(part, step)
    except (ImportError, AttributeError, ValueError) as wrong:
        if name in kind.built_in:
            raise
        if isinstance(wrong, ModuleNotFoundError) and wrong.name == "river":
            raise missing_river() from None
        raise UserError(
            f"{kind.setting} names the {kind.what} {name!r}, which cannot be imported ({wrong}): "
            f"check the name, or use one of {', '.join(names(kind))}."
        ) from None
    return part


def names(kind: Kind) -> list[str]:
    """Return the names that can be used: the built-ins in their order, then those installed."""
    return [
        *kind.built_in,
        *(name for name in sorted(_installed(kind)) if name not in kind.built_in),
    ]


def _installed(kind: Kind) -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=kind.group)}
