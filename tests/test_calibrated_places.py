"""Readings a minute apart: where in the hour and in the day they usually stand out."""

import math
import random
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.detectors.calibrated.detector import Calibrated, minute_of
from dataflow.detectors.calibrated.memory import Memory, read
from dataflow.detectors.calibrated.places import LEVELS, Places, none_yet
from dataflow.detectors.calibrated.places import read as read_places

DAY = 1_440
WARM_UP = 1_000
MARK = b"calibrated/4 "


def level(step):
    return 2 ** (step / 16)


def around(minutes, minute):
    """The steps of a minute, or of a neighbor less 4."""
    return max(minutes[minute], minutes[minute - 1] - 4, minutes[(minute + 1) % 60] - 4)


def byte_of(sharpness):
    return min(int(math.log(sharpness) * 16 / math.log(2)), 255)


SHARPNESS = st.floats(0, 60) | st.floats(0, 1e39)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 59), st.integers(0, 23), SHARPNESS, st.booleans(), st.booleans()),
        max_size=300,
    )
)
def test_levels_follow_as_the_formulae_say(readings):
    places, minutes, hours = none_yet(), [0] * 60, [0] * 24
    for minute, hour, sharpness, falls, young in readings:
        before = level(around(minutes, minute))
        explained = places.learn_minute(minute, sharpness, falls)
        assert explained == (before > 3.5 and sharpness <= 1.5 * before)
        if sharpness > level(minutes[minute]):
            minutes[minute] = byte_of(sharpness)
        elif falls:
            minutes[minute] = max(minutes[minute] - 1, 0)
        places.learn_hour(hour, sharpness, young)
        if sharpness > level(hours[hour]):
            up = math.ceil((byte_of(sharpness) - hours[hour]) / 2)
            hours[hour] += up if young else min(up, 12)
        if falls:
            places.fall_hour(hour)
            hours[hour] = max(hours[hour] - 1, 0)
            places.fall_minute(minute)
            minutes[minute] = max(minutes[minute] - 1, 0)
    assert bytes(places.view()) == bytes([*minutes, *hours])
    usual = [level(max(around(minutes, place % 60), hours[place % 24])) for place in range(120)]
    for place, here in enumerate(usual):
        bar = max(4, math.exp(1 + 4.8 * 0.2), 1.5 * here)
        assert places.bar(place % 60, place % 24) == pytest.approx(bar)


@settings(max_examples=60, deadline=None)
@given(st.lists(SHARPNESS, min_size=1, max_size=600))
def test_the_mean_and_the_spread_are_bounded_by_what_came(peaks):
    """No single hour moves them far, and nothing overflows."""
    places = none_yet()
    for count, peak in enumerate(peaks, start=1):
        spread, was = places.spread, places.mean
        places.learn_peak(peak, count)
        most = 2 * max(spread, 0.1)
        if count > 1:
            assert abs(places.mean - was) <= most / min(count, 240) + 1e-12
            assert 0 <= places.spread <= spread + most / min(count + 20, 240)
    logs = [math.log(max(peak, 1)) for peak in peaks]
    assert min(logs) - 1e-9 <= places.mean <= max(logs) + 1e-9
    assert math.isfinite(places.bar(0, 0))


@settings(max_examples=40)
@given(st.binary(min_size=84, max_size=84), st.floats(0, 9), st.floats(-3, 9))
def test_a_bar_is_never_below_what_its_places_usually_have(levels, spread, mean):
    places = read_places(levels, mean, spread)
    for minute in range(60):
        bar = places.bar(minute, minute % 24)
        assert bar >= 4
        assert bar >= 1.5 * LEVELS[levels[minute]]
        assert bar >= 1.5 * LEVELS[levels[60 + minute % 24]]


@given(st.floats(-1e18, 1e18) | st.integers(-(10**6), 10**6).map(float))
def test_a_minute_is_one_of_the_hour(seconds):
    minute = minute_of(seconds, int(seconds // 3600))
    assert 0 <= minute < 60
    if abs(seconds) < 1e9 and abs(seconds - 60 * round(seconds / 60)) > 1e-3:
        assert minute == math.floor(seconds / 60) % 60


def job_host(seed, every, days=4, size=40.0, first=7):
    """A host with noise of 1 and, each so many minutes, a job of one, whose size varies by 20%."""
    rng = random.Random(seed)
    return [
        500 + rng.gauss(0, 1) + size * rng.uniform(0.8, 1.2) * (at % every == first % every)
        for at in range(days * DAY)
    ]


def scores(values, first=0.0, interval=60.0):
    detector, state, found = Calibrated(interval), None, []
    for at, value in enumerate(values):
        state, verdict = detector.update(state, value, first + interval * at)
        found.append(verdict.score)
    return found


def test_a_job_that_comes_a_minute_early_or_late_is_quiet():
    alarms = 0
    for seed in range(4):
        rng, values = random.Random(seed), job_host(seed, 10**6)
        for hour in range(len(values) // 60):
            values[60 * hour + 7 + rng.choice((-1, 0, 1))] += 40 * rng.uniform(0.8, 1.2)
        alarms += sum(one > 0.5 for one in scores(values)[2 * DAY :])
    assert alarms <= 4


@pytest.mark.parametrize("every", [5, 10, 15, 30, 60])
def test_a_job_is_quiet(every):
    alarms = 0
    for seed in range(4):
        score = scores(job_host(seed, every))
        alarms += sum(one > 0.5 for one in score[2 * DAY :])
    assert alarms <= 3


@pytest.mark.parametrize(("every", "part"), [(60, 0.5), (30, 0.6)])
def test_a_part_of_a_job_at_another_minute_is_an_anomaly(every, part):
    found = 0
    for seed in range(4):
        values = job_host(seed, every)
        for number in range(6):
            at = WARM_UP + 2 * DAY + 171 * number
            at += -at % every + 2
            with_spike = [*values[:at], values[at] + 40 * part]
            found += scores(with_spike)[-1] > 0.5
    assert found >= 22


def test_a_job_that_moves_to_another_minute_is_quiet_after_some_hours():
    values = [*job_host(1, 60), *job_host(2, 60, days=2, first=31)]
    score = scores(values)
    moved = [one for one in range(4 * DAY, len(values)) if one % 60 == 31]
    assert score[moved[0]] > 0.5
    assert not any(score[one] > 0.5 for one in moved[3:])


def before_places(state):
    """The bytes that the version before wrote of a state, with a usual peak of 12."""
    numbers = list(state._numbers())
    numbers[23] = 12.0
    interval, code = state.signature
    body = struct.pack("<dc6q35d", interval, code.encode(), *state._counts(), *numbers)
    body += state.hours.tobytes() + bytes(state.masses.view())
    return MARK + struct.pack("<I", zlib.crc32(body)) + body


def test_a_state_of_before_goes_on_with_its_bar_and_learns_the_places():
    detector, state = Calibrated(60.0), None
    values = job_host(3, 60, days=14)
    for at, value in enumerate(values[: 3 * DAY]):
        state, _ = detector.update(state, value, 60.0 * at)
    old = detector.load(before_places(state))
    assert old.seen == state.seen
    assert old.places.bar(30, 3) == pytest.approx(1.25 * 12)
    assert not any(old.places.view())
    for at, value in enumerate(values[3 * DAY :], start=3 * DAY):
        old, verdict = detector.update(old, value, 60.0 * at)
        if at > 4 * DAY:
            assert verdict.score < 0.5
    elsewhere = old.places.bar(30, 3)
    assert elsewhere < 0.8 * 1.25 * 12
    assert old.places.bar(7, 3) > 2 * elsewhere
    assert read(old.dump()).dump() == old.dump()


@pytest.mark.parametrize("interval", [121.0, 300.0, 3600.0])
def test_states_of_longer_intervals_have_no_places(interval):
    detector = Calibrated(interval)
    state, _ = detector.update(None, 1.0, 0.0)
    assert state.places is None
    assert len(detector.dump(state)) == 2_146


def test_a_copy_changes_on_its_own():
    detector = Calibrated(60.0)
    state, _ = detector.update(None, 1.0, 0.0)
    copy = state.copy()
    assert isinstance(copy, Memory)
    assert isinstance(copy.places, Places)
    copy.places.learn_minute(5, 9.0, True)
    assert bytes(copy.places.view()) != bytes(state.places.view())
    assert len(detector.dump(state)) == 2_198
