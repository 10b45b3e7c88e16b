"""ANOMALY_LEAST: what is too close to what was expected is no anomaly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import REPOSITORY, Flow

from dataflow.errors import UserError
from dataflow.settings import Settings
from dataflow.steps import score


def found(run_flow: Flow, **settings: object) -> dict[tuple[str, int], dict[str, object]]:
    """The anomalies of the sample, by instance and index."""
    sample = REPOSITORY / "data" / "ec2_metrics.csv"
    done = run_flow(input=str(sample), output="stdout", **settings)
    assert done.returncode == 0, done.stderr
    records = map(json.loads, done.stdout.splitlines())
    return {(one["instance"], one["index"]): one for one in records}


def test_anomalies_are_those_that_are_far_enough(run_flow: Flow) -> None:
    whole, far = found(run_flow), found(run_flow, least=10)
    assert far.keys() == {
        key
        for key, one in whole.items()
        if 100 * abs(one["value"] - one["expected"]) >= 10  # type: ignore[operator]
    }
    assert 50 < len(far) < len(whole) / 1.5
    # Nothing else of them changes but which are news.
    changing = {"alert", "episode", "ordinary", "reasons", "why"}
    for key, one in far.items():
        kept = {name: one[name] for name in one if name not in changing}
        assert kept == {name: whole[key][name] for name in kept}


@pytest.mark.parametrize("detector", ["tutorial", "isolation-forest"])
def test_a_detector_that_expects_nothing_is_refused(detector: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"ANOMALY_LEAST .* detector {detector} expects none"):
        score.detector(Settings(_env_file=None, detector=detector, least=5))


def test_all_metrics_together_have_no_unit() -> None:
    options = Settings(_env_file=None, least=5, together=True, metrics="*")
    with pytest.raises(UserError, match="leave out one of them"):
        score.detector(options)
    assert score.detector(Settings(_env_file=None, least=5)).name == "calibrated"
