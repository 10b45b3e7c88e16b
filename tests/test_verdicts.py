"""What a verdict keeps quiet, and what it must not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from conftest import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st

from dataflow.calendars.clock import clock
from dataflow.records import Anomaly, Source, encode
from dataflow.verdicts.pattern import AROUND, LARGER, SMALLER, Case, Pattern, Same, pattern_of
from dataflow.verdicts.record import Feedback, Following, InForce, Quiet, decode

NIGHT = datetime(2026, 3, 10, 2, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def pattern(**other: Any) -> Pattern:
    seen: dict[str, Any] = {
        "instance": "web-1",
        "metric": "cpu",
        "direction": "high",
        "size": 0.6,
        "value": 0.8,
        "expected": 0.2,
        "since": NIGHT,
        "until": NIGHT + HOUR,
        "anomalies": 12,
    }
    return Pattern(**(seen | other))


def feedback(name: str = "5", **other: Any) -> Feedback:
    return Feedback(**({"id": name, "verdict": "fine", "pattern": pattern()} | other))


def case(moment: datetime, by: float, expected: float = 0.2) -> Case:
    return Case(moment.timestamp(), expected + by, expected)


@given(
    minutes=st.integers(0, 28 * 24 * 60),
    by=st.floats(-1, 1).filter(lambda by: min(abs(by - 0.3), abs(by - 0.81)) > 1e-6),
    high=st.booleans(),
    lasts=st.integers(0, 300),
)
def test_the_same_is_known_by_its_hour_direction_and_size(
    minutes: int, by: float, high: bool, lasts: int
) -> None:
    until = NIGHT + timedelta(minutes=lasts)
    seen = pattern(direction="high" if high else "low", until=until)
    moment = NIGHT + 2 * HOUR + timedelta(minutes=minutes)
    # By the hand of a clock that shows the day: each day the same has its time, and some around it.
    around = timedelta(seconds=AROUND)
    days = [NIGHT.replace(day=1) + day * DAY for day in range(60)]
    begins = [day - around <= moment <= day + (until - NIGHT) + around for day in days]
    side = by if high else -by
    expected = any(begins) and SMALLER * 0.6 <= side <= (1 + LARGER) * 0.6
    assert Same(seen).is_itself(case(moment, by)) == expected


def test_the_hour_is_local_time_on_both_sides_of_a_change_of_the_clock() -> None:
    berlin = clock(ZoneInfo("Europe/Berlin"), None)
    winter = datetime(2026, 3, 20, 2, 0, tzinfo=ZoneInfo("Europe/Berlin"))
    summer = datetime(2026, 4, 3, 1, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    seen = pattern(since=winter.astimezone(UTC), until=winter.astimezone(UTC))
    assert Same(seen, berlin).is_itself(case(summer, 0.6))
    assert not Same(seen).is_itself(case(summer, 0.6))


def test_what_follows_the_same_is_quiet_for_two_hours() -> None:
    quiet = Quiet([feedback()], "cpu")
    last = NIGHT + 7 * DAY
    following = quiet.take("web-1", case(last, 0.6), None)
    assert following == Following("5", last.timestamp())
    assert quiet.take("web-1", case(last + 2 * HOUR, 0.1), following) == following
    assert quiet.take("web-1", case(last + 2 * HOUR, -0.5), following) == following
    for other in (
        case(last + 2 * HOUR, 0.4),  # as large, at another time
        case(last + timedelta(minutes=5), 0.9),  # larger
        case(last + 2.1 * HOUR, 0.1),  # later
        case(last + HOUR, -0.7),  # as far off on the other side
    ):
        assert quiet.take("web-1", other, following) is None
    assert quiet.take("web-1", case(last + HOUR, 0.1), None) is None
    assert Quiet([], "cpu").take("web-1", case(last + HOUR, 0.1), following) is None


def test_only_the_metric_of_the_instance_is_kept_quiet_and_only_so_long() -> None:
    until = NIGHT + 7 * DAY
    other = pattern(metric="load1", instance="web-2")
    quiet = Quiet([feedback(until=until), feedback("6", pattern=other)], "cpu")
    assert quiet.take("web-1", case(until - DAY, 0.6), None)
    assert not quiet.take("web-1", case(until, 0.6), None)
    assert quiet.take("web-2\0load1", case(until, 0.6), None)
    assert "web-2" not in quiet
    assert not quiet.take("web-2", case(until, 0.6), None)


VERDICTS = st.sampled_from(["fine", "fine", "real", "undo", "deleted", "wrong"])


@given(st.lists(st.tuples(st.sampled_from("abc"), VERDICTS), max_size=20), st.randoms())
def test_the_last_record_of_an_id_counts_whatever_compaction_leaves(
    said: list[tuple[str, str]], random: Any
) -> None:
    records: list[tuple[bytes, bytes | None]] = []
    for number, (name, verdict) in enumerate(said):
        value: bytes | None = None
        if verdict == "wrong":
            value = b'{"id": 5}'
        elif verdict != "deleted":
            value = encode(feedback(name, verdict=verdict, by=str(number)))
        records.append((name.encode(), value))
    kept = InForce()
    assert [kept.take(*one) for one in records] == [verdict != "wrong" for _, verdict in said]
    last = {
        name: (number, verdict) for number, (name, verdict) in enumerate(said) if verdict != "wrong"
    }
    assert {one.id: one.by for one in kept.all()} == {
        name: str(number) for name, (number, verdict) in last.items() if verdict == "fine"
    }
    # A compacted topic: of each key some records are gone, though never the last; a record that
    # is none has a key of its own here.
    left = InForce()
    for number, (key, value) in enumerate(records):
        newest = last.get(key.decode(), (-1,))[0] == number
        if newest or random.random() < 0.5:
            left.take(key, value)
    assert left.document() == kept.document()
    assert Quiet.read(kept.document(), "cpu") is not None


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"", "Input data was truncated"),
        (b"[]", "Expected `object`, got `array`"),
        (b'{"id": "5", "verdict": "good"}', "Invalid enum value 'good' - at `$.verdict`"),
        (b'{"id": "", "verdict": "undo"}', "the id is empty"),
        (b'{"id": "5", "verdict": "fine"}', "needs the pattern"),
        (b'{"id": "5", "verdict": "undo", "until": "2026-03-01T02:00:00"}', "a time needs a zone"),
        (encode(feedback(pattern=pattern(size=0.0))), "must be above 0"),
        (b'{"a": ' + b"[" * 50_000, "nested too deeply"),
        (b" " * 100_001, "longer than 100,000 bytes"),
    ],
)
def test_a_record_that_is_no_verdict_is_refused_with_a_sentence(record: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as wrong:
        decode(record)
    assert reason in str(wrong.value)
    kept = InForce()
    assert not kept.take(b"5", record)
    assert (kept.refused, reason in kept.reason, len(kept)) == (1, True, 0)


def anomaly(moment: datetime | None, value: float, **other: Any) -> Anomaly:
    fields: dict[str, Any] = {
        "instance": "web-1",
        "timestamp": None if moment is None else moment.isoformat(),
        "index": None,
        "value": value,
        "score": 0.8,
        "threshold": 0.5,
        "expected": 0.2,
        "lower": 0.1,
        "upper": 0.3,
        "detector": "calibrated",
        "id": "5",
        "source": Source("cpu", 0, 0),
    }
    return Anomaly(**(fields | other))


def test_the_pattern_of_an_episode_is_its_worst_reading_and_how_long_it_was_as_bad() -> None:
    episode = [
        anomaly(NIGHT, 0.25),
        anomaly(NIGHT + HOUR, 0.6),
        anomaly(NIGHT + 2 * HOUR, 0.9),
        anomaly(NIGHT + 3 * HOUR, 0.1),
    ]
    found = pattern_of(episode)
    assert found == pattern(
        size=0.7, value=0.9, since=NIGHT + HOUR, until=NIGHT + 2 * HOUR, anomalies=4
    )
    assert decode(encode(feedback(pattern=found))).pattern == found
    assert pattern_of([anomaly(NIGHT, 0.0)]).direction == "low"


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (anomaly(NIGHT, 0.9, metric="*"), "it is of all metrics of an instance together"),
        (anomaly(NIGHT, 0.9, expected=None), "it has no expected value"),
        (anomaly(None, 0.9), "it has no time"),
        (anomaly(NIGHT, 0.2), "its value is the expected one"),
    ],
)
def test_what_has_no_pattern_says_why(one: Anomaly, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        pattern_of([one])


def test_on_made_up_fleets_four_fifths_are_quiet_and_two_in_a_hundred_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On instances that the constants were not chosen on; `docs/verdicts.md` has more of them."""
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    import verdicts  # type: ignore[import-not-found]

    share = verdicts.total(range(1000, 1012))
    assert share.again >= 15
    assert share.others >= 90
    assert share.quiet >= 0.8 * share.again
    assert share.lost <= 0.02 * share.others


def test_a_document_is_equal_for_the_same_verdicts_in_any_order() -> None:
    documents = set()
    for names in ("abc", "cab"):
        kept = InForce()
        for name in names:
            kept.take(name.encode(), encode(feedback(name)))
        documents.add(kept.document())
    assert len(documents) == 1
    assert msgspec.json.decode(documents.pop())[2]["id"] == "c"
