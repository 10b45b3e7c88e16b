"""New members of groups: what they begin with, how well it does, and that a replay is equal."""

from __future__ import annotations

import json
import math
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import REPOSITORY, Flow, read_json_lines
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.alerts.episode import EpisodeRules
from dataflow.alerts.news import held
from dataflow.detectors.calibrated.detector import Calibrated
from dataflow.detectors.first_day import Newcomer
from dataflow.errors import UserError
from dataflow.groups import Groups
from dataflow.records import Reading
from dataflow.recovery import habits as recorded
from dataflow.recovery.habits import MEMBERS, Habits, Place
from dataflow.settings import Settings
from dataflow.steps import first_day
from dataflow.steps.score import NEW, Scorer, detector, scorer

DAY = 288
START = 1_396_310_400.0
WARM_UP = 200

SHAPES: dict[str, tuple[float, Callable[[float], float]]] = {
    "daily": (2.5, lambda at: 40 + 20 * math.sin(math.tau * at)),
    "office": (2.0, lambda at: 20 + 30 * (0.35 < at < 0.75)),
    "hourly job": (0.7, lambda at: 8 + 4 * (round(at * DAY) % 12 == 0)),
    "flat": (1.0, lambda at: 12.0),
}
"""Of each group: the noise of its members, and their level by the time of the day."""


def member(shape: str, name: str, first: int, count: int, unlike: float = 1.0) -> list[float]:
    """Return values of a member, from 0 to 1: alike in shape and level, with noise of its own."""
    rng = random.Random(f"{shape} {name}")
    size, level = SHAPES[shape]
    factor = math.exp(rng.gauss(0, 0.07)) * unlike
    noise, values = 0.0, []
    for at in range(first, first + count):
        noise = 0.6 * noise + 0.8 * rng.gauss(0, 1)
        values.append(max(level(at / DAY % 1) * factor + size * noise, 0.1) / 100)
    return values


def disturbed(values: list[float], at: int, form: int, size: float) -> list[float]:
    """Return the values with a spike, a plateau, an outage, or noise from a place on."""
    rng, changed = random.Random(at), list(values)
    length = (3, 48, 24, 48)[form]
    for place in range(at, min(at + length, len(values))):
        changed[place] = (
            values[place] + 0.14 * size,
            values[place] + 0.07 * size,
            0.001,
            max(values[place] + 0.05 * size * rng.gauss(0, 1), 0.001),
        )[form]
    return changed


def learned(values: list[float], first: int = 0) -> Any:
    state, calibrated = None, Calibrated()
    for at, value in enumerate(values, first):
        state, _ = calibrated.update(state, value, START + 300 * at)
    return state


def scores(values: list[float], first: int, other: Any) -> list[float]:
    """Return the scores of an instance that begins with a copy of another's state, or with none."""
    calibrated = Calibrated()
    newcomer = None if other is None else Newcomer(calibrated, other.copy())
    own, found = None, []
    for at, value in enumerate(values, first):
        update = calibrated.update if newcomer is None else newcomer.update
        own, verdict = update(own, value, START + 300 * at)
        found.append(0.0 if verdict.near else verdict.score)
    return found


def alerts(found: list[float]) -> list[int]:
    return [at for at, score in enumerate(held(found, 0.5)) if score > 0.5]


def test_a_new_member_is_judged_from_its_first_hours_on() -> None:
    first_found, later_found, false, of_others = [], [], 0, 0
    for shape, (size, _) in SHAPES.items():
        other = learned(member(shape, "other", 0, 7 * DAY))
        for number in range(8):
            rng = random.Random(f"{shape} {number}")
            first = 7 * DAY + rng.randrange(7 * DAY)
            values = member(shape, str(number), first, 8 * DAY)
            at = rng.randrange(24, 140)
            for start, found in ((at, first_found), (6 * DAY + at, later_found)):
                changed = disturbed(values, start, number % 4, size)[: start + 60]
                over = alerts(scores(changed, first, other if start == at else None))
                found.append(any(start <= one <= start + 60 for one in over))
            calm = values[:WARM_UP]
            false += len(alerts(scores(calm, first, other)))
            assert not any(scores(calm, first, None))
            # The last is of another shape, or twice as high.
            strange = next(name for name in SHAPES if name != shape)
            calm = member(strange if number % 2 else shape, f"x{number}", first, WARM_UP, 2.0)
            of_others += len(alerts(scores(calm, first, other)))
    assert fmean(first_found) >= fmean(later_found) / 2 > 0.35
    # 22 days: of instances that are known, one in 24 days.
    assert false <= 1
    assert of_others <= 1


@given(
    st.lists(st.floats(0.3, 0.5) | st.floats(0, 1), min_size=30, max_size=260),
    st.sets(st.integers(0, 259), max_size=8),
)
@settings(deadline=None, max_examples=25)
def test_a_newcomer_goes_on_from_its_bytes_and_learns_as_ever(
    values: list[float], breaks: set[int]
) -> None:
    calibrated = Calibrated()
    other = learned(member("daily", "other", 0, 600))
    newcomer, broken = (Newcomer(calibrated, other.copy()) for _ in range(2))
    own = same = alone = None
    for at, value in enumerate(values):
        time = START + 300 * (600 + at)
        if at in breaks and not broken.over:
            broken = Newcomer.load(calibrated, broken.dump())
        own, verdict = newcomer.update(own, value, time)
        same, verdict_again = broken.update(same, value, time)
        alone, by_itself = calibrated.update(alone, value, time)
        assert verdict == verdict_again
        assert newcomer.over == broken.over
        if newcomer.over:
            assert verdict == by_itself
    assert calibrated.dump(own) == calibrated.dump(alone)
    assert newcomer.over or len(values) < WARM_UP


def readings(name: str, values: list[float], first: int) -> list[Reading]:
    return [
        Reading(name, START + 300 * at, at, value, START + 300 * at, 0, at)
        for at, value in enumerate(values, first)
    ]


def step(habits: Habits | None) -> Scorer:
    calibrated = Calibrated()
    begin = None
    if habits is not None:
        begin = first_day.FirstDay(calibrated, Groups(pattern="^(web|db)-"), 300.0, habits)
    return scorer(calibrated, EpisodeRules(0.5, 300.0, 3600.0), lambda _: None, None, None, begin)


def run(step: Scorer, batch: list[Reading], state: Any = None, every: int = 0) -> tuple[Any, Any]:
    """Take readings one by one; save and load the state after every so many."""
    found = []
    for number, one in enumerate(batch, 1):
        state, scored = step.score(state, [one])
        found += scored
        if every and number % every == 0:
            state = step.load(step.dump(state))
    return state, found


def test_members_lend_their_states_and_new_ones_begin_with_one() -> None:
    habits = Habits(None)
    on, off = step(habits), step(None)
    for name, members in (("web-1", 600), ("web-2", 575), ("other", 600)):
        run(on, readings(name, member("daily", name, 0, members), 0))
    assert (habits.lends("web", None), habits.lends("db", None)) == (1, 0)

    values = disturbed(member("daily", "web-3", 600, 400), 100, 1, 6.0)
    batch = readings("web-3", values, 600)
    state, scored = run(on, batch)
    again, scored_again = run(on, batch, every=7)
    assert scored_again == scored
    assert on.dump(again) == on.dump(state)
    found = [finding for _, _, finding in scored if finding is not None and finding.anomaly]
    assert found
    assert found[0].alert
    assert found[0].explanation is not None
    assert found[0].explanation.reasons
    (first,) = [one for one, _, finding in scored if finding is not None and finding.alert]
    assert 600 + 100 <= (first.index or 0) < 600 + 160

    _, by_itself = run(off, batch)
    assert not any(verdict.score for _, verdict, _ in by_itself[:WARM_UP])
    assert [one[1] for one in scored[WARM_UP:]] == [one[1] for one in by_itself[WARM_UP:]]
    # One that is in no group, and one of a group that nobody has lent to, begin with nothing.
    for name in ("other", "db-1"):
        batch = readings(name, values, 600)
        assert run(on, batch)[1] == run(off, batch)[1]


def test_a_store_with_and_without_it_goes_on() -> None:
    """The setting may change: states that were saved with the other one are read."""
    habits = Habits(None)
    on, off = step(habits), step(None)
    state, _ = run(off, readings("web-1", member("daily", "web-1", 0, 900), 0))
    state = on.load(off.dump(state))
    run(on, readings("web-1", [0.4], 900), state)
    assert habits.lends("web", None) == 1  # at once, not after another week

    state, _ = run(on, readings("web-2", member("daily", "web-2", 901, 50), 901))
    data = on.dump(state)
    assert data.startswith(NEW)
    _, scored = run(off, readings("web-2", [0.9] * 10, 951), off.load(data))
    assert {verdict.score for _, verdict, _ in scored} == {0.0}


def store(folder: Path, process: int = 0) -> Any:
    return SimpleNamespace(folder=folder, process=process)


def test_the_median_of_those_lent_last_is_taken_and_repeated(tmp_path: Path) -> None:
    habits, other = Habits(store(tmp_path)), Habits(store(tmp_path, 1))
    place = Place(0, 10, 0)
    assert habits.begin("web-0", place, "web", None) is None
    for number in range(3):
        habits.lend("web", None, f"web-{number}", number, b"%d" % number)
    assert habits.begin("web-7", place, "web", None) == b"1"
    assert habits.begin("web-7", place, "db", None) == b"1"
    assert habits.begin("db-7", place, "db", None) is None
    assert habits.begin("web-8 mem", place, "web", "mem") is None
    for number in range(3, 3 + MEMBERS):
        habits.lend("web", None, f"web-{number}", number, b"%d" % number)
    assert habits.lends("web", None) == MEMBERS
    assert habits.begin("web-8", place, "web", None) == b"7"

    # After a restart, and with other processes: what was begun with, or without, comes again.
    for again in (Habits(store(tmp_path)), Habits(store(tmp_path, 2))):
        assert again.begin("web-0", place, "web", None) is None
        assert again.begin("web-7", place, "web", None) == b"1"
        assert again.begin("web-8", place, "web", None) == b"7"
        # Forgotten, and there again: a new member.
        assert again.begin("web-7", Place(0, 11, 0), "web", None) == b"7"
    # Another process that runs sees what is lent, once it has looked for files.
    assert other.begin("web-9", place, "web", None) == b"7"


def test_what_no_replay_needs_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    habits = Habits(store(tmp_path))
    habits.lend("web", None, "web-1", 0.5, b"state")
    assert habits.begin("web-2", Place(0, 10, 0), "web", None) == b"state"
    now = recorded.time.time()
    counts = []
    for days in (6, 8, 31):
        monkeypatch.setattr(recorded.time, "time", lambda days=days: now + 86_400 * days)
        Habits(store(tmp_path))
        with sqlite3.connect(tmp_path / "habits-0.log") as database:
            counts.append(
                [
                    database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                    for table in ("begun", "states", "lent")
                ]
            )
        database.close()
    assert counts == [[1, 1, 1], [0, 0, 1], [0, 0, 0]]


def test_what_cannot_work_is_said(tmp_path: Path) -> None:
    (tmp_path / "habits-3.log").write_bytes(b"no database" * 100)
    with pytest.raises(UserError, match=r"is damaged \(habits: .*new store\.$"):
        Habits(store(tmp_path))
    with pytest.raises(ValueError, match="ANOMALY_FIRST_DAY needs groups: set ANOMALY_GROUP_F"):
        Settings(_env_file=None, first_day=True)
    with pytest.raises(ValueError, match="ANOMALY_FIRST_DAY needs readings with a time"):
        Settings(_env_file=None, first_day=True, group_pattern="(a)", time_field="none")
    for name in ("zscore", "isolation-forest"):
        options = Settings(_env_file=None, first_day=True, group_pattern="(a)", detector=name)
        with pytest.raises(UserError, match=f"does not work with the detector {name}, whose "):
            first_day.of(options, detector(options), None)


DIES = """
import os, pathlib, signal
from dataflow.detectors.base import Lender
from dataflow.detectors.calibrated.detector import Calibrated

class Dies(Lender):
    name = "calibrated"

    def __init__(self):
        inner = self.inner = Calibrated()
        for each in ("before", "explain", "dump", "load", "score", "habit"):
            setattr(self, each, getattr(inner, each))

    warm_up = property(lambda self: self.inner.warm_up)

    def habit(self, state): ...

    def update(self, state, value, time):
        if value == 0.12345 and pathlib.Path("dies").exists():
            pathlib.Path("dies").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.inner.update(state, value, time)
"""


def feed() -> list[str]:
    """Readings of a group of seven, of which four come later and are busier, and a new member."""
    hosts = {f"web-{number}": (0 if number < 4 else 60, 24 + number / 4) for number in range(1, 8)}
    hosts["web-9"] = (620, 25)
    lines = []
    for at in range(900):
        for host, (first, level) in hosts.items():
            if at < first:
                continue
            value = (
                level + 5 * math.sin(math.tau * at / DAY) + random.Random(f"{host}{at}").random()
            )
            trouble = host == "web-9" and 730 <= at < 750
            # What would be an anomaly, if it had begun with another's state.
            trouble |= host == "web-6" and 160 <= at < 180
            trouble |= host == "web-3" and at == 860
            value = 12.345 if (host, at) == ("web-1", 800) else 90 if trouble else value
            reading = {"instance": host, "timestamp": START + 300 * at, "index": at}
            lines.append(json.dumps(reading | {"value": round(value, 3)}))
    return lines


def test_a_replay_after_kill_9_begins_with_the_same_states(run_flow: Flow, store: Path) -> None:
    """The members that came later have lent theirs by then, so that the median is another one."""
    (run_flow.folder / "own_parts.py").write_text(DIES)
    (run_flow.folder / "in.jsonl").write_text("\n".join(feed()))
    settings = {
        **{"input": "in.jsonl", "detector": "own_parts:Dies", "incidents": "true"},
        **{"group_pattern": "^(web)-", "first_day": "true", "silence": 0},
    }
    environment = {"bytewax": {"PYTHONPATH": f"{run_flow.folder}:{REPOSITORY}"}}
    done = run_flow(output="whole.jsonl", **environment, **settings)
    assert done.returncode == 0, done.stderr
    whole = read_json_lines(run_flow.folder / "whole.jsonl")
    first = [it["index"] for it in whole if it["instance"] == "web-9" and it["alert"]]
    assert first[0] in range(730, 736)
    assert all(it["index"] > WARM_UP for it in whole if it["instance"] != "web-9")

    (run_flow.folder / "dies").touch()
    arguments = ("-r", str(store), "-s", "3600", "-b", "0")
    done = run_flow(*arguments, output="found.jsonl", **environment, **settings)
    assert done.returncode == -9, done.stderr
    before = len(read_json_lines(run_flow.folder / "found.jsonl"))
    assert 0 < before < len(whole)
    done = run_flow(*arguments, output="found.jsonl", **environment, **settings)
    assert done.returncode == 0, done.stderr
    for name in ("", ".incidents"):
        lines = [
            sorted(map(json.dumps, read_json_lines(run_flow.folder / f"{run}{name}.jsonl")))
            for run in ("found", "whole")
        ]
        assert lines[0] == lines[1]
