"""Recovery stores of earlier versions: carried on with, to the last digit, or refused in a line.

The stores in tests/stores were written by version 0.1.0, before its modules moved into folders:
each after the first half of the sample, read from a topic with 3 partitions, output to stdout.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

from conftest import REPOSITORY, Flow, PausableBroker

from dataflow import kafka
from dataflow.demo import producer
from dataflow.settings import Settings

HALF = 16_128
"""Readings that the flow of before had read."""

SETTINGS: dict[str, Any] = {"detector": "tutorial", "reorder": True}


def found(flow: Flow, *arguments: str, **settings: Any) -> list[dict[str, Any]]:
    done = flow(*arguments, output="stdout", follow=False, **settings)
    assert done.returncode == 0, done.stderr
    lines = map(json.loads, done.stdout.splitlines())
    # What was news when the store was written, that version knew in another form.
    records = [{key: it[key] for key in it if key not in ("alert", "episode")} for it in lines]
    return sorted(records, key=lambda it: (it["id"], it.get("sequence", -1)))


def unpacked(name: str, folder: Path) -> str:
    with tarfile.open(REPOSITORY / "tests" / "stores" / f"format-2-{name}.tar.gz") as packed:
        packed.extractall(folder, filter="data")
    return str(folder / name)


def test_a_store_from_before_the_move_is_carried_on_with(
    own_broker: PausableBroker, run_flow: Flow, tmp_path: Path
) -> None:
    options = Settings(_env_file=None, brokers=own_broker.address)
    producer.prepare_topic(options, 3)
    sample = list(producer.keyed_records(REPOSITORY / "data" / "ec2_metrics.csv", options))
    producer.send(options, sample[:HALF], None, lambda _: None)
    begins = kafka.end_offsets(options, options.topic)
    producer.send(options, sample[HALF:], None, lambda _: None)

    settings = {**SETTINGS, "brokers": own_broker.address}
    whole = found(run_flow, **settings)
    resumed = found(
        run_flow, "-r", unpacked("tutorial", tmp_path), "-s", "1", "-b", "0", **settings
    )

    def is_later(record: dict[str, Any]) -> bool:
        source = record["source"]
        return bool(source["offset"] >= begins[source["partition"]])

    assert resumed == [record for record in whole if is_later(record)]
    assert len(resumed) > 30


def test_a_store_with_states_of_another_version_of_the_detector_is_refused(
    own_broker: PausableBroker, run_flow: Flow, tmp_path: Path
) -> None:
    options = Settings(_env_file=None, brokers=own_broker.address)
    producer.prepare_topic(options, 3)
    store = unpacked("calibrated", tmp_path)
    settings = {"incidents": True, "brokers": own_broker.address, "output": "stdout"}
    done = run_flow("-r", store, "-s", "1", "-b", "0", follow=False, **settings)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "holds states of another version of the detector calibrated" in line
    assert line.endswith("or start with a new store.")
