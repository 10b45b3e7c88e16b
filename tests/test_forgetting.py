"""Instances that stop sending for good, through the whole flow: their states are discarded."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, TestingSource, run_main
from test_counters import change

from dataflow.alerts.episode import EpisodeRules
from dataflow.detectors.base import Verdict, WindowedDetector
from dataflow.flow import build
from dataflow.records import Raw, Reading, encode
from dataflow.settings import Settings
from dataflow.steps import score
from dataflow.steps.score_windows import windower

DAYS = 20
ALIVE = 4


def records(returning: int | None = None) -> list[Raw]:
    """Readings each hour of hosts whose names change each day, and of one that stays.

    On the day `returning`, a host of the first day sends again.
    """
    raw = []
    for hour in range(24 * DAYS):
        day = hour // 24
        names = ["stays", *(f"day-{day}-{number}" for number in range(ALIVE))]
        if returning is not None and day == returning:
            names.append("day-0-0")
        for name in names:
            reading = {
                **{"instance": name, "timestamp": 1.7e9 + 3600 * hour, "index": hour},
                "value": hour * 7 % 30 + (60 if hour % 24 == 23 else 0),
            }
            raw.append(Raw(0, len(raw), encode(reading)))
    return raw


def stored(folder: Path) -> set[str]:
    """The instances that have a detector's state in a recovery store."""
    latest: dict[str, tuple[int, Any]] = {}
    for path in folder.glob("part-*.sqlite3"):
        with sqlite3.connect(path) as store:
            for key, epoch, state in store.execute(
                "SELECT state_key, snap_epoch, ser_change FROM snaps WHERE step_id LIKE '%.score%'"
            ):
                if key not in latest or latest[key][0] < epoch:
                    latest[key] = epoch, state
    return {key for key, (_, state) in latest.items() if state is not None}


def run(folder: Path, raw: list[Any], **given: Any) -> list[tuple[str, Any]]:
    settings = {"interval": 3600, "threshold": 0.3, "detector": "tutorial", **given}
    options = Settings(_env_file=None, **settings)
    found: list[Any] = []
    flow = build(
        options,
        score.detector(options),
        None,
        source=TestingSource(raw, batch_size=10),
        outputs={"write_here": TestingSink(found)},
    )
    if not folder.exists():
        folder.mkdir()
        init_db_dir(folder, 1)
    run_main(flow, recovery_config=RecoveryConfig(str(folder)))
    return found


@pytest.mark.parametrize("given", [{}, {"reorder": True}, {"incidents": True}])
def test_states_of_instances_that_are_gone_leave_the_store(
    tmp_path: Path, given: dict[str, Any]
) -> None:
    instances = change("anomaly_instances")
    run(tmp_path / "all", records(), **given)
    kept = stored(tmp_path / "all")
    days = {int(name.split("-")[1]) for name in kept - {"stays"}}
    assert "stays" in kept
    assert days == set(range(min(days), DAYS))
    assert DAYS - 18 <= min(days) <= DAYS - 14
    assert instances() <= 1 + 3 * ALIVE
    run(tmp_path / "never", records(), forget=0, **given)
    assert len(stored(tmp_path / "never")) == 1 + DAYS * ALIVE


def test_one_that_returns_within_the_time_goes_on_and_later_begins_anew(tmp_path: Path) -> None:
    def of_the_first(returning: int, forget: int) -> list[float]:
        found = run(tmp_path / f"{returning}-{forget}", records(returning), forget=forget)
        return [one.score for name, one in found if name == "day-0-0"]

    never = of_the_first(4, 0)
    assert of_the_first(4, 604_800) == never
    anew = of_the_first(15, 604_800)
    assert anew != of_the_first(15, 0)


class _Pairs(WindowedDetector[int]):
    """Scores two readings at a time, by how many it has seen."""

    def update(
        self, state: int | None, value: float, time: float | None
    ) -> tuple[int, list[Verdict]]:
        seen = (state or 0) + 1
        return seen, [Verdict(seen / 100)] * 2 if seen % 2 == 0 else []

    def finish(self, state: int) -> tuple[int, list[Verdict]]:
        return state + 1, [Verdict(state / 100)]


def test_what_waits_in_a_window_is_scored_before_its_instance_is_forgotten() -> None:
    backwards: list[Reading] = []
    logic = windower(_Pairs(), EpisodeRules(0.5, 300.0, 3600.0), backwards.append)(None)
    readings = [Reading("web-1", None, at, 0.5, 60.0 * at, 0, at) for at in range(3)]
    scored, discarded = logic.on_batch([readings, []])
    assert [[(one.index, it.score) for one, it, _ in batch] for batch in scored] == [
        [(0, 0.02), (1, 0.02)],
        [(2, 0.03)],
        [],
    ]
    assert discarded
    scored, discarded = logic.on_batch([[], readings[::-1]])
    assert not discarded
    assert [one.index for batch in scored for one, *_ in batch] == [2, 1]
    assert [one.index for one in backwards] == [1, 0]


def test_the_others_score_the_same(tmp_path: Path) -> None:
    found = [run(tmp_path / str(forget), records(), forget=forget) for forget in (0, 604_800)]
    assert found[0]
    assert found[0] == found[1]
