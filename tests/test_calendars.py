"""Local time: both changes of the clock, holidays, and maintenance by the clock on the wall."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.alerts.news import held
from dataflow.calendars import holidays, zones
from dataflow.calendars.clock import Clock, clock
from dataflow.detectors.calibrated.detector import Calibrated
from dataflow.errors import UserError
from dataflow.incidents import maintenance
from dataflow.settings import load

DAY = 86_400.0
CHANGES = {
    "Europe/Berlin": ("2024-03-31", "2024-10-27"),
    "America/New_York": ("2024-03-10", "2024-11-03"),
    "Australia/Sydney": ("2024-04-07", "2024-10-06"),
}


def office(local: datetime, rng: random.Random) -> float:
    """CPU that follows the clock on the wall: office hours of working days, and a job at 3:00."""
    busy = local.weekday() < 5 and 8 <= local.hour < 18
    job = 20 if local.hour == 3 else 0
    return (45 if busy else 12) + job + rng.gauss(0, 1.5)


def alerts(
    value: Callable[[float], float], begins: float, days: int, by: Clock | None
) -> list[float]:
    """The times of the alerts of an instance, each 15 minutes a reading."""
    detector, state, scores = Calibrated(interval=900.0), None, []
    times = [begins + 900.0 * at for at in range(days * 96)]
    for time in times:
        state, verdict = detector.update(state, value(time), time if by is None else by(time))
        scores.append(0.0 if verdict.near else verdict.score)
    kept = held(scores, detector.threshold, 900.0)
    return [time for time, score in zip(times, kept, strict=True) if score > detector.threshold]


def alerts_of_the_week(zone: str, change: int, seeds: range, *, weeks: int, by_zone: bool) -> int:
    """The alerts of instances that live by their zone, in a week, from its third day if by UTC.

    The week begins with the change of the clock, or `weeks` before it; six weeks come before.
    """
    local, changes = ZoneInfo(zone), date.fromisoformat(CHANGES[zone][change])
    at = datetime(changes.year, changes.month, changes.day, tzinfo=local).timestamp()
    week = at - weeks * 7 * DAY
    by = clock(local, None) if by_zone else None
    found = 0
    for seed in seeds:
        rng = random.Random(seed)

        def value(time: float, rng: random.Random = rng) -> float:
            return office(datetime.fromtimestamp(time, local), rng) / 100

        times = alerts(value, week - 42 * DAY, 49, by)
        found += sum(week <= time < week + (7 if by_zone else 2) * DAY for time in times)
    return found


EACH = [(zone, change) for zone in CHANGES for change in (0, 1)]


def test_a_change_of_the_clock_is_no_trouble() -> None:
    """Of 102 instances in three zones, 17 at each change: no more alerts than in a usual week."""
    from_it = before = 0
    for number, (zone, change) in enumerate(EACH):
        first = 17 * number
        seeds, others = range(first, first + 17), range(first + 1000, first + 1017)
        from_it += alerts_of_the_week(zone, change, seeds, weeks=0, by_zone=True)
        before += alerts_of_the_week(zone, change, others, weeks=1, by_zone=True)
    assert from_it <= before < 10


def test_by_utc_a_change_of_the_clock_looks_wrong() -> None:
    for zone, change in EACH[:2]:
        assert alerts_of_the_week(zone, change, range(8), weeks=0, by_zone=False) >= 8


def test_a_holiday_is_a_sunday() -> None:
    closed = {date(2024, 5, 1), date(2024, 5, 9)}

    def found(by: Clock | None) -> int:
        count = 0
        for seed in range(5):
            rng = random.Random(seed)

            def value(time: float, rng: random.Random = rng) -> float:
                moment = datetime.fromtimestamp(time, UTC)
                if moment.date() in closed:
                    moment += timedelta(days=(6 - moment.weekday()) % 7)
                return office(moment, rng) / 100

            begins = datetime(2024, 3, 25, tzinfo=UTC).timestamp()
            count += sum(
                datetime.fromtimestamp(alert, UTC).date() in closed
                for alert in alerts(value, begins, 49, by)
            )
        return count

    assert found(clock(None, closed)) == 0
    assert found(None) >= 5


@given(st.sampled_from(sorted(CHANGES)), st.integers(1_600_000_000, 1_800_000_000))
def test_an_offset_is_that_of_the_clock_on_the_wall(zone: str, time: int) -> None:
    local = ZoneInfo(zone)
    wall = datetime.fromtimestamp(time, local)
    shown = wall.replace(tzinfo=UTC).timestamp()
    assert time + zones.offset(local, time) == shown
    assert zones.to_utc(local, shown) == time - (3600 if wall.fold else 0)


@given(
    st.sampled_from(sorted(CHANGES)),
    st.integers(1_704_067_200, 1_735_689_600),
    st.integers(0, 23),
    st.integers(1, 5),
)
def test_maintenance_is_by_the_clock_on_the_wall(
    zone: str, time: int, hour: int, hours: int
) -> None:
    """It ends when the clock first shows a time outside, also if it was set within the window."""
    text = f"*: daily {hour:02}:00-{(hour + hours) % 24:02}:00"
    (window,) = maintenance.parse(text, zones.parse(zone)).windows("a")
    local = ZoneInfo(zone)

    def inside(at: float) -> bool:
        return (datetime.fromtimestamp(at, local).hour - hour) % 24 < hours

    assert (window.end(time) is not None) == inside(time)
    after = maintenance.after((window,), time)
    expected = float(time)
    while inside(expected):
        expected = (expected // 900 + 1) * 900
    assert after == expected


def test_instances_have_the_zone_of_the_first_pattern_that_matches() -> None:
    parsed = zones.parse("eu-*: Europe/Berlin; *-west: America/New_York\n*: UTC # all others")
    assert [getattr(parsed.of(name), "key", None) for name in ("eu-west", "us-west", "x")] == [
        "Europe/Berlin",
        "America/New_York",
        None,
    ]


@pytest.mark.parametrize("text", ["Mars/Olympus", "eu-*: Europe/Berlin; *: ../etc/passwd", "a: "])
def test_a_zone_that_does_not_exist_is_one_line(text: str) -> None:
    with pytest.raises(UserError, match="ANOMALY_TIME_ZONE names the time zone") as error:
        load(_env_file=None, time_zone=text)
    assert len(str(error.value).splitlines()) == 1


def test_holidays_of_countries_and_calendars(tmp_path: Path) -> None:
    pytest.importorskip("holidays")
    pytest.importorskip("icalendar")
    path = tmp_path / "closed.ics"
    path.write_text(
        "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:test\r\nBEGIN:VEVENT\r\nUID:1\r\n"
        "DTSTAMP:20240101T000000Z\r\nDTSTART;VALUE=DATE:20240805\r\nDTEND;VALUE=DATE:20240807\r\n"
        "SUMMARY:closed\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
    )
    parsed = holidays.parse(f"eu-*: DE-BY; us-*: US; plant-*: {path}")
    bavaria, states, plant = (parsed.of(name) for name in ("eu-1", "us-1", "plant-1"))
    assert bavaria is not None
    assert states is not None
    assert plant is not None
    assert date(2024, 10, 3) in bavaria
    assert date(2024, 5, 30) in bavaria  # not in all of Germany
    assert date(2024, 7, 4) in states
    assert date(2024, 7, 4) not in bavaria
    assert [date(2024, 8, day) in plant for day in (4, 5, 6, 7)] == [False, True, True, False]
    assert parsed.of("other") is None
    for wrong in ("XX", "DE-XX", str(tmp_path / "none.ics")):
        with pytest.raises(UserError, match="ANOMALY_HOLIDAYS names the"):
            load(_env_file=None, holidays=wrong)


def test_hours_that_are_not_the_wall_s_cannot_be_asked_for_without_times() -> None:
    with pytest.raises(UserError, match="ANOMALY_TIME_ZONE needs readings with a time"):
        load(_env_file=None, time_zone="Europe/Berlin", time_field="none")
    assert math.isfinite(clock(ZoneInfo("Europe/Berlin"), None)(0.0))
