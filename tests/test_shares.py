"""Values from 0 to 1 at a scale of 100 are warned of, by the steps of the flow."""

from __future__ import annotations

import json
from typing import Any

import pytest
from feeds import FEEDS, Row

from dataflow.records import Raw, Reading
from dataflow.settings import Settings
from dataflow.steps.admit import admitter
from dataflow.steps.decode import decoder
from dataflow.steps.exchange import keyer


def warnings_of(values: list[bytes], **settings: Any) -> list[str]:
    """What is warned of while the records pass the steps, in batches of 30."""
    lines: list[str] = []
    options = Settings(_env_file=None, **settings)
    admission = admitter(options, decoder(options), lines.append)
    key = keyer(admission)
    raws = [Raw(0, offset, value) for offset, value in enumerate(values)]
    for begin in range(0, len(raws), 30):
        key([one for one in admission(raws[begin : begin + 30]) if isinstance(one, Reading)])
    return lines


def flat(values: list[float]) -> list[bytes]:
    return [
        json.dumps({"instance": "a", "timestamp": 300 * at, "value": value}).encode()
        for at, value in enumerate(values)
    ]


SHARES = [0.3 + 0.001 * (at % 7) for at in range(250)]


@pytest.mark.parametrize("format", ["auto", "json"])
def test_shares_at_the_scale_of_percentages_are_warned_of_once(format: str) -> None:
    (line,) = warnings_of(flat(SHARES), format=format, index_field=None)
    assert "'value' all lie between 0 and 1, and ANOMALY_SCALE is 100" in line
    assert "set ANOMALY_SCALE=1, with a new recovery store" in line


@pytest.mark.parametrize(
    ("values", "settings"),
    [
        (SHARES, {"scale": 1}),
        (SHARES, {"scale": None, "detector": "zscore"}),
        (SHARES[:99], {}),
        ([*SHARES[:99], 1.5, *SHARES], {}),
        ([0.0, 1.0] * 200, {}),
    ],
)
def test_other_values_are_not(values: list[float], settings: dict[str, Any]) -> None:
    assert warnings_of(flat(values), **settings) == []


@pytest.mark.parametrize("format", ["auto", "telegraf"])
def test_an_idle_host_of_a_feed_in_percent_is_not(format: str) -> None:
    rows = [Row("a", 1_741_449_600 + 60 * at, value) for at, value in enumerate(SHARES)]
    values = [value for row in rows for value in FEEDS["telegraf"].write(row)]
    assert warnings_of(values, format=format) == []
