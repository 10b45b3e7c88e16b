"""Formats that are mostly data: where a feed keeps the CPU of a host, as paths. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, ClassVar, NamedTuple

from dataflow.formats.base import (
    DIGITS,
    MAX_INSTANCE_LENGTH,
    PERCENT,
    Fields,
    Format,
    Point,
    RecordError,
    inverted,
)
from dataflow.formats.framing import documents, unframed
from dataflow.formats.json import decoded, is_scalar, kind_of, number_of
from dataflow.formats.metrics import same_everywhere, unit_of
from dataflow.formats.paths import UNSET, find, parse

__all__ = ["Other", "Recipe", "RecipeFormat"]


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


class Other(NamedTuple):
    """A metric of a record that is not CPU: its whole name, its value, and its unit if known.

    `keys` and `time` are as in a recipe. Where `unit` is None, the name may say it.
    """

    name: str
    value: Any
    keys: tuple[str, ...]
    time: tuple[str, ...]
    unit: str | None = None


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

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        self._key: str | None = None
        """The path of the instance that the settings name, None if they name none."""
        if fields.renamed and fields.key is not None:
            named = fields.key.startswith("/")
            self._key = fields.key if named else self.key_prefix + fields.key.replace("/", "~1")

    def read(self, value: bytes) -> Iterator[Point | RecordError | None]:
        """Read the documents of a record: of each its CPU, then the other metrics, if selected."""
        content = unframed(value)
        if not content.strip():
            raise RecordError("the record is empty", "no-value")
        parts = documents(content)
        if not self.several:
            return map(self._part, parts)
        return (one for part in parts for one in self._all(part))

    def _part(self, document: bytes) -> Point | RecordError | None:
        try:
            return self._point(decoded(document))
        except RecordError as wrong:
            wrong.part = document
            return wrong

    def _all(self, document: bytes) -> Iterator[Point | RecordError | None]:
        try:
            record = self._opened(decoded(document))
        except RecordError as wrong:
            wrong.part = document
            yield wrong
            return
        if self.wanted.cpu:
            yield self._part(document)
        for other in self.others(record):
            if not self.wanted.named(other.name):
                yield None
                continue
            try:
                yield self._other(record, other)
            except RecordError as wrong:
                wrong.part, wrong.metric = document, other.name
                yield wrong

    def _opened(self, record: Any) -> Any:
        """Return a record without its envelope. Raises `RecordError` if it is of another feed."""
        if self.inside is not None and isinstance(inner := find(record, parse(self.inside)), dict):
            record = inner
        for mark in self.marks:
            if find(record, parse(mark)) is UNSET:
                raise RecordError(
                    f"the field {mark!r} is missing, so this is no record of {self.feed}",
                    "missing-field",
                )
        return record

    def _point(self, record: Any) -> Point | None:
        record = self._opened(record)
        for recipe in self.recipes:
            value = find(record, parse(recipe.value))
            if value is not UNSET and all(_matches(record, *one) for one in recipe.where):
                return self._measured(record, recipe, value)
        return None

    def others(self, record: Any) -> Iterable[Other]:
        """Return the metrics of a record that are not CPU, those that only grow left out."""
        return ()

    def _other(self, record: Any, other: Other) -> Point:
        instance = self._instance(record, other)
        stamp = _first(record, other.time)
        if not is_scalar(stamp):
            raise RecordError(f"the field {other.time[0]!r} is missing", "missing-field", instance)
        value = number_of(other.value, other.name)
        unit = other.unit or unit_of(other.name)
        labels = self._labels(record) if self.labelled else None
        return Point(instance, value, stamp, metric=other.name, unit=unit, labels=labels)

    def _labels(self, record: Any) -> dict[str, str] | None:
        group = find(record, parse(self.key_prefix.rstrip("/"))) if self.key_prefix != "/" else None
        return self.labels.of(record, group if isinstance(group, dict) else {}, record)

    def further(self, tags: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
        """Return the tags that tell a metric from others of its name and instance.

        `keys` are the paths of the instance: none of them is such a tag, nor is a label.
        """
        host = {parse(key)[-1] for key in (*keys, self._key or "")} | self.labels.names
        return {
            tag: one for tag, one in tags.items() if tag not in host and not same_everywhere(tag)
        }

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
        value = inverted(percent, PERCENT) if recipe.idle else percent
        labels = self._labels(record) if self.labelled else None
        return Point(instance, value, stamp, labels=labels)

    def _counted(self, record: Any, recipe: Recipe, value: Any, instance: str, stamp: Any) -> Point:
        assert recipe.part is not None
        part = find(record, parse(recipe.part))
        if not isinstance(part, str) or len(part) > MAX_INSTANCE_LENGTH:
            raise RecordError(f"{recipe.part!r} is no name of a CPU", "bad-record", instance)
        seconds = number_of(value, recipe.value) * recipe.times
        labels = self._labels(record) if self.labelled else None
        counter = seconds, 0.0
        return Point(instance, PERCENT, stamp, counter=counter, part=part or "0", labels=labels)

    def _instance(self, record: Any, recipe: Recipe | Other) -> str:
        fields = self.fields
        if fields.key is None and fields.only_instance is not None:
            return fields.only_instance
        paths = recipe.keys if self._key is None else (self._key,)
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
