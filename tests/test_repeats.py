"""Which readings without an index are scored, and what counters say."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.dashboard.intake import Intake
from dataflow.formats.detect import choose
from dataflow.records import Raw, Reading
from dataflow.settings import Settings
from dataflow.steps import decode, score
from dataflow.steps.repeats import KEPT, Times, in_order

START = 1_741_449_600.0


def reading(time: float, offset: int = 0, **more: Any) -> Reading:
    return Reading("a", time, None, 1.0, time, 0, offset, **more)


def restarted(times: Times) -> Times:
    """The same after a restart of the flow."""
    again, state = Times.load(times.dump(b"state"))
    assert state == b"state"
    assert again is not None
    return again


@given(st.lists(st.integers(0, 60), max_size=80), st.integers(0, 80))
def test_a_time_is_news_once(minutes: list[int], cut: int) -> None:
    times, seen = Times(), set()
    for number, minute in enumerate(minutes):
        if number == cut:
            times = restarted(times)
        newest = sorted(seen)[-KEPT:]
        known = minute not in seen and not (len(newest) == KEPT and minute < newest[0])
        assert (times.take(reading(float(minute))) is not None) == known
        if known:
            seen.add(minute)


def kinds(time: float) -> list[dict[str, Any]]:
    of_one_cpu = {"counter": (time, 0.0), "part": "0"}
    return [{}, {}, {}, {"index": 5}, {"counter": (time, 2 * time + 1)}, of_one_cpu]


@given(
    st.lists(st.tuples(st.integers(0, 90), st.integers(0, 5)), max_size=99),
    st.integers(0, 99),
    st.integers(1, 9),
)
def test_readings_of_a_batch_are_taken_as_each_by_itself(
    rows: list[tuple[int, int]], growing: int, together: int
) -> None:
    rows[:growing] = sorted(rows[:growing])

    def made() -> list[Reading]:
        return [
            msgspec.structs.replace(reading(float(time), at), **kinds(float(time))[kind])
            for at, (time, kind) in enumerate(rows)
        ]

    alone, batched = Times(), Times()
    expected = [one if one.index is not None else alone.take(one) for one in made()]
    readings, found = made(), []
    for begin in range(0, len(readings), together):
        found += batched.news(readings[begin : begin + together])
        if begin % 2:
            batched = restarted(batched)
    assert found == [one for one in expected if one is not None]
    assert batched.save() == alone.save()


@pytest.mark.parametrize("first", [None, 7])
def test_a_repeat_among_readings_with_an_index_is_not_scored(first: int | None) -> None:
    options = Settings(_env_file=None, detector="tutorial")
    detector: Any = score.detector(options)
    rules = score.episode_rules(options, detector)
    step = score.scorer(detector, rules, lambda reading: None).score
    readings = [reading(60.0, 0), reading(60.0, 1), reading(60.0, 2), reading(120.0, 3)]
    readings[0].index, readings[1].index = first, 8
    _, scored = step(None, readings)
    taken = [one.offset for one, _, _ in scored]
    assert taken == ([0, 1, 3] if first is None else [0, 1, 2, 3])


def test_a_state_of_before_has_no_times() -> None:
    assert Times.load(b"state") == (None, b"state")
    with pytest.raises(ValueError, match="times of an instance"):
        Times.load(Times().dump(b"")[:-2])


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=20))
def test_only_readings_of_one_record_change_their_order(places: list[tuple[int, int]]) -> None:
    batch = [reading(float(time), offset) for offset, time in sorted(places, key=lambda it: it[0])]
    found = [(one.offset, one.time) for one in in_order(batch)]
    assert found == sorted((one.offset, one.time) for one in batch)


SHARES = st.lists(
    st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=12
)


@given(SHARES, st.integers(0, 2**32), st.integers(0, 40), st.booleans())
def test_the_cpus_of_a_host_in_any_order_give_the_mean_of_their_shares(
    shares: list[tuple[float, ...]], seed: int, cut: int, apart: bool
) -> None:
    """The value of a time is known with the first record of the next one."""
    rng = random.Random(seed)
    times, idle = Times(), [1000.0, 2000.0, 3000.0]
    found: list[tuple[float, float]] = []
    step = 0
    for number, of_cpus in enumerate(shares):
        cpus = list(enumerate(of_cpus))
        rng.shuffle(cpus)
        for cpu, share in cpus:
            idle[cpu] += 60 * (1 - share)
            # collectd gives each CPU a time of its own.
            time = START + 60 * number + (0.001 * cpu if apart else 0.0)
            one = reading(time, counter=(idle[cpu], 0.0), part=str(cpu))
            for _ in range(rng.choice((1, 1, 2))):  # some come twice
                news = times.take(Reading(*(getattr(one, it) for it in one.__struct_fields__)))
                if news is not None:
                    found.append((news.time or 0.0, news.value))
            step += 1
            if step == cut:
                times = restarted(times)
    expected = [
        (START + 60 * number, sum(of_cpus) / 3) for number, of_cpus in enumerate(shares[:-1])
    ][1:]
    assert [round(time) for time, _ in found] == [round(time) for time, _ in expected]
    for (_, value), (_, mean) in zip(found, expected, strict=True):
        assert value == pytest.approx(mean, abs=1e-6)


def values(times: Times, *rows: tuple[int, dict[str, float]]) -> list[tuple[int, float]]:
    out = []
    for minute, cpus in rows:
        for name, idle in cpus.items():
            one = reading(START + 60 * minute, counter=(idle, 0.0), part=name)
            if (news := times.take(one)) is not None:
                out.append((round(((news.time or 0.0) - START) / 60), round(news.value, 6)))
    return out


def test_a_time_that_is_not_complete_and_a_host_that_starts_again_give_no_reading() -> None:
    assert values(
        Times(),
        (0, {"0": 100.0, "1": 100.0}),
        (1, {"0": 130.0, "1": 130.0}),  # half
        (2, {"0": 160.0}),  # one CPU is missing
        (3, {"0": 190.0, "1": 250.0}),  # of the CPU that came: half
        (4, {"0": 10.0, "1": 20.0}),  # started again
        (5, {"0": 70.0, "1": 80.0}),  # idle
        (6, {"0": 70.0, "1": 80.0}),
    ) == [(1, 0.5), (3, 0.5), (5, 0.0)]


def test_what_is_measured_counts_in_place_of_what_could_be_computed() -> None:
    times = Times()
    assert values(times, (0, {"0": 100.0}), (1, {"0": 130.0})) == []
    assert times.take(reading(START + 90)) is not None
    assert values(times, (2, {"0": 160.0}), (3, {"0": 190.0}), (4, {"0": 220.0})) == []


def node(minute: int, cpu: str, mode: str, seconds: float) -> Any:
    labels = {"__name__": "node_cpu_seconds_total", "instance": "a", "cpu": cpu, "mode": mode}
    return {
        "labels": labels,
        "name": "node_cpu_seconds_total",
        "timestamp": f"2025-03-08T16:{minute:02}:00Z",
        "value": str(seconds),
    }


def host_metrics(minute: int, cpu: str, mode: str, seconds: float) -> Any:
    return {
        "name": "cpu_seconds_total",
        "namespace": "host",
        "tags": {"collector": "cpu", "cpu": cpu, "host": "a", "mode": mode},
        "timestamp": f"2025-03-08T16:{minute:02}:00.123456789Z",
        "kind": "absolute",
        "counter": {"value": seconds},
    }


def jiffies(minute: int, cpu: str, mode: str, seconds: float) -> Any:
    return [
        {
            "values": [round(100 * seconds)],
            "dstypes": ["derive"],
            "dsnames": ["value"],
            "time": START + 60 * minute + 0.01 * int(cpu),
            "interval": 60.0,
            "host": "a",
            "plugin": "cpu",
            "plugin_instance": cpu,
            "type": "cpu",
            "type_instance": mode,
        }
    ]


def records(write: Callable[..., Any]) -> Iterator[bytes]:
    for minute in range(5):
        for cpu in ("0", "1"):
            for mode, share in (("idle", 0.25 * minute), ("user", 1 - 0.25 * minute)):
                yield json.dumps(write(minute, cpu, mode, 1000 + 60 * minute * share)).encode()


@pytest.mark.parametrize(
    ("format", "write"), [("prometheus", node), ("vector", host_metrics), ("collectd", jiffies)]
)
def test_the_counters_of_a_feed(format: str, write: Callable[..., Any]) -> None:
    settings = Settings(_env_file=None)
    batch = [Raw(0, offset, value) for offset, value in enumerate(records(write))]
    choice = choose([raw.value for raw in batch], decode.fields(settings))
    assert choice is not None
    assert choice.format == format
    intake = Intake(settings)
    found = [one for raw in batch for one in intake.readings(raw)]
    assert intake.rejected == 0
    # Idle: 0, 15, 60 and 135 seconds after so many minutes.
    assert [round(one.value, 6) for one in found] == [0.75, 0.25, 0.0]
    assert [round((one.time or 0.0) - START) for one in found] == [60, 120, 180]
