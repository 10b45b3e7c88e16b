"""What is said of rejected records: enough, and not too much."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import Flow, fill_topic
from hypothesis import given
from hypothesis import strategies as st
from test_flow import made_rows, write_csv

from dataflow.records import Rejected, Source
from dataflow.settings import Settings
from dataflow.steps.rejections import PAUSE, Rejections
from dataflow.warnings import Warnings


def rejected(reason: str, offset: int = 0, error: str = "it is odd") -> Rejected:
    return Rejected(reason, error, Source("cpu", 2, offset), None)


@given(
    st.lists(st.tuples(st.sampled_from(["one", "two"]), st.integers(0, 90)), max_size=300),
)
def test_the_first_of_each_reason_and_then_a_line_a_minute_at_most(
    records: list[tuple[str, int]],
) -> None:
    now = 0.0
    lines: list[tuple[str, float]] = []
    rejections = Rejections(
        Settings(_env_file=None, topic="cpu"),
        Warnings(lambda line: lines.append((line, now))),
        lambda: now,
    )
    for offset, (reason, waited) in enumerate(records):
        now += waited
        rejections.add(rejected(reason, offset))
    counts = Counter(reason for reason, _ in records)
    for reason, count in counts.items():
        mine = [(line, at) for line, at in lines if f"({reason})" in line]
        first = next(at for at, (it, _) in enumerate(records) if it == reason)
        assert mine[0][0] == (
            f"warning: offset {first} of partition 2 of the topic 'cpu' is rejected ({reason}): "
            "it is odd."
        )
        times = [at for _, at in mine]
        assert all(later - earlier >= PAUSE for earlier, later in pairwise(times))
        assert len(mine) <= len(str(count)) + 1
    assert len(lines) == sum(1 for line, _ in lines if any(f"({it})" in line for it in counts))


def test_counts_are_printed_as_they_grow() -> None:
    now = 0.0
    lines: list[str] = []
    settings = Settings(_env_file=None, topic="cpu")
    rejections = Rejections(settings, Warnings(lines.append), lambda: now)
    for offset in range(12_000):
        now += 10
        rejections.add(rejected("not-json", offset))
    assert [line.split(" (")[0] for line in lines] == [
        "warning: offset 0 of partition 2 of the topic 'cpu' is rejected",
        *(f"warning: {count} records are rejected so far" for count in ("10", "100", "1,000")),
        "warning: 10,000 records are rejected so far",
    ]


def test_a_hostile_record_is_one_line_of_bounded_length() -> None:
    lines: list[str] = []
    rejections = Rejections(Settings(_env_file=None, topic="cpu"), Warnings(lines.append))
    rejections.add(rejected("bad", error="\x1b[2J\nerror: all is lost" + "x" * 10_000))
    (line,) = lines
    assert line.isprintable()
    assert len(line) < 500


BAD = [b"nothing", b'{"index": 1}', b"{", b"[]"]


@pytest.mark.parametrize("bad", [[b"{"], [b"\x00\x00", b"[1, 2]"], BAD])
def test_a_topic_of_which_nothing_can_be_used_does_not_end_without_a_word(
    run_flow: Flow, brokers: str, topic: str, bad: list[bytes]
) -> None:
    records = [(None, bad[number % len(bad)]) for number in range(60)]
    fill_topic(brokers, topic, list(records), partitions=1)
    done = run_flow(brokers=brokers, topic=topic, detector="tutorial", follow="false")
    assert done.returncode == 1
    created, *first, last, error = done.stderr.splitlines()
    assert error.startswith(f"error: none of the 60 records of {topic} could be used: run `python")
    assert created.startswith("created the topic")
    assert all(line.startswith("warning: offset ") and " is rejected (" in line for line in first)
    assert 1 <= len(first) <= len(bad)
    assert last.startswith("warning: 60 of 60 records were rejected (not-")
    assert f"see the topic '{topic}.rejected'" in last


def test_a_file_names_the_record_and_the_file_of_rejected_ones(
    run_flow: Flow, tmp_path: Path
) -> None:
    path = write_csv(tmp_path / "metrics.csv", made_rows(instances=1, count=20))
    with path.open("ab") as file:
        file.write(b"20,2024-03-02,-1,host-0\n21,2024-03-02,-2,host-0\n")
    done = run_flow(input=path, detector="tutorial", output="found.jsonl")
    first, last = done.stderr.splitlines()
    assert first.startswith(f"warning: record 20 (from 0) of {path} is rejected (out-of-range): ")
    assert last == (
        "warning: 2 of 22 records were rejected (out-of-range: 2): see the file "
        "found.rejected.jsonl."
    )
    # Where the rejected records themselves go to standard error, it holds nothing else.
    done = run_flow(input=path, detector="tutorial")
    assert [json.loads(line)["reason"] for line in done.stderr.splitlines()] == ["out-of-range"] * 2


def test_a_good_run_says_nothing(run_flow: Flow, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "metrics.csv", made_rows(instances=2, count=400))
    done = run_flow(input=path, detector="tutorial", output="found.jsonl")
    assert (done.returncode, done.stderr) == (0, "")
