"""`python -m dataflow verdict`, as people use it: on a file, and on a real broker."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import ConfigResource, ResourceType
from conftest import environment, fill_topic, read_json_lines, read_topic
from test_verdicts import HOUR, NIGHT, anomaly

from dataflow import kafka
from dataflow.cli import main
from dataflow.records import Anomaly, encode
from dataflow.settings import Settings
from dataflow.verdicts.effect import effect, episode_of, trouble_of
from dataflow.verdicts.pattern import pattern_of

Command = Callable[..., str]


def nights() -> list[Anomaly]:
    """Three weeks: each third night the same for an hour, and others between them."""
    found = []
    for day in range(21):
        begins = NIGHT + timedelta(days=day)
        if day % 3 == 0:
            for number in range(13):
                name = f"same-{day}"
                moment = begins + timedelta(minutes=5 * number)
                alert = {"alert": number == 0, "episode": name, "id": f"{name}-{number}"}
                found.append(anomaly(moment, 0.8, why="CPU 80%", **alert))
        else:
            other = {"episode": f"other-{day}", "id": f"other-{day}-0", "why": "CPU 95%"}
            found.append(anomaly(begins + 9 * HOUR, 0.8, **other))
            found.append(anomaly(begins, 1.2, **(other | {"id": f"other-{day}-1"})))
    return found


def test_the_effect_is_that_of_the_last_days_without_the_episode_itself() -> None:
    series = nights()
    episode = episode_of(series, "same-18-4")
    assert [one.id for one in episode] == [f"same-18-{number}" for number in range(13)]
    assert episode_of(series, "same-18") == episode
    assert episode_of(series, "same") == []
    found = effect(pattern_of(episode), {"same-18"}, series)
    # The newest anomaly is of day 20, 11:00: what came after 11:00 of day 6 counts.
    assert (found.quieted, found.quiet) == (4, 4 * 13)
    assert [loss.first.id for loss in found.lost] == ["same-9-0", "same-12-0", "same-15-0"]
    assert [loss[1:] for loss in found.lost] == [(13, 13, 1, 1)] * 3
    last = [one for one in series if one.timestamp and str(one.timestamp) >= "2026-03-16T12"]
    assert found.anomalies == len(last)
    assert found.alerts == sum(one.alert for one in last)


def test_what_only_follows_a_trouble_is_a_part_of_it() -> None:
    trouble = [anomaly(NIGHT, 0.8, id="1", episode="a")]
    rest = [
        anomaly(NIGHT + hour * HOUR, 0.2, id=f"{hour}", episode=f"{hour}", alert=False)
        for hour in (2, 4, 7)
    ]
    series = [*trouble, *rest]
    assert trouble_of(series, "4") == series[:3]
    assert trouble_of(series, "7") == series[3:]
    assert trouble_of(series, "7", interval=1800) == series
    assert trouble_of(series, "a") == trouble


def lines(anomalies: list[Anomaly]) -> str:
    return "".join(f"{encode(one).decode()}\n" for one in anomalies)


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Run a command in this process: what it prints, or its error."""

    def run(*words: str, **settings: str) -> str:
        for name, value in settings.items():
            monkeypatch.setenv(f"ANOMALY_{name.upper()}", value)
        monkeypatch.setattr(sys, "argv", ["ec2-anomaly", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr().out
        return said if not ended.value.code else f"{ended.value}"

    monkeypatch.chdir(tmp_path)
    return run


def test_a_verdict_is_written_to_a_file_listed_and_undone(command: Command, tmp_path: Path) -> None:
    others = [anomaly(NIGHT, 0.9, instance="web-2", id="other", episode="other")]
    (tmp_path / "found.jsonl").write_text("no record\n" + lines([*others, *nights()]))
    settings = {"output": "found.jsonl", "verdicts": "said.jsonl", "input": "cpu.csv"}
    shown = command("verdict", "same-18", "fine", **settings)
    assert "4 of 24 alerts and 52 of 72 anomalies" in shown
    assert "Besides this episode, it touches 3:" in shown
    assert "same-9-0" in shown
    assert "nothing was written: --yes writes it to said.jsonl" in shown
    assert not (tmp_path / "said.jsonl").exists()

    words = ("verdict", "same-18", "fine", "--until", "30d", "--by", "anna", "--yes")
    assert command(*words).endswith("wrote fine for same-18 to said.jsonl\n")
    (record,) = read_json_lines(tmp_path / "said.jsonl")
    assert (record["id"], record["verdict"], record["by"]) == ("same-18", "fine", "anna")
    assert record["pattern"]["since"] == "2026-03-28T02:00:00Z"
    assert record["pattern"]["until"] == "2026-03-28T03:00:00Z"
    assert record["until"].endswith("Z")
    assert record["why"] == "CPU 80%"
    listed = command("verdict", "list")
    assert "same-18" in listed
    assert "anna" in listed

    assert "wrote undo for same-18" in command("verdict", "same-18", "undo", "--yes")
    assert "no verdict is in force" in command("verdict", "list")
    assert [one["verdict"] for one in read_json_lines(tmp_path / "said.jsonl")] == ["fine", "undo"]


@pytest.mark.parametrize(
    ("words", "settings", "reason"),
    [
        (["5", "fine"], {"verdicts": ""}, "no verdicts are kept: set ANOMALY_VERDICTS"),
        (["5"], {}, "a verdict is missing"),
        (["5", "good"], {}, "'good' is no verdict"),
        (["5", "undo", "--until", "3d"], {}, "--until belongs to `fine`"),
        (["same-18", "fine", "--until", "soon"], {}, "--until soon is not a time"),
        (["5", "fine"], {}, "no anomaly and no incident of anomalies has the id 5"),
        (["5", "undo"], {}, "no verdict on 5 is in force"),
        (["none", "fine"], {}, "none has no pattern to keep quiet: it has no expected value"),
        (["5", "fine"], {"output": "stdout", "input": "cpu.csv"}, "anomalies go to stdout"),
        (["5", "fine"], {"output": "away.jsonl"}, "away.jsonl does not exist"),
        (["5", "fine"], {"verdicts": "away/said.jsonl"}, "its folder is missing"),
        (["5", "fine"], {"time_field": "none"}, "ANOMALY_VERDICTS needs readings with a time"),
    ],
)
def test_what_cannot_be_said_is_one_line(
    words: list[str], settings: dict[str, Any], reason: str, command: Command, tmp_path: Path
) -> None:
    unknown = anomaly(NIGHT, 0.9, expected=None, id="none", episode="none")
    (tmp_path / "found.jsonl").write_text(lines([*nights(), unknown]))
    where = {"output": "found.jsonl", "verdicts": "said.jsonl", **settings}
    assert reason in command("verdict", *words, "--yes", **where)
    assert not (tmp_path / "said.jsonl").exists()


def test_a_terminal_asks(tmp_path: Path) -> None:
    (tmp_path / "found.jsonl").write_text(lines(nights()))
    for answer, written in ((b"n\n", False), (b"y\n", True)):
        ours, theirs = pty.openpty()
        done = subprocess.Popen(
            [sys.executable, "-m", "dataflow", "verdict", "same-18", "fine"],
            cwd=tmp_path,
            env=environment(output="found.jsonl", verdicts="said.jsonl"),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        os.write(ours, answer)
        said = b""
        while True:
            try:
                some = os.read(ours, 1000)
            except OSError:  # the program has ended
                break
            said += some
        assert done.wait(60) == 0, said
        os.close(ours)
        assert b"Write it to said.jsonl?" in said
        assert (tmp_path / "said.jsonl").exists() == written


def test_a_verdict_is_written_to_a_compacted_topic(
    brokers: str, topic: str, command: Command
) -> None:
    settings = {
        "brokers": brokers,
        "output": "kafka",
        "topic": topic,
        "anomalies_topic": f"{topic}-found",
        "verdicts": f"{topic}-said",
    }
    missing = command("verdict", "same-18", "fine", "--yes", **settings)
    assert f"the topic '{topic}-said' does not exist" in missing
    assert f"created {topic}-said with 1 partition on" in command("topics")
    assert "nothing changed" in command("topics")
    fill_topic(brokers, f"{topic}-found", [(one.instance, encode(one)) for one in nights()])
    said = command("verdict", "same-18", "fine", "--yes")
    assert "4 of 24 alerts and 52 of 72 anomalies" in said
    assert "wrote real for same-18" in command("verdict", "same-18", "real", "--yes")
    written = read_topic(brokers, f"{topic}-said")
    assert [(key, one["verdict"]) for key, one in written] == [
        ("same-18", "fine"),
        ("same-18", "real"),
    ]
    assert command("verdict", "list") == f"no verdict is in force in {topic}-said\n"
    admin = kafka.admin(Settings(_env_file=None, brokers=brokers))
    wanted = ConfigResource(ResourceType.TOPIC, f"{topic}-said")
    config = admin.describe_configs([wanted])[wanted].result(30)
    assert config["cleanup.policy"].value == "compact"
