"""Ten shapes of trouble: what a person on call wants to be told of each, and nothing more."""

from __future__ import annotations

import random

import pytest
from shapes import BEFORE, HALF, SHAPES, run, series

ENDS = {
    # Hours in which it opens; in which it is resolved; and how it ended.
    "pinned": ((0, 0.25), (12, 14), "recovered"),
    "stuck": ((0, 4), (11, 14), "recovered"),
    "dropped to 0": ((0, 0.25), (12, 15), "recovered"),
    "slow leak": ((0, 12), (24, 54), None),
    "noisy": ((0, 0.5), (12, 15), "recovered"),
    "lost rhythm": ((0, 4), (10, 54), "recovered"),
    "level shift that stays": ((0, 0.25), (6, 30), "adapted"),
    "flapping": ((0, 0.25), (12, 15), "recovered"),
    "two spikes an hour apart": ((0, 0), (2, 4), "recovered"),
    "a spike within trouble": ((0, 0.25), (12, 15), "recovered"),
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_trouble_is_one_incident_that_lasts_as_long(shape: str, seed: int) -> None:
    found = run(series(SHAPES[shape], seed=seed))
    opens, ends, ended = ENDS[shape]
    first, *later = found.resolved
    assert opens[0] <= first[0] <= opens[1]
    assert ends[0] <= first[1] <= ends[1]
    assert first[2] == (ended or first[2])
    # What comes when it is over is the end of the trouble, or the habit that it has left behind.
    assert all(began >= 24 for began, _, _ in later)
    assert len(later) <= 2
    assert found.incidents[-1].state == "resolved"


@pytest.mark.parametrize("seed", range(4))
def test_a_pinned_host_is_anomalous_as_long_as_it_is_pinned(seed: int) -> None:
    found = run(series(SHAPES["pinned"], after=2 * HALF, seed=seed))
    ((opened, resolved, ended),) = found.resolved
    assert (opened <= 0.25, 12 <= resolved <= 14, ended) == (True, True, "recovered")
    judged = [one[2] for one in found.scored]
    assert sum(one is not None and one.anomaly for one in judged[:HALF]) >= 130
    # It is one episode, whose id is the incident's; a person hears of it twice.
    episodes = {one.episode for one in judged if one is not None and one.anomaly}
    assert episodes == {one.id for one in found.incidents}
    assert len(episodes) == 1
    assert sum(one is not None and one.alert for one in judged) <= 3
    last = found.incidents[-1]
    assert last.anomalies == sum(one is not None and one.anomaly for one in judged)
    assert last.duration is not None
    assert 12 * 3600 <= last.duration <= 13.5 * 3600


def test_a_level_shift_that_stays_is_no_further_incident() -> None:
    found = run(series(SHAPES["level shift that stays"], after=20 * HALF))
    assert [ended for _, _, ended in found.resolved] == ["adapted"]


@pytest.mark.parametrize("shape", ["pinned", "level shift that stays", "noisy"])
def test_states_saved_and_loaded_anywhere_change_nothing(shape: str) -> None:
    values = series(SHAPES[shape])
    breaks = {BEFORE + random.Random(shape).randrange(800) for _ in range(200)}
    whole, broken = run(values), run(values, breaks)
    assert broken.incidents == whole.incidents
    assert [one[1:] for one in broken.scored] == [one[1:] for one in whole.scored]
    # Also in an episode, which keeps what the detector knew before it.
    assert 2000 < broken.stored <= 2300
