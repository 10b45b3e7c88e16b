"""Formats that are only data: where a feed keeps the CPU of a host, as paths. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any, ClassVar, NamedTuple

from dataflow.formats.base import (
    DIGITS,
    MAX_INSTANCE_LENGTH,
    PERCENT,
    Format,
    Point,
    RecordError,
    inverted,
)
from dataflow.formats.framing import documents, unframed
from dataflow.formats.json import decoded, is_scalar, kind_of, number_of
from dataflow.formats.paths import UNSET, find, parse

__all__ = ["Recipe", "RecipeFormat"]


class Recipe(NamedTuple):
    """Where the CPU of a host is in a kind of record.

    `where` has pairs of path and pattern that select the records. Of the paths in `keys` and
    `values`, the first that leads to something counts. `times` is what the value is multiplied by
    to make it a percentage; `per` the path of a number to divide it by; `idle` says that it is the
    share that is not in use. A pattern of None: the path leads to nothing. `part` is the path of
    the name of a CPU: the value is then how long it was idle so far, in seconds if multiplied by
    `times`.
    """

    where: tuple[tuple[str, str | None], ...]
    keys: tuple[str, ...]
    time: tuple[str, ...]
    value: str
    times: float = 1.0
    per: str | None = None
    idle: bool = False
    part: str | None = None


class RecipeFormat(Format):
    """Reads the records of a feed by its recipes; what none of them selects is skipped.

    A record that lacks one of the paths in `marks` is not of this feed, and is rejected.
    """

    feed: ClassVar[str]
    marks: ClassVar[tuple[str, ...]]
    recipes: ClassVar[tuple[Recipe, ...]]
    inside: ClassVar[str | None] = None
    """The path of the record in an envelope that may be around it."""

    key_prefix: ClassVar[str] = "/"
    """What ANOMALY_KEY_FIELD names a field of, where it is no path."""

    percent = True

    def read(self, value: bytes) -> Iterator[Point | RecordError | None]:
        """Read the documents of a record, one reading each."""
        content = unframed(value)
        if not content.strip():
            raise RecordError("the record is empty", "no-value")
        return map(self._part, documents(content))

    def _part(self, document: bytes) -> Point | RecordError | None:
        try:
            return self._point(decoded(document))
        except RecordError as wrong:
            wrong.part = document
            return wrong

    def _point(self, record: Any) -> Point | None:
        if self.inside is not None and isinstance(inner := find(record, parse(self.inside)), dict):
            record = inner
        for mark in self.marks:
            if find(record, parse(mark)) is UNSET:
                raise RecordError(
                    f"the field {mark!r} is missing, so this is no record of {self.feed}",
                    "missing-field",
                )
        for recipe in self.recipes:
            value = find(record, parse(recipe.value))
            if value is not UNSET and all(_matches(record, *one) for one in recipe.where):
                return self._measured(record, recipe, value)
        return None

    def _measured(self, record: Any, recipe: Recipe, value: Any) -> Point:
        instance = self._instance(record, recipe)
        stamp = _first(record, recipe.time)
        if not is_scalar(stamp):
            raise RecordError(f"the field {recipe.time[0]!r} is missing", "missing-field", instance)
        if recipe.part is not None:
            return self._counted(record, recipe, value, instance, stamp)
        percent = number_of(value, recipe.value) * recipe.times
        if recipe.per is not None:
            count = number_of(find(record, parse(recipe.per)), recipe.per)
            if not count > 0:
                raise RecordError(f"{recipe.per!r} is not above 0", "not-a-number", instance)
            percent /= count
        if recipe.times != 1.0 or recipe.per is not None:
            percent = round(percent, DIGITS)
        return Point(instance, inverted(percent, PERCENT) if recipe.idle else percent, stamp)

    @staticmethod
    def _counted(record: Any, recipe: Recipe, value: Any, instance: str, stamp: Any) -> Point:
        assert recipe.part is not None
        part = find(record, parse(recipe.part))
        if not isinstance(part, str) or len(part) > MAX_INSTANCE_LENGTH:
            raise RecordError(f"{recipe.part!r} is no name of a CPU", "bad-record", instance)
        seconds = number_of(value, recipe.value) * recipe.times
        return Point(instance, PERCENT, stamp, counter=(seconds, 0.0), part=part or "0")

    def _instance(self, record: Any, recipe: Recipe) -> str:
        fields = self.fields
        if fields.key is None and fields.only_instance is not None:
            return fields.only_instance
        paths = recipe.keys
        if fields.renamed and fields.key is not None:
            named = fields.key.startswith("/")
            paths = (fields.key if named else self.key_prefix + fields.key.replace("/", "~1"),)
        found = _first(record, paths)
        if found is UNSET:
            raise RecordError(
                f"the field {paths[-1]!r} with the name of the instance is missing: add it on the "
                "side of the producer, or name another in ANOMALY_KEY_FIELD",
                "missing-field",
            )
        if isinstance(found, int) and not isinstance(found, bool):
            return str(found)
        if not isinstance(found, str):
            raise RecordError(f"{paths[-1]!r} is {kind_of(found)}, not text", "bad-instance")
        return found


def _first(record: Any, paths: tuple[str, ...]) -> Any:
    for path in paths:
        if (found := find(record, parse(path))) is not UNSET:
            return found
    return UNSET


def _matches(record: Any, path: str, pattern: str | None) -> bool:
    found = find(record, parse(path))
    if pattern is None:
        return found is UNSET
    return isinstance(found, str) and fnmatchcase(found, pattern)
