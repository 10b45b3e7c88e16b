"""What one viewer sees of the table, against a browser that keeps what it gets."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dataflow.dashboard.fleet import Row
from dataflow.dashboard.trouble import State
from dataflow.dashboard.view import LINES, SIZE, TICK, Column, Rhythm, View

COLUMNS = [
    Column("instance", "Instance", lambda it: it.instance, lambda it: it.instance, number=False),
    Column("score", "Score", lambda it: f"{it.score}", lambda it: it.score or None),
    Column("day", "Day", lambda it: f"{it.day}"),
]


def row(name: str, score: float) -> Row:
    return Row(name, State.ORDINARY, None, None, None, 0.0, score, 0, None, 0.0)


class Browser:
    """Applies messages, as `table.js` does."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.cells: dict[str, dict[str, str]] = {}
        self.about: dict[str, Any] = {}

    def take(self, message: dict[str, Any] | None) -> None:
        message = message or {}
        self.order = message.get("order", self.order)
        for name, changed in message.get("rows", {}).items():
            self.cells.setdefault(name, {}).update(changed)
        self.cells = {name: self.cells[name] for name in self.order}
        self.about = message.get("about", self.about)


WISHES = st.one_of(
    st.tuples(st.just("sort_by"), st.sampled_from(["instance", "score", "day", "nothing"])),
    st.tuples(st.just("search"), st.sampled_from(["", "1", "I-", "none"])),
    st.tuples(st.just("turn_to"), st.integers(-1, 5)),
    st.tuples(st.just("hold"), st.booleans()),
    st.tuples(st.just("read"), st.none()),
    st.tuples(st.just("wait"), st.floats(0.5, 20.0)),
)


@given(st.lists(st.tuples(WISHES, st.lists(st.integers(0, 3), min_size=50, max_size=60))))
def test_the_browser_has_what_it_lacks(steps: list[tuple[Any, list[int]]]) -> None:
    view, browser, now, generation = View(COLUMNS), Browser(), 0.0, 0
    for (wish, what), scores in steps:
        rows = [row(f"i-{number}", score / 4) for number, score in enumerate(scores)]
        before, asked = list(browser.order), wish not in ("hold", "wait", "read")
        if wish == "hold":
            view.held = what
        elif wish == "wait":
            now += what
        elif wish == "read":
            generation += 1
        else:
            getattr(view, wish)(what)
        message = view.message(rows, now, lambda name: f"line of {name}", generation)
        browser.take(message)
        assert view.message(rows, now, lambda name: f"line of {name}", generation) is None
        for name in browser.order:
            found = next(it for it in rows if it.instance == name)
            assert browser.cells[name] == {
                **{"instance": name, "score": f"{found.score}", "day": "0"},
                "spark": f"line of {name}",
            }
        names = {it.instance for it in rows}
        if view.held and before and not asked and names.issuperset(before):
            assert browser.order == before
        matching = [it for it in rows if view.find.strip().lower() in it.instance]
        assert browser.about["found"] == len(matching)
        assert len(browser.order) <= SIZE
        if asked or now - TICK > 0:
            again = View(COLUMNS, dict(part.split("=") for part in view.query().split("&") if part))
            assert again.query() == view.query()


def test_numbers_come_down_at_the_first_click_and_names_go_up() -> None:
    rows = [row("b", 0.5), row("a", 0.0), row("c", 0.75), row("d", 0.5)]
    view, browser = View(COLUMNS), Browser()

    def order(field: str) -> list[str]:
        view.sort_by(field)
        browser.take(view.message(rows, 0.0, lambda _: ""))
        return browser.order

    # What is not known is last, whichever way; equals are in the order of their names.
    assert order("score") == ["c", "b", "d", "a"]
    assert order("score") == ["b", "d", "c", "a"]
    assert order("instance") == ["a", "b", "c", "d"]
    assert order("instance") == ["d", "c", "b", "a"]


def test_between_ticks_only_cells_change() -> None:
    view = View(COLUMNS, {"sort": "-score"})
    assert view.message([row("a", 0.5), row("b", 0.25)], 0.0, lambda _: "")
    message = view.message([row("a", 0.5), row("b", 0.75)], 1.0, lambda _: "new line")
    assert message == {"rows": {"b": {"score": "0.75"}}}
    assert view.message([row("a", 0.5), row("b", 0.75)], TICK, lambda _: "new line") == {
        "order": ["b", "a"]
    }
    assert view.message([row("a", 0.5), row("b", 0.75)], LINES, lambda _: "new line") == {
        "rows": {"a": {"spark": "new line"}, "b": {"spark": "new line"}}
    }


def test_a_line_is_drawn_with_each_anomaly() -> None:
    view = View(COLUMNS)
    quiet = [row("a", 0.5), row("b", 0.5)]
    assert view.message(quiet, 0.0, lambda _: "line")
    assert view.message(quiet, 1.0, lambda _: "new line") is None
    assert view.message([quiet[0], quiet[1]._replace(day=1)], 2.0, lambda _: "new line") == {
        "rows": {"b": {"day": "1", "spark": "new line"}}
    }


@given(st.dictionaries(st.sampled_from(["sort", "find", "page"]), st.text()))
def test_an_address_may_hold_anything(asked: dict[str, str]) -> None:
    view = View(COLUMNS, asked)
    assert view.message([row("a", 0.5)], 0.0, lambda _: "")


def test_a_new_trouble_comes_on_top_at_once_unless_the_rows_are_held() -> None:
    state = Column("state", "Now", lambda it: it.state.name, lambda it: it.state, descending=True)
    view, browser = View([*COLUMNS[:1], state]), Browser()

    def look(troubled: str, now: float) -> list[str]:
        rows = [
            row(name, 0.0)._replace(state=State.TROUBLED if name in troubled else State.ORDINARY)
            for name in "abcd"
        ]
        browser.take(view.message(rows, now, lambda name: ""))
        return browser.order

    assert look("", 0.0) == ["a", "b", "c", "d"]
    assert look("c", 1.0) == ["c", "a", "b", "d"]
    assert look("", 2.0) == ["c", "a", "b", "d"]
    view.held = True
    assert look("d", 3.0) == ["c", "a", "b", "d"]
    view.held = False
    assert look("d", 4.0) == ["d", "a", "b", "c"]


def test_once_all_is_read_nothing_is_of_before() -> None:
    view, browser = View(COLUMNS, {"sort": "-score"}), Browser()

    def look(scores: dict[str, float], generation: int, line: str) -> list[str]:
        rows = [row(name, score) for name, score in scores.items()]
        browser.take(view.message(rows, 1.0, lambda _: line, generation))
        assert browser.about["found"] == len(rows)
        return browser.order

    def lines() -> set[str]:
        return {cells["spark"] for cells in browser.cells.values()}

    few = {f"i-{number:02}": 0.1 for number in range(SIZE)}
    names = list(few)
    assert look(few, 0, "a") == names
    # More is read, but not all: the pager counts as the sentence does, and nothing else is drawn.
    part = {**few, "i-07": 0.5, "new": 0.9}
    assert look(part, 0, "b") == names
    assert (browser.about["pages"], lines()) == (2, {"a"})
    # All is read.
    best = ["new", "i-07"]
    assert look(part, 1, "c")[:2] == best
    assert lines() == {"c"}
    # Then all is as before.
    more = {**part, "i-08": 0.7}
    assert look(more, 1, "d")[:2] == best
    assert lines() == {"c"}
    # Rows wait until the reader no longer points at them; lines do not.
    view.held = True
    assert look(more, 2, "e")[:2] == best
    assert lines() == {"e"}
    view.held = False
    assert look(more, 2, "f")[:3] == ["new", "i-08", "i-07"]
    assert lines() == {"e"}


def test_a_rhythm_is_no_faster_for_a_generation_that_is_drawn() -> None:
    rhythm, drawn = Rhythm(30.0), []
    for now, generation in ((0, 0), (5, 0), (10, 1), (15, 1), (39, 1), (40, 1), (41, 2), (70, 2)):
        if rhythm.is_due(now, generation):
            rhythm.drawn(now, generation)
            drawn.append(now)
    assert drawn == [0, 10, 40, 41]
