"""What one viewer sees of the table: order, filter and page, and what has changed of it. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlencode

from dataflow.dashboard.fleet import Row
from dataflow.dashboard.trouble import State

__all__ = ["SIZE", "Column", "Rhythm", "View"]

SIZE = 20
"""Rows of a page."""

TICK = 10.0
"""Seconds between two new orders."""

LINES = 30.0
"""Seconds between two drawings of the lines of the last day."""

_MARKED = ("day", "last_anomaly")
"""Columns whose text changes with an anomaly, which is a point of the line."""


class Rhythm:
    """When to draw again what takes long: `seconds` after the last time, or when all is read.

    `generation` is the feed's: a new one means that what is on screen is of a part of the readings.

    >>> rhythm = Rhythm(30.0)
    >>> rhythm.drawn(0.0, 0)
    >>> [rhythm.is_due(*it) for it in ((29.0, 0), (29.0, 1), (30.0, 0))]
    [False, True, True]
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due = -math.inf
        self._generation = 0

    def is_due(self, now: float, generation: int) -> bool:
        """Return whether it is time; `now` is a clock in seconds."""
        return now >= self._due or generation != self._generation

    def drawn(self, now: float, generation: int) -> None:
        """Note that it is drawn."""
        self._due, self._generation = now + self._seconds, generation


class Column(NamedTuple):
    """One column of the table.

    `text` gives the text of a cell, `key` what is sorted by: None is last in either direction, and
    no function means that the column cannot be sorted. Numbers are aligned to the right. They, and
    columns that are `descending`, are sorted so at the first click. On a narrow screen
    the columns with the highest `hide` are hidden first; 0 never is. `hint` explains the heading.
    """

    field: str
    title: str
    text: Callable[[Row], str]
    key: Callable[[Row], Any] | None = None
    number: bool = True
    descending: bool = False
    hide: int = 0
    hint: str = ""


class View:
    """The rows that one browser shows, and what it has of them.

    The order is made again each `TICK` seconds, and at once when all has been read, and for a new
    trouble where the newest is on top. While the reader points at the table or has the focus in it
    (`held`), all this waits until he no longer does. What he asks for is done at once. A line is
    drawn again each `LINES` seconds, when all has been read, and with each anomaly.

    >>> def name(row: Row) -> str:
    ...     return row.instance
    >>> columns = [Column("instance", "Instance", name, name, number=False)]
    >>> View(columns, {"find": "web", "sort": "-instance", "page": "2"}).query()
    'sort=-instance&find=web&page=2'
    """

    def __init__(self, columns: Sequence[Column], asked: Mapping[str, str] | None = None) -> None:
        """Begin with what an address asks for: `sort` (`-` for descending), `find` and `page`."""
        asked = asked or {}
        self.columns = {column.field: column for column in columns}
        self.sort, self.descending = "", True
        field = asked.get("sort", "").removeprefix("-")
        if field in self.columns and self.columns[field].key is not None:
            self.sort, self.descending = field, asked["sort"].startswith("-")
        self.find = asked.get("find", "")[:200]
        page = asked.get("page", "")
        self.page = int(page) if page.isascii() and page.isdecimal() and len(page) < 7 else 1
        self.held = False
        self._order: list[str] = []
        self._troubled: set[str] = set()
        self._asked = True
        self._ordered, self._lined = Rhythm(TICK), Rhythm(LINES)
        self._count = 0
        self._sent: dict[str, dict[str, str]] = {}
        self._shown: list[str] | None = None
        self._about: dict[str, Any] = {}

    def query(self) -> str:
        """Return the part of the address that shows this view again; empty for the first view."""
        sort = {"sort": ("-" if self.descending else "") + self.sort} if self.sort else {}
        find = {"find": self.find} if self.find else {}
        page = {"page": str(self.page)} if self.page > 1 else {}
        return urlencode(sort | find | page)

    def sort_by(self, field: str) -> None:
        """Sort by a column; by the same one again in the other direction."""
        column = self.columns.get(field)
        if column is None or column.key is None:
            return
        again = field == (self.sort or self.first)
        begins = column.number or column.descending
        self.descending = not self.descending if again else begins
        self.sort, self.page, self._asked = field, 1, True

    @property
    def first(self) -> str:
        """The column that is sorted by unless another is asked for."""
        return "state" if "state" in self.columns else next(iter(self.columns))

    def search(self, text: str) -> None:
        """Show the instances whose names hold a text."""
        self.find, self.page, self._asked = text[:200], 1, True

    def turn_to(self, page: int) -> None:
        """Show another page."""
        self.page, self._asked = max(1, page), True

    def forget(self) -> None:
        """Send all again: the browser has nothing."""
        self._sent, self._shown, self._about, self._asked = {}, None, {}, True

    def message(
        self,
        rows: Sequence[Row],
        now: float,
        spark: Callable[[str], str],
        generation: int = 0,
    ) -> dict[str, Any] | None:
        """Return what the browser lacks, None if nothing.

        `now` is a clock in seconds, and `generation` the feed's: see `Rhythm`.
        `rows` has the changed cells by instance and field, `order` the instances from above,
        `about` the rest.
        """
        by_name = {row.instance: row for row in rows}
        due = self._ordered.is_due(now, generation)
        grown = len(rows) != self._count and len(self._order) < SIZE
        lost = any(name not in by_name for name in self._visible())
        troubled = {row.instance for row in rows if row.state is State.TROUBLED}
        begins = (self.sort or self.first) == "state" and not troubled <= self._troubled
        if self._asked or lost or ((due or grown or begins) and not self.held):
            self._order = self._sorted(rows)
            self._troubled = troubled
            self._count, self._asked = len(rows), False
            self.page = min(self.page, max(1, math.ceil(len(self._order) / SIZE)))
            self._ordered.drawn(now, generation)
        draw = self._lined.is_due(now, generation)
        if draw:
            self._lined.drawn(now, generation)
        names = self._visible()
        changed: dict[str, dict[str, str]] = {}
        sent: dict[str, dict[str, str]] = {}
        for name in names:
            known = self._sent.get(name, {})
            cells = {it.field: it.text(by_name[name]) for it in self.columns.values()}
            old = draw or any(known.get(field) != cells.get(field) for field in _MARKED)
            cells["spark"] = spark(name) if old or "spark" not in known else known["spark"]
            sent[name] = cells
            news = {field: text for field, text in cells.items() if known.get(field) != text}
            if news:
                changed[name] = news
        about = self._what_about(len(self._found(rows)))
        message: dict[str, Any] = {}
        if changed:
            message["rows"] = changed
        if names != self._shown:
            message["order"] = names
        if about != self._about:
            message["about"] = about
        self._sent, self._shown, self._about = sent, names, about
        return message or None

    def _visible(self) -> list[str]:
        return self._order[(self.page - 1) * SIZE : self.page * SIZE]

    def _what_about(self, found: int) -> dict[str, Any]:
        return {
            "found": found,
            "page": self.page,
            "pages": max(1, math.ceil(found / SIZE)),
            "sort": self.sort or self.first,
            "descending": self.descending,
            "find": self.find,
            "query": self.query(),
        }

    def _found(self, rows: Sequence[Row]) -> list[Row]:
        wanted = self.find.strip().lower()
        return [row for row in rows if wanted in row.instance.lower()]

    def _sorted(self, rows: Sequence[Row]) -> list[str]:
        found = self._found(rows)
        found.sort(key=lambda row: row.instance)
        key = self.columns[self.sort or self.first].key
        if key is None:
            return [row.instance for row in found]
        keyed = [(key(row), row.instance) for row in found]
        known = [it for it in keyed if it[0] is not None]
        # A stable sort: among equals, by name.
        known.sort(key=lambda it: it[0], reverse=self.descending)
        return [name for _, name in known] + [name for value, name in keyed if value is None]
