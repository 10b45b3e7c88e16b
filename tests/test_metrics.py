from __future__ import annotations

import json
import re
import time
import urllib.request

from conftest import Flow, fill_topic, free_port
from test_flow import made_rows


def test_the_lag_of_each_partition(run_flow: Flow, brokers: str, topic: str) -> None:
    """It is told, and comes down to nothing."""
    rows = made_rows(6, 500)
    fill_topic(brokers, topic, [(row["instance"], json.dumps(row).encode()) for row in rows])
    port = free_port()
    flow = run_flow.start(
        brokers=brokers,
        topic=topic,
        detector="tutorial",
        output="found.jsonl",
        bytewax={"BYTEWAX_DATAFLOW_API_ENABLED": "1", "BYTEWAX_DATAFLOW_API_PORT": str(port)},
    )
    lags: dict[str, float] = {}
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (len(lags) < 3 or any(lags.values())):
        time.sleep(0.2)
        assert flow.poll() is None
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                text = answer.read().decode()
        except OSError:
            continue
        found = re.findall(
            rf'^anomaly_consumer_lag_records{{partition="(\d)",topic="{topic}"}} (\S+)$',
            text,
            re.MULTILINE,
        )
        lags = {partition: float(lag) for partition, lag in found}
    assert lags == {"0": 0, "1": 0, "2": 0}
    flow.terminate()
    assert flow.wait(60) == 0
