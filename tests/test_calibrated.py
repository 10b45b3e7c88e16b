"""The default detector: its formulae, its limits before and after, its figures."""

import math
import random
import struct

import forms
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import KINDS, START, instance, judge, replay

from dataflow.alerts.news import held
from dataflow.detectors.calibrated.detector import Calibrated
from dataflow.detectors.calibrated.memory import LEAVES, TREES
from dataflow.detectors.calibrated.trees import Trees
from dataflow.evaluation import backtest
from dataflow.evaluation.datasets import load_nab, load_sample
from dataflow.evaluation.instances import AnyOf
from dataflow.evaluation.nab import Corpus


def float32(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


def at_minute(steps, minute):
    """The steps of a minute, or of a neighbor less 4."""
    return max(steps[minute], steps[minute - 1] - 4, steps[(minute + 1) % 60] - 4)


def straight_down(readings, interval=300.0):
    """Yield the verdicts as docs/detectors.md has the formulae, one after the other."""
    ratio = min(300 / interval, 30)
    k = max(1, ratio)
    averaged = max(24 * math.sqrt(ratio), 3)
    fortnight = round(4032 * k)
    start = min(round(200 * k), max(round(5 * 86_400 / interval), 120))
    per_day = max(round(86_400 / interval), 1)
    run, floor, times = 3, 6, 2.25
    by_place = interval <= 120
    if by_place or interval >= 1800:
        run, floor, times = 1, 5, 1.5
    last = []  # x, residual and bits of the last readings
    mass = {name: [[0] * LEAVES for _ in range(TREES)] for name in ("residual", "step")}
    size, scale, s, mu, var = ({"residual": 0.0, "step": 0.0} for _ in range(5))
    level = e_level = e_day = e_week = 0.0
    profile = {}
    present, previous_fortnight = [], []
    total = same = longest = since = trouble = 0
    beside = beside_size = peak = usual_peak = most = usual_most = trouble_miss = 0.0
    by_minute, by_hour, mean, spread = [0] * 60, [0] * 24, 1.0, 0.2
    per_hour = round(3600 / interval)
    origin = previous = None
    for n, (value, time) in enumerate(readings):
        value = min(max(value, -1e30), 1e30)
        origin = value if origin is None else origin
        x = value - origin
        previous = x if previous is None else previous
        seconds = n * interval if time is None else time
        hour, minute = math.floor(seconds / 3600), math.floor(seconds / 60) % 60
        day, week = ("day", hour % 24), ("week", hour % 168)

        expected, miss = level, e_level
        if e_day < 0.8 * e_level and day in profile:
            expected, miss = profile[day], e_day
        if e_week < 0.8 * min(e_level, e_day) and week in profile:
            expected, miss = profile[week], e_week
        feature = {"residual": x - expected, "step": x - previous}

        known = present + previous_fortnight
        top = max(abs(v + origin) for v in known) if known else 0.0
        least = 0.002 * top + 1e-9
        start_of_run = ([0.0] * run + [x for x, _, _ in last])[-run]
        sharp = 0.0
        for sign in (1, -1):
            far = [
                sign * distance
                for place, residual in [
                    *[(x, residual) for x, residual, _ in ([(0, 0, 0)] * run + last)[1 - run :]],
                    (x, feature["residual"]),
                ][-run:]
                for distance in (
                    (residual - beside) / max(beside_size, least),
                    (place - start_of_run) / max(size["step"], least),
                )
            ]
            sharp = max(sharp, min(far))
        z = [0.0]
        information = math.log2(total + 1)
        for name, f in feature.items():
            if since:
                rate = 1 / since if since < round(150 * k) else 1 / (2016 * k)
                size[name] += rate * (abs(f) - size[name])
            if since < round(150 * k):
                scale[name] = size[name]
            scale[name] = min(max(scale[name], size[name] / 1.5), size[name] * 1.5)
            wide = 16 * max(scale[name], least)
            u = 0.5 + 0.5 * f / (wide + abs(f))
            leaves = [leaf(tree, u) for tree in range(TREES)]
            bits = information - sum(
                math.log2(LEAVES * mass[name][tree][found] + 1) / TREES
                for tree, found in enumerate(leaves)
            )
            for tree, found in enumerate(leaves):
                mass[name][tree][found] += 1
            s[name] += (bits - s[name]) / averaged
            off = s[name] - mu[name]
            if name == "residual":
                last.append((x, feature["residual"], bits))
            z.append(off / math.sqrt(var[name] + 0.3**2))
            if n >= round(100 * k):
                counted = n - round(100 * k) if since == n else since
                rate = 1 / min(counted + 1, round(3000 * k))
                mu[name] += rate * off
                var[name] += rate * (off * off * (1 - rate) - var[name])
        total += 1
        y = max(z) / max(1, usual_most / 3)
        apart = False  # more than at its places

        if x == previous:
            same += 1
        else:
            longest, same = max(longest, same), 0
        stuck = False
        if n < start or since < min(n, round(36 * k)):
            y = 0.0
        else:
            out = max(x - max(known), min(known) - x)
            if out > 0:
                out /= max(max(known) - min(known), 0.1 * top, 1e-9)
                half = 0.08 if since == n else 0.08 * (1 + 4 * per_day / since)
                y += 6 * out / (out + half)
            if same == max(round(72 * k), 4 * longest):
                y += 6
                stuck = True
            weight = 1.0
            if run > 1:
                rare = min(bits for _, _, bits in last[-run:])
                weight = min(1 + (rare - 3) / 10, 1.5) if rare >= 2 else 0
            if (since == n or since >= per_day) and sharp > by_place:
                bar = max(floor, times * usual_peak)
                if by_place:
                    steps = max(at_minute(by_minute, minute), by_hour[hour % 24])
                    elsewhere = math.exp(mean + 4.8 * max(spread, 0.1))
                    bar = max(4, elsewhere, 1.5 * 2 ** (steps / 16))
                apart = by_place and 3 * sharp / bar > y
                y = max(y, 3 * sharp * weight / bar)

        yield (
            y / (y + 3),
            origin + expected,
            origin + expected - 3 * miss,
            origin + expected + 3 * miss,
            interval <= 300
            and expected != level
            and abs(x - expected) < 2 * miss
            and not stuck
            and not apart,
        )

        since += 1
        bounded = since > start
        if n >= start:
            off_hour = trouble > 0 and abs(x - profile.get(day, x)) > 6 * trouble_miss
            if y > 1.5 or off_hour:
                if not trouble:
                    troubled, trouble_miss = [x], miss
                trouble += 1
            else:
                trouble = max(trouble - 4, 0)
            if trouble:
                troubled.append(x)
            if trouble >= round(276 * k):
                trouble = since = 0
                present, previous_fortnight = troubled, []
                profile, level = {}, x
                e_level = e_day = e_week = 0.0

        def within(distance, usual, bounded=bounded):
            return min(max(distance, -4 * usual), 4 * usual) if bounded else distance

        rate = 1 / (208 * k)
        off = abs(x - level)
        e_level, level = (
            e_level + rate * (within(off, e_level) - e_level),
            level + rate * (x - level),
        )
        day_off = within(x - profile[day], e_day) if day in profile else None
        week_off = within(x - profile[week], e_week) if week in profile else None
        e_day += rate * ((1.5 * off if day_off is None else abs(day_off)) - e_day)
        e_week += rate * ((1.5 * off if week_off is None else abs(week_off)) - e_week)
        for cell, rate, far in ((day, 0.05, day_off), (week, 0.1, week_off)):
            profile[cell] = float32(x if far is None else profile[cell] + rate * far)

        if n >= start:
            most = max(most, max(z))
            if (n - start + 1) % (4 * per_day) == 0:
                count = (n - start + 1) // (4 * per_day)
                usual_most += (min(most, 1.5 * 3) - usual_most) / min(count, 5)
                most = 0.0
        if by_place:
            usual = 2 ** (at_minute(by_minute, minute) / 16)
            step = min(int(16 * math.log2(sharp)), 255) if sharp > 1 else 0
            if sharp > 2 ** (by_minute[minute] / 16):
                by_minute[minute] = step
            elif n % max(round(60 / interval), 1) == 0:
                by_minute[minute] = max(by_minute[minute] - 1, 0)
            if n >= round(100 * k):
                if usual <= 3.5 or sharp > 1.5 * usual:
                    peak = max(peak, sharp)
                    now = by_hour[hour % 24]
                    if sharp > 2 ** (now / 16):
                        up = math.ceil((step - now) / 2)
                        by_hour[hour % 24] += up if n < 3 * per_day else min(up, 12)
                if (n - round(100 * k)) % per_hour in (per_hour // 2, per_hour - 1):
                    by_hour[hour % 24] = max(by_hour[hour % 24] - 1, 0)
                count, rest = divmod(n - round(100 * k) + 1, per_hour)
                if rest == 0:
                    found, peak = math.log(max(peak, 1)), 0.0
                    bound = 2 * max(spread, 0.1)
                    off = min(max(found - mean, -bound), bound)
                    if count == 1:
                        mean = found
                    else:
                        spread += (abs(off) - spread) / min(count + 20, 240)
                        mean += off / min(count, 240)
        elif n >= round(100 * k):
            peak = max(peak, sharp)
            if (n - round(100 * k) + 1) % per_day == 0:
                count = (n - round(100 * k) + 1) // per_day
                if count > 1:
                    peak = min(peak, 2 * usual_peak)
                usual_peak += (peak - usual_peak) / min(count, 10)
                peak = 0.0
        rate = 1 / (2016 * k) if since > round(150 * k) else 1 / max(since, 1)
        beside_size += rate * (abs(feature["residual"] - beside) - beside_size)
        beside += (0.4 if by_place else 0.2) * (
            ([0.0] * run + [it[1] for it in last])[-run] - beside
        )
        del last[:-3]
        previous = x
        present.append(x)
        if len(known) > 3:  # all that the formulae ask of them
            present = [max(present), min(present)]
        if (n + 1) % fortnight == 0:
            previous_fortnight, present = present, []
            total //= 2
            for name in mass:
                mass[name] = [[m // 2 for m in tree] for tree in mass[name]]


@st.composite
def streams(draw_):
    """Readings in stretches of different habits, sometimes without times or with wrong ones."""
    rng = random.Random(draw_(st.integers(0, 10**6)))
    unit = 10.0 ** draw_(st.integers(-6, 9))
    timed = draw_(st.booleans())
    apart = draw_(st.sampled_from((60.0, 300.0)))
    readings, time = [], START
    for _ in range(draw_(st.integers(1, 6))):
        form = draw_(st.sampled_from(("still", "noise", "daily", "bursts", "job")))
        base = draw_(st.floats(-3, 3))
        for number in range(draw_(st.integers(1, 900))):
            time += rng.choice((apart, apart, apart, apart, 0.0, -600.0, 90_000.0))
            value = base
            if form == "noise":
                value += rng.gauss(0, 0.3)
            elif form == "daily":
                value += math.sin(time / 86_400 * math.tau) + rng.gauss(0, 0.05)
            elif form == "bursts":
                value += 5 * (rng.random() < 0.02)
            elif form == "job":
                value += rng.gauss(0, 0.1) + 3 * (number % 60 == 0)
            readings.append((value * unit, time if timed else None))
    return readings


@settings(max_examples=25, deadline=None)
@given(streams(), st.sampled_from((3600.0, 900.0, 300.0, 140.0, 60.0, 30.0)))
def test_it_computes_the_formulae(readings, interval):
    detector, state = Calibrated(interval), None
    for (value, time), wanted in zip(readings, straight_down(readings, interval), strict=True):
        state, verdict = detector.update(state, value, time)
        close = 1e-6 * abs(value) + 1e-12
        assert verdict[:4] == pytest.approx(wanted[:4], rel=1e-6, abs=close)
        miss = (verdict.upper - verdict.lower) / 6
        if abs(abs(value - verdict.expected) - 2 * miss) > close:
            assert verdict.near == wanted[4]


def test_what_it_learns_does_not_depend_on_the_threshold():
    made = instance("weekly", 3, days=25)
    one, two, first, second = Calibrated(threshold=0.3), Calibrated(threshold=0.8), None, None
    for value, time in zip(made.values, made.times, strict=True):
        first, verdict = one.update(first, value, time)
        second, other = two.update(second, value, time)
        assert verdict == other
    assert one.dump(first) == two.dump(second)


def test_it_computes_the_formulae_over_weeks():
    made = instance("daily", 1, days=35)
    readings = list(zip(made.values, made.times, strict=True))
    detector, state, worst = Calibrated(), None, 0.0
    for (value, time), wanted in zip(readings, straight_down(readings), strict=True):
        state, verdict = detector.update(state, value, time)
        worst = max(worst, *(abs(a - b) for a, b in zip(verdict, wanted, strict=True)))
    assert worst < 1e-9  # also `near`, as 0 and 1


def test_it_computes_the_formulae_of_jobs_a_minute_apart():
    """With an hourly and a nightly job, and spikes at other times."""
    rng = random.Random(5)
    readings = []
    for at in range(5 * 1_440):
        value = 500 + rng.gauss(0, 1) + 40 * rng.uniform(0.8, 1.2) * (at % 60 == 7)
        value += 60 * (120 <= at % 1_440 < 150) + rng.uniform(5, 20) * (rng.random() < 0.005)
        readings.append((value, START + 60.0 * at))
    detector, state, above = Calibrated(60.0), None, 0
    for (value, time), wanted in zip(readings, straight_down(readings, 60.0), strict=True):
        state, verdict = detector.update(state, value, time)
        assert verdict == pytest.approx(wanted, rel=1e-9)
        above += verdict.score > 0.5
    assert above > 10


def leaf(tree, place):
    """The number of a place's leaf: a tree has 32 equal ones, shifted by a part of a leaf."""
    return math.floor(place * (LEAVES - 1) + (tree + 0.5) / TREES)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0, 1)))
def test_a_place_has_the_leaves_of_shifted_halves(places):
    """At random, at the ends, and next to each cut."""
    trees = Trees(256)
    cuts = [(at - (tree + 0.5) / TREES) / (LEAVES - 1) for at in range(1, 32) for tree in range(8)]
    # On a cut itself, the last digit decides.
    places = [place for place in places if min(abs(place - cut) for cut in cuts) > 1e-12]
    places += [0.0, 1.0, math.nextafter(1.0, 0.0)]
    places += [min(max(cut + d, 0.0), 1.0) for cut in cuts for d in (-1e-12, 1e-12)]
    for place in places:
        assert list(trees.leaves(place)) == [
            256 + LEAVES * tree + leaf(tree, place) for tree in range(TREES)
        ]


def alerts_of(values, detector=None, first=START, interval=300.0):
    detector = detector or Calibrated()
    state, scores = None, []
    for i, value in enumerate(values):
        state, verdict = detector.update(state, value, first + i * interval)
        scores.append(0.0 if verdict.near else verdict.score)
    found = held(scores, detector.threshold, interval)
    return [i for i, score in enumerate(found) if score > detector.threshold]


def noise(count, seed=0, level=0.3, size=0.02):
    rng = random.Random(seed)
    return [level + rng.gauss(0, size) for _ in range(count)]


def test_it_says_nothing_in_the_first_two_hundred_readings():
    detector, state = Calibrated(), None
    for i, value in enumerate([*noise(150), *noise(50, level=0.9)]):
        state, verdict = detector.update(state, value, START + 300.0 * i)
        assert verdict.score == 0


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.5, math.nan])
def test_a_threshold_that_no_score_or_every_one_passes_is_an_error(threshold):
    with pytest.raises(ValueError, match="threshold"):
        Calibrated(threshold=threshold)


def test_a_long_episode_is_few_alerts():
    values = [*noise(1_500), *noise(300, 1, level=0.8), *noise(300, 2)]
    alerts = alerts_of(values)
    assert any(1_500 <= alert < 1_512 for alert in alerts)
    assert len([alert for alert in alerts if 1_500 <= alert < 1_800]) <= 4


def test_the_band_is_where_readings_usually_are():
    made = instance("daily", 0, days=12)
    detector, state, inside, widths = Calibrated(), None, 0, []
    for i, (value, time) in enumerate(zip(made.values, made.times, strict=True)):
        state, verdict = detector.update(state, value, time)
        assert verdict.lower <= verdict.expected <= verdict.upper
        if i >= 2_016:
            inside += verdict.lower <= value <= verdict.upper
            widths.append(verdict.upper - verdict.lower)
    assert inside / len(widths) > 0.95
    # Narrow beside the daily swing of 0.1: it knows the hour.
    assert sum(widths) / len(widths) < 0.06


def test_the_scale_of_the_values_does_not_matter():
    values = [*noise(1_200), 0.9, *noise(400, 1)]
    one = Calibrated()
    for factor in (1e-3, 1e6):
        state = scaled = None
        for i, value in enumerate(values):
            state, a = one.update(state, value, START + 300.0 * i)
            scaled, b = one.update(scaled, value * factor, START + 300.0 * i)
            assert a.score == pytest.approx(b.score, abs=2e-3)


@pytest.mark.parametrize("value", [1e308, -1e308, 5e-324, 0.0, -0.0])
def test_extreme_values_are_scored_like_others(value):
    detector, state = Calibrated(), None
    for i in range(700):
        state, verdict = detector.update(state, value if i % 97 == 96 else 0.5, 300.0 * i)
        assert 0 <= verdict.score <= 1
        assert all(math.isfinite(bound) for bound in verdict)


def test_times_that_repeat_or_run_backward_break_nothing():
    rng = random.Random(1)
    detector, state = Calibrated(), None
    for value in noise(1_000):
        state, verdict = detector.update(state, value, rng.choice((-1e9, 0.0, 5.0, 2e9)))
        assert 0 <= verdict.score <= 1


# Limits, before and after.


def test_a_still_series_may_move_by_a_hair_and_not_by_a_hand():
    still = [0.2] * 1_000
    assert not alerts_of([*still, 0.2002, *still])
    assert alerts_of([*still, 0.25, *still])[0] == 1_000
    assert not alerts_of([0.0] * 3_000)


def test_a_value_that_stays_for_six_hours_is_noticed(monkeypatch):
    stuck = [*noise(2_000), *[0.31] * 150, *noise(100, 1)]
    assert any(2_070 <= alert < 2_080 for alert in alerts_of(stuck))
    with forms.plain() as changed:
        monkeypatch.setattr(changed, "STUCK", 10**9)
        alerts = alerts_of(stuck, changed.Calibrated())
    assert not any(2_000 <= alert < 2_150 for alert in alerts)


def test_a_value_that_often_stays_is_not():
    idle = [*[0.0] * 100, *noise(50)]
    values = [value for _ in range(20) for value in idle]
    assert not [alert for alert in alerts_of([*values, *[0.0] * 300]) if alert >= len(values)]


def fleet(**options):
    return [instance(kind, seed, **options) for kind in KINDS for seed in range(2)]


def all_time(monkeypatch, detector):
    """Undo what makes the detector follow an instance that has changed for good."""
    turn = detector.turn

    def keep_range(m):
        high, low = max(m.high, m.last_high), min(m.low, m.last_low)
        turn(m)
        m.last_high, m.last_low = high, low

    monkeypatch.setattr(detector, "turn", keep_range)
    monkeypatch.setattr("dataflow.detectors.calibrated.view.SLACK", 1e9)


def test_an_instance_that_shrank_to_a_third_is_still_watched(monkeypatch):
    shrunk = fleet(change=lambda since: 1 / 3)
    found, false = judge(Calibrated(), shrunk)
    with forms.plain() as changed:
        all_time(monkeypatch, changed)
        found_before, _ = judge(changed.Calibrated(), shrunk)
    assert found > found_before + 0.05
    assert false < 0.06


def test_readings_a_minute_apart_need_the_interval():
    minutes = [instance(kind, 0, days=16, per_day=1_440, change_day=5) for kind in KINDS]
    found, false = judge(Calibrated(interval=60.0), minutes, 1_440, 5)
    _, false_before = judge(Calibrated(), minutes, 1_440, 5)
    assert false < 0.75 * false_before
    assert false < 0.2
    assert found > 0.85


def test_hourly_readings_need_the_interval():
    hours = [instance(kind, 0, days=90, per_day=24, change_day=16) for kind in KINDS]
    found, false = judge(Calibrated(interval=3_600.0), hours, 24, 16)
    found_before, _ = judge(Calibrated(), hours, 24, 16)
    assert found > 2 * found_before
    assert false < 0.05


def test_gaps_bring_no_alerts():
    for hours in (1, 12, 72):
        extra = days = 0
        for kind in KINDS:
            made = instance(kind, 3, days=24, change_day=24)
            whole = len(replay(Calibrated(), made))
            kept = [i for i in range(len(made.values)) if i < 2_400 or i % 1_100 > hours * 12]
            made.values = [made.values[i] for i in kept]
            made.times = [made.times[i] for i in kept]
            extra += len(replay(Calibrated(), made)) - whole
            days += 14
        assert extra / days < 0.06


def test_four_months_stay_quiet():
    made = instance("weekly", 4, days=120, change=lambda since: 1 + since / 60, change_day=0)
    alerts = [alert for alert in replay(Calibrated(), made) if alert > 14 * 288]
    outside = [
        alert
        for alert in alerts
        if not any(first <= alert <= last + 72 for first, last in made.anomalies)
    ]
    assert len(outside) / 106 < 0.35


def test_a_shorter_interval_scales_the_state_not_its_size():
    made = noise(300)
    detector = Calibrated(interval=10.0)
    state = None
    for value in made:
        state, _ = detector.update(state, value, None)
    assert len(detector.dump(state)) < 3_230
    assert detector.load(detector.dump(state)).dump() == detector.dump(state)


@pytest.mark.parametrize("interval", [0.0, -1.0, math.nan, math.inf])
def test_an_interval_that_is_none_is_an_error(interval):
    with pytest.raises(ValueError, match="interval"):
        Calibrated(interval=interval)


def test_another_interval_is_an_error_that_names_it():
    state, _ = Calibrated().update(None, 0.5, None)
    with pytest.raises(ValueError, match=r"interval 300 s; this detector has interval 60 s"):
        Calibrated(interval=60.0).load(state.dump())


# Figures on the Numenta Anomaly Benchmark and on real instances.

FILES = ("**/*.csv", "realAWSCloudwatch/*.csv")


def test_the_figures_on_the_benchmark(shared):
    """The standard score of all series and of AWS's, and alerts an instance and day."""
    nab = [load_nab(shared / "nab", files) for files in FILES]
    metrics = load_sample(shared / "data" / "ec2_metrics.csv", None)
    detector = Calibrated()

    def alerts_in(series):
        scores = backtest.replay(detector, series)
        return AnyOf(series).alerts(scores, detector.threshold, 300)

    every, aws = (
        Corpus(series).score(alerts_in(series), detector.threshold).standard for series in nab
    )
    alerts = sum(int((found > detector.threshold).sum()) for found in alerts_in(metrics))
    assert every > 75.9
    assert aws > 67.0
    assert alerts / sum(len(one.values) for one in metrics) * 288 < 0.26
