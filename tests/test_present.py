"""Which time the page shows, and what it says of it."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.dashboard.feed import FileFeed
from dataflow.dashboard.present import Age, condition, present
from dataflow.dashboard.status import Condition, Tone
from dataflow.records import Reading
from dataflow.settings import Settings

NOW = 1_800_000_000.0
READ = Condition(Tone.GOOD, "Live")


@given(
    old=st.none() | st.floats(-1e6, 1e8),
    since=st.none() | st.floats(0, 1e8),
    patience=st.floats(1, 1e5),
    ends=st.booleans(),
)
def test_only_what_is_of_now_is_live(
    old: float | None, since: float | None, patience: float, ends: bool
) -> None:
    clock = None if old is None else NOW - old
    shown = present(clock, NOW, None if since is None else NOW - since, patience, ends=ends)
    said = condition(READ, shown, clock, NOW)
    arrives = since is not None and since <= patience
    if said.tone is Tone.GOOD:
        assert not ends
        assert arrives if old is None else old <= patience
    if old is not None and old > patience + 1 and not ends:
        assert "ago" in said.happening
        assert (said.tone is Tone.TROUBLE) is not arrives
    # Nobody is silent only because the readings are old, but all are if nothing arrives.
    assert (shown.time == NOW) is (clock is not None and shown.age in (Age.LIVE, Age.DEAD)) or (
        clock is not None and clock >= NOW
    )


@pytest.mark.parametrize(
    ("old", "since", "title"),
    [
        (60.0, 60.0, "Live"),
        (53_000_000.0, 5.0, "Old readings"),
        (53_000_000.0, 53_000_000.0, "No data for 20 months"),
        (1200.0, 1200.0, "No data for 20 min"),
        # A replay that ended.
        (53_000_000.0, 1200.0, "No data for 20 min"),
        # A clock that is ahead.
        (-7200.0, 5.0, "Live"),
    ],
)
def test_what_it_is_called(old: float, since: float, title: str) -> None:
    shown = present(NOW - old, NOW, NOW - since, 900.0, ends=False)
    assert condition(READ, shown, NOW - old, NOW).title == title


def test_nobody_is_silent_only_because_a_partition_is_read_later(tmp_path: Path) -> None:
    file = tmp_path / "none.csv"
    file.write_text("index,timestamp,value,instance\n")
    feed = FileFeed(Settings(_env_file=None, input=str(file)), 10)
    feed.ends = False
    now = time.time()
    for instance, at in (("far", now - 10), ("far-2", now - 10), ("behind", now - 7200)):
        feed.fleet.add(Reading(instance, at, 0, 0.5, at, 0, 0))

    def silent() -> list[str]:
        rows = feed.fleet.overview(feed.shown().judged).rows
        return [row.instance for row in rows if row.silent is not None]

    feed.condition = Condition(Tone.IDLE, "Catching up, 50%")
    assert feed.shown().judged == -math.inf
    assert silent() == []
    feed.condition = READ
    assert silent() == ["behind"]
    # While the broker is away, what was known stays.
    feed.condition = Condition(Tone.TROUBLE, "Broker gone")
    assert silent() == ["behind"]
