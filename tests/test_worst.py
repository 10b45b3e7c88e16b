"""The worst instances and the open incidents, as Prometheus gets them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_counters import value

from dataflow.alerts.episode import Finding
from dataflow.detectors import make
from dataflow.detectors.base import Verdict
from dataflow.metrics import counters
from dataflow.metrics.instances import FAMILIES, Figures, WorstInstances
from dataflow.records import Reading
from dataflow.settings import Settings
from dataflow.steps.score import Scored

PATIENCE = 600.0

TAKEN = st.lists(
    st.tuples(
        st.sampled_from("abcdef"),
        st.integers(0, 4).map(lambda score: score / 4),
        st.integers(0, 700).map(float),
        st.booleans(),
    ),
    max_size=20,
)
"""Readings: key, score, seconds since the one before, and whether its episode lasts."""


def shown(worst: WorstInstances, now: float) -> list[tuple[str, float]]:
    scores = next(worst.at(now))
    return [(one.labels["instance_name"], one.value) for one in scores.samples]


@given(TAKEN, st.integers(1, 4), st.integers(0, 700))
def test_the_worst_are_those_with_the_highest_scores_since_their_anomaly(
    taken: list[tuple[str, float, float, bool]], limit: int, after: int
) -> None:
    worst = WorstInstances(limit, PATIENCE)
    now = 0.0
    for key, score, passed, lasts in taken:
        now += passed
        assert len(shown(worst, now)) <= limit  # a scrape between, which forgets
        worst.take(key, (key, "cpu"), Figures(score, 0.5), score, now=now, lasts=lasts)
    now += after
    # The same by a second way: each key's own history, from its end.
    peaks: dict[str, tuple[float, float]] = {}
    for key in {key for key, *_ in taken}:
        time, until, newest, peak = 0.0, -1.0, 0.0, 0.0
        for other, score, passed, lasts in taken:
            time += passed
            if other != key:
                continue
            if until < time:
                peak, until = score, time + PATIENCE
            peak, newest = max(peak, score), score
            until = time + PATIENCE if lasts else until
        if until >= now:
            peaks[key] = (peak, newest)
    order = sorted(peaks, key=lambda key: (-peaks[key][0], key))[:limit]
    assert shown(worst, now) == [(key, peaks[key][1]) for key in order]


def test_a_storm_takes_no_more_room_than_a_few() -> None:
    worst = WorstInstances(2, PATIENCE)
    for number in range(1000):
        score = number * 7 % 1000 / 1000
        name = f"host-{number}"
        worst.take(name, (name, "cpu"), Figures(score, 0.5), score, now=0.0, lasts=True)
        assert len(worst._followed) <= 16
    assert [score for _, score in shown(worst, 1.0)] == [0.999, 0.998]
    families = list(worst.at(1.0))
    assert [family.name for family in families] == [name for name, _ in FAMILIES]
    # What is not known is not there.
    assert [len(family.samples) for family in families] == [2, 2, 0, 0, 0]


def scored(instance: str, number: int, score: float, finding: Finding | None = None) -> Scored:
    time = 300.0 * number
    verdict = Verdict(score, 0.2, -0.1, 0.4)
    return Reading(instance, time, number, 0.9, time, 0, number), verdict, finding


ANOMALY = Finding("e", True, True, True, True)
CALM = Finding("e", False, False, False, True)
ENDED = Finding("e", False, False, False, True, "recovered")


@pytest.fixture
def _as_before() -> Iterator[None]:
    yield
    counters.WORST.limit = 0
    counters.WORST._followed.clear()


@pytest.mark.usefixtures("_as_before")
def test_the_filter_follows_an_instance_through_its_episode() -> None:
    pytest.importorskip("bytewax")
    from dataflow.steps import filter, worst

    options = Settings(_env_file=None, metrics_port=1, metrics_instances=5)  # type: ignore[arg-type]
    keep = filter.above(0.5, worst.follower(options))

    def labels(name: str = "a") -> dict[str, str]:
        return {"instance_name": name, "metric": "cpu"}

    assert keep([("a", [scored("a", 0, 0.1)]), ("b", [scored("b", 0, 0.1)])]) == []
    assert value("anomaly_score", **labels()) == 0.0
    keep([("a", [scored("a", 1, 0.1), scored("a", 2, 0.9, ANOMALY)]), ("b", [scored("b", 1, 0.2)])])
    assert value("anomaly_score", **labels()) == 0.9
    assert value("anomaly_value", **labels()) == 0.9
    assert value("anomaly_expected", **labels()) == 0.2
    assert value("anomaly_expected_lower", **labels()) == 0.0  # CPU is never below
    assert value("anomaly_expected_upper", **labels()) == 0.4
    assert value("anomaly_score", **labels("b")) == 0.0
    # Calm readings of the episode, and one after its end: none is an anomaly.
    for number, (score, finding) in enumerate([(0.3, CALM), (0.2, ENDED), (0.1, None)], 3):
        assert keep([("a", [scored("a", number, score, finding)])]) == []
        assert value("anomaly_score", **labels()) == score
    keep([("a", []), ("b", [scored("b", 5, 0.8, ANOMALY)])])  # forgotten
    assert value("anomaly_score", **labels()) == 0.0
    assert value("anomaly_score", **labels("b")) == 0.8


@pytest.mark.usefixtures("_as_before")
def test_none_is_followed_where_none_is_asked_for_or_nothing_is_served() -> None:
    pytest.importorskip("bytewax")
    from dataflow.steps import worst

    for given_settings in ({"metrics_port": 1, "metrics_instances": 0}, {"metrics_port": None}):
        options = Settings(_env_file=None, **given_settings)  # type: ignore[arg-type]
        assert worst.follower(options) is None
    slow = Settings(_env_file=None, metrics_port=1, interval=3600)  # type: ignore[arg-type]
    assert worst.follower(slow) is not None
    assert counters.WORST.patience == 3 * 3600


def test_open_incidents_are_counted_across_a_restart() -> None:
    pytest.importorskip("bytewax")
    from dataflow.steps.incidents import monitors

    def now_open(kind: str) -> float:
        return value("anomaly_incidents_open", incident=kind) - before[kind]

    options = Settings(_env_file=None, incidents=True, detector="tutorial")  # type: ignore[arg-type]
    build = monitors(options, make("tutorial"), None)
    before = {
        kind: value("anomaly_incidents_open", incident=kind) for kind in ("anomaly", "silence")
    }
    logic = build(None)
    logic.on_batch([[scored("a", 0, 0.1)]])
    assert now_open("anomaly") == 0
    logic.on_batch([[scored("a", 1, 0.9, ANOMALY)]])
    assert now_open("anomaly") == 1
    saved = logic.snapshot()
    before["anomaly"] += 1  # that process is gone, and its count with it
    resumed = build(saved)
    assert now_open("anomaly") == 1
    # A gap in which it was silent: opened and resolved at once. The episode goes on.
    records, _ = resumed.on_batch([[scored("a", 9, 0.3, CALM)]])
    assert [(one.kind, one.state) for one in records] == [
        ("silence", "opened"),
        ("silence", "resolved"),
    ]
    assert (now_open("anomaly"), now_open("silence")) == (1, 0)
    resumed.on_batch([[scored("a", 10, 0.1, ENDED)]])
    assert now_open("anomaly") == 0
