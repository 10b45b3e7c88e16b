"""Rejected records that are sent again: the choice, the outcomes, and both on a broker."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import Flow, fill_topic, read_json_lines
from feeds import Row, streams
from hypothesis import given
from hypothesis import strategies as st
from test_flow import found_scores, keyed, made_rows, rivers_anomalies

from dataflow import kafka
from dataflow.errors import UserError
from dataflow.records import Source
from dataflow.recovery.files import initialize
from dataflow.replay import transfer
from dataflow.replay.plan import (
    OUTCOMES,
    Candidate,
    Correctable,
    Item,
    Place,
    choose,
    marker,
    plan,
    read_line,
)
from dataflow.settings import Settings
from dataflow.steps.decode import decoder, key_reader

SETTINGS = Settings(_env_file=None, topic="cpu")
GOOD = b'{"index": 1, "timestamp": "2024-03-01", "value": 50, "instance": "host-0"}'
BAD = b'{"index": 1, "timestamp": "2024-03-01", "value": 150, "instance": "host-0"}'


def refused(
    raw: bytes | None,
    offset: int = 0,
    reason: str = "out-of-range",
    place: Place | None = None,
    topic: str = "cpu",
) -> Candidate:
    text = None if raw is None else base64.b64encode(raw).decode()
    return Candidate(Correctable(reason, "it is too large", Source(topic, 0, offset), text), place)


def decide(candidates: list[Candidate], marks: Any = None, **options: Any) -> list[Item]:
    return list(
        plan(candidates, marks or {}, decoder(SETTINGS), key_reader(SETTINGS), "cpu", **options)
    )


def outcomes(items: list[Item]) -> list[str]:
    return [item.outcome for item in items]


def test_each_record_has_an_outcome() -> None:
    items = decide(
        [
            refused(GOOD, 0),
            refused(BAD, 1),
            refused(None, 2),
            refused(GOOD, 0),
            refused(GOOD, 3, topic="memory"),
            refused(GOOD, 3, topic="data/cpu.csv"),
        ]
    )
    assert outcomes(items) == [
        *("to send", "rejected again", "not replayable"),
        *("from another topic", "to send"),
    ]
    assert (items[0].key, items[0].value) == ("host-0", GOOD)
    assert "outside 0 to 100" in items[1].why


def test_records_that_would_be_rejected_again_are_sent_with_the_option() -> None:
    items = decide([refused(BAD), refused(b"{", 1), refused(None, 2)], even_if_rejected=True)
    assert outcomes(items) == ["to send", "to send", "not replayable"]
    assert [(item.key, item.value) for item in items[:2]] == [("host-0", BAD), (None, b"{")]


def test_raw_bytes_that_are_not_base64_are_not_sent() -> None:
    candidate = refused(GOOD)
    for raw in ("eyJ", "eyJ...", "é"):
        record = Correctable("not-json", "", candidate.rejected.source, raw)
        (item,) = decide([Candidate(record, None)], even_if_rejected=True)
        assert item.outcome == "not replayable"


def test_a_reading_without_bytes_of_its_own_says_where_they_are() -> None:
    source = Source("cpu", 0, 7, 5)
    record = Correctable("too-many-instances", "it is above the limit", source, None)
    (item,) = decide([Candidate(record, None)])
    assert (item.outcome, item.why) == (
        "not replayable",
        "the bytes of its record are kept with another reading of it",
    )


@given(st.binary(max_size=200))
def test_bytes_are_sent_unchanged(raw: bytes) -> None:
    (item,) = decide([refused(raw)], even_if_rejected=True)
    assert item.value == raw


@pytest.mark.parametrize(
    ("place", "mark", "done"),
    [
        (Place(0, 5, 10.0), Place(0, 6, 11.0), True),
        (Place(0, 5, 10.0), Place(0, 4, 11.0), False),
        (Place(0, 5, 10.0), Place(1, 2, 11.0), True),
        (Place(0, 5, 10.0), Place(1, 7, 9.0), False),
        (None, Place(1, 7, 9.0), True),
    ],
)
def test_a_mark_counts_for_records_rejected_before_it(
    place: Place | None, mark: Place, done: bool
) -> None:
    marks = {Source("cpu", 0, 0): [mark]}
    items = decide([refused(GOOD, 0, place=place), refused(GOOD, 1, place=place)], marks)
    assert outcomes(items) == ["already replayed" if done else "to send", "to send"]


def test_the_choice_is_by_reason_and_time() -> None:
    candidates = [
        refused(GOOD, at, reason, Place(0, at, float(at)))
        for at, reason in enumerate(("not-json", "out-of-range", "not-json", "no-value"))
    ]

    def chosen(*choice: Any) -> list[int]:
        return [candidate.rejected.source.offset for candidate in choose(candidates, *choice)]

    assert chosen() == [0, 1, 2, 3]
    assert chosen(frozenset({"not-json"})) == [0, 2]
    assert chosen(frozenset({"not-json", "no-value"}), 1.0) == [2, 3]
    assert chosen(frozenset(), 1.0, 3.0) == [1, 2]


LINE: dict[str, Any] = {
    "reason": "out-of-range",
    "error": "it is too large",
    "source": {"topic": "cpu", "partition": 0, "offset": 4},
    "raw": "e30=",
}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{", "lines.jsonl line 7 is not a rejected record"),
        (
            json.dumps({**LINE, "source": "cpu"}).encode(),
            "lines.jsonl line 7 is not a rejected record",
        ),
        (json.dumps(LINE).encode(), "line 7 has no field 'corrected'"),
        (
            json.dumps({**LINE, "corrected": [1]}).encode(),
            "lines.jsonl line 7 is not an object",
        ),
        (
            json.dumps({**LINE, "corrected": "{}"}).encode(),
            "lines.jsonl line 7 is not an object",
        ),
    ],
)
def test_a_wrong_line_is_named(line: bytes, said: str) -> None:
    with pytest.raises(UserError) as error:
        read_line(line, "lines.jsonl line 7", corrected=True)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("field", ["corrected", "mended"])
def test_a_corrected_object_is_sent_as_written(field: str) -> None:
    """Also under the name that the field had in earlier versions."""
    line = json.dumps(LINE)[:-1].encode() + f', "{field}": '.encode() + GOOD + b"}"
    (item,) = decide([Candidate(read_line(line, "", corrected=True), None)])
    assert (item.outcome, item.key, item.value) == ("to send", "host-0", GOOD)


def test_the_mark_is_a_rejected_record() -> None:
    mark = marker(Source("cpu", 1, 2), "cpu")
    assert (mark.reason, mark.source, mark.raw) == ("replayed", Source("cpu", 1, 2), None)


# On a broker


Run = Callable[..., Any]

QUICK = {"kafka__fetch_wait_max_ms": "10"}
"""Milliseconds after which the broker reports the end of a partition."""


@pytest.fixture
def flow_once(run_flow: Flow, brokers: str, topic: str, tmp_path: Path) -> Callable[[], None]:
    """Run the flow over the new records of the topic, to its end."""
    initialize(tmp_path / "store", 1)

    def run() -> None:
        done = run_flow(
            *("-r", str(tmp_path / "store"), "-s", "1", "-b", "0"),
            brokers=brokers,
            topic=topic,
            detector="tutorial",
            follow="false",
            output="found.jsonl",
        )
        # Status 1 says that nothing of the whole topic could be used.
        unused = "error: none of the" in done.stderr
        assert done.returncode == int(unused), done.stderr

    return run


@pytest.fixture
def held(brokers: str, topic: str) -> Callable[[], tuple[list[Any], list[Any]]]:
    """Read the input topic (keys and raw values) and the rejected topic (records)."""

    def look() -> tuple[list[Any], list[Any]]:
        settings = Settings(_env_file=None, brokers=brokers, kafka={"fetch_wait_max_ms": "10"})
        sent = [
            ((message.key() or b"").decode(), message.value())
            for message in kafka.read_from(settings, topic, {})
        ]
        rejected = kafka.read_from(settings, f"{topic}.rejected", {})
        return sent, [json.loads(message.value() or b"") for message in rejected]

    return look


def numbers(said: str) -> dict[tuple[str, str], int]:
    """The table that the command prints."""
    kinds = {}
    for line in said.splitlines()[1:]:
        for outcome in OUTCOMES:
            if f" {outcome} " in line:
                reason, rest = line.split(outcome, 1)
                kinds[reason.strip(), outcome] = int(rest.split()[0])
    return kinds


def test_corrected_records_are_scored_once_and_a_dry_run_changes_nothing(
    run_command: Run,
    flow_once: Callable[[], None],
    held: Callable[[], Any],
    brokers: str,
    topic: str,
    tmp_path: Path,
) -> None:
    rows = made_rows(instances=1, count=160)
    broken = [{**row, "value": row["value"] + " %"} for row in rows]
    fill_topic(
        brokers,
        topic,
        [*keyed(broken), ("host-0", None)],
    )
    flow_once()
    before = held()
    options = {"brokers": brokers, "topic": topic, **QUICK}

    done = run_command("replay", **options)
    assert done.returncode == 0, done.stderr
    assert numbers(done.stdout) == {
        ("not-a-number", "rejected again"): 160,
        ("no-value", "not replayable"): 1,
    }
    assert done.stdout.endswith("nothing was written: there is nothing to write\n")
    assert held() == before

    _, rejected = before
    lines = []
    for record in rejected:
        if record["raw"] is not None:
            row = json.loads(base64.b64decode(record["raw"]))
            record["corrected"] = {**row, "value": row["value"].removesuffix(" %")}
            lines.append(json.dumps(record))
    (tmp_path / "corrected.jsonl").write_text("\n".join(lines) + "\n")
    done = run_command("replay", "--from-file", "corrected.jsonl", **options)
    assert done.returncode == 0, done.stderr
    assert numbers(done.stdout) == {("not-a-number", "to send"): 160}
    assert done.stdout.endswith(f"nothing was written: --yes writes 160 records to {topic}\n")
    before = held()

    done = run_command("replay", "--from-file", "corrected.jsonl", "--yes", **options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"wrote 160 records to {topic} on {brokers}\n")
    sent, _ = held()
    assert [(key, json.loads(value)) for key, value in sent if (key, value) not in before[0]] == [
        ("host-0", row) for row in rows
    ]

    for arguments in (["--from-file", "corrected.jsonl"], ["--even-if-refused"]):
        done = run_command("replay", "--yes", *arguments, **options)
        assert done.returncode == 0, done.stderr
        assert numbers(done.stdout)["not-a-number", "already replayed"] == 160
        assert done.stdout.endswith(f"wrote 0 records to {topic} on {brokers}\n")
    assert held()[0] == sent

    flow_once()
    expected = rivers_anomalies(rows)
    assert expected
    assert found_scores(read_json_lines(tmp_path / "found.jsonl")) == expected


def test_readings_of_many_are_scored_once_when_their_record_is_sent_again(
    run_flow: Flow,
    run_command: Run,
    held: Callable[[], Any],
    brokers: str,
    topic: str,
    tmp_path: Path,
) -> None:
    """Of a record, what was read before is a repeat, and what was rejected is new."""
    rows = [
        Row(f"i-{host}", 1_741_449_600 + 300 * at, 95.0 if at == 50 else 20.0 + at % 5)
        for at in range(60)
        for host in range(2)
    ]
    broken = streams(Row("i-0", 1_741_449_600 + 300 * 60, 20.0), value={"sum": 5})
    records = [
        b"\n".join(json.dumps(one).encode() for one in [*streams(first), *streams(second)])
        for first, second in zip(rows[::2], rows[1::2], strict=True)
    ]
    records.append(b"\n".join(json.dumps(one).encode() for one in broken))
    fill_topic(brokers, topic, [(None, record) for record in records], partitions=1)
    initialize(tmp_path / "store", 1)
    options = {"brokers": brokers, "topic": topic}

    def flow(instances: int) -> None:
        store = ("-r", str(tmp_path / "store"), "-s", "1", "-b", "0")
        more = {"detector": "tutorial", "follow": "false", "output": "found.jsonl"}
        done = run_flow(*store, max_instances=instances, **options, **more)
        assert done.returncode == 0, done.stderr

    def anomalous() -> set[str]:
        return {one["instance"] for one in read_json_lines(tmp_path / "found.jsonl")}

    flow(1)
    assert anomalous() == {"i-0"}
    before, rejected = held()
    assert sum(one["reason"] == "too-many-instances" for one in rejected) == 60
    assert all(one["raw"] for one in rejected)
    done = run_command("replay", "--yes", **options, **QUICK)
    assert done.returncode == 0, done.stderr
    assert numbers(done.stdout) == {
        ("missing-field", "rejected again"): 1,
        ("too-many-instances", "to send"): 60,
    }
    assert [value for _, value in held()[0][len(before) :]] == records[:60]
    flow(10)
    found = read_json_lines(tmp_path / "found.jsonl")
    times = [(one["instance"], one["timestamp"]) for one in found]
    assert anomalous() == {"i-0", "i-1"}
    assert len(set(times)) == len(times)
    # Both have the same values, so their anomalies are the same.
    assert {time for name, time in times if name == "i-0"} == {
        time for name, time in times if name == "i-1"
    }


def test_raw_records_are_sent_again_by_reason_once_settings_allow_them(
    run_command: Run,
    flow_once: Callable[[], None],
    held: Callable[[], Any],
    brokers: str,
    topic: str,
) -> None:
    fill_topic(
        brokers,
        topic,
        [("host-0", BAD), ("host-0", BAD.replace(b"150", b"250")), (None, b"{"), ("x", b"[]")],
    )
    flow_once()
    before, rejected = held()
    assert len(rejected) == 4
    options = {"brokers": brokers, "topic": topic, "scale": 200, **QUICK}
    arguments = ["replay", "--reason", "out-of-range", "--reason", "not-json"]
    done = run_command(*arguments, "--yes", **options)
    assert done.returncode == 0, done.stderr
    assert numbers(done.stdout) == {
        ("out-of-range", "to send"): 1,
        ("out-of-range", "rejected again"): 1,
        ("not-json", "rejected again"): 1,
    }
    sent, rejected = held()
    assert sorted(sent) == sorted([*before, ("host-0", BAD)])
    assert [record["reason"] for record in rejected[4:]] == ["replayed"]

    done = run_command(*arguments, "--yes", "--even-if-refused", **options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"wrote 2 records to {topic} on {brokers}\n")
    flow_once()
    # All three were rejected again, at other offsets: these are new records.
    assert numbers(run_command("replay", **options).stdout) == {
        ("out-of-range", "to send"): 1,
        ("out-of-range", "already replayed"): 2,
        ("out-of-range", "rejected again"): 1,
        ("not-json", "already replayed"): 1,
        ("not-json", "rejected again"): 1,
        ("not-an-object", "rejected again"): 1,
    }


def test_a_replay_that_dies_or_is_fenced_writes_nothing(
    held: Callable[[], Any], brokers: str, topic: str
) -> None:
    fill_topic(brokers, topic, [])
    fill_topic(brokers, f"{topic}.rejected", [])
    settings = Settings(_env_file=None, brokers=brokers, topic=topic)
    (item,) = decide([refused(GOOD)])
    first = transfer.Sender(settings)
    first.send(item)
    second = transfer.Sender(settings)
    assert transfer.read_marks(settings) == {}
    second.send(item)
    second.commit()
    with pytest.raises(UserError, match="cannot write to the topic"):
        first.commit()
    sent, marks = held()
    assert sent == [("host-0", GOOD)]
    assert [mark["reason"] for mark in marks] == ["replayed"]
    assert list(transfer.read_marks(settings)) == [item.candidate.rejected.source]


def test_a_file_of_rejected_records_and_the_times(
    run_command: Run, held: Callable[[], Any], brokers: str, topic: str, tmp_path: Path
) -> None:
    fill_topic(brokers, topic, [])
    fill_topic(brokers, f"{topic}.rejected", [])
    line = {**LINE, "source": {"topic": "cpu.csv", "partition": 0, "offset": 4}}
    line["raw"] = base64.b64encode(GOOD).decode()
    path = tmp_path / "found.rejected.jsonl"
    path.write_text(json.dumps(line) + "\n")
    options = {"brokers": brokers, "topic": topic, **QUICK}
    for number in (1, 0):
        done = run_command("replay", str(path), "--yes", **options)
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith(f"wrote {number} records to {topic} on {brokers}\n")
        assert held()[0] == [("host-0", GOOD)]

    for arguments, said in (
        ((str(path), "--since", "2024-03-01"), "does not say when its records were rejected"),
        ((str(path), "--from-file", str(path)), "not both"),
        (("--since", "soon"), "--since 'soon' is not a time"),
        (("--from-file", str(path)), "line 1 has no field 'corrected'"),
        (("missing.jsonl",), "cannot read missing.jsonl"),
    ):
        done = run_command("replay", "--yes", *arguments, **options)
        assert done.returncode == 1
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1
    done = run_command("replay", **{**options, "rejected_topic": "no-such"})
    assert (done.returncode, done.stdout) == (1, "")
    assert "ANOMALY_REJECTED_TOPIC" in done.stderr


def moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def test_since_and_until_are_the_time_of_rejection(
    run_command: Run, brokers: str, topic: str
) -> None:
    fill_topic(brokers, topic, [])
    rejected = f"{topic}.rejected"
    fill_topic(brokers, rejected, [])
    producer = kafka.producer(Settings(_env_file=None, brokers=brokers))
    base = int(time.time()) - 3600  # the broker deletes records older than a week
    for number in range(5):
        candidate = refused(GOOD, number, topic=topic).rejected
        record = json.dumps({**LINE, "source": {"topic": topic, "partition": 0, "offset": number}})
        record = record.replace("e30=", candidate.raw or "")
        producer.produce(rejected, record, timestamp=(base + number * 60) * 1000)
    producer.flush()
    options = {"brokers": brokers, "topic": topic, **QUICK}
    for arguments, number in (
        (("--since", moment(base + 120)), 3),
        (("--until", moment(base + 120)), 2),
        (("--since", moment(base + 60), "--until", str(base + 180)), 2),
    ):
        done = run_command("replay", *arguments, **options)
        assert numbers(done.stdout) == {("out-of-range", "to send"): number}, done.stderr
