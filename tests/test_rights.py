"""The rights on the page suffice, and each one that is missing is one line at the start."""

from __future__ import annotations

import argparse
import re
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)
from conftest import REPOSITORY, Flow, fill_topic, read_topic
from kafka_server import ApacheKafka
from test_flow import keyed, made_rows

from dataflow import kafka
from dataflow.commands.dashboard import feed_of
from dataflow.commands.topics import topics as command
from dataflow.demo import producer
from dataflow.errors import UserError
from dataflow.flow import build
from dataflow.kafka import topics
from dataflow.notify import process
from dataflow.notify.silence_watch import watch_of
from dataflow.notify.targets import targets
from dataflow.recovery.files import initialize
from dataflow.recovery.store import Store
from dataflow.replay import transfer
from dataflow.settings import Settings
from dataflow.steps import score

RESOURCES = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional_id": ResourceType.TRANSACTIONAL_ID,
}


def page() -> dict[str, list[str]]:
    """The commands of the page by the word in bold before them."""
    text = (REPOSITORY / "docs" / "operations.md").read_text()
    section = text.partition("## Rights (ACLs)")[2].partition("\n## ")[0]
    found = re.findall(r"^\*\*(\w+)\*\*.*?^```text\n(.*?)^```$", section, re.M | re.S)
    return {name: block.strip().splitlines() for name, block in found}


def bindings(command: str, topic: str) -> list[AclBinding]:
    """What one of the page's commands grants, for a test's topics and its user."""
    parser = argparse.ArgumentParser()
    for flag in ("--bootstrap-server", "--command-config", "--allow-principal"):
        parser.add_argument(flag, required=flag != "--command-config")
    parser.add_argument("--add", action="store_true", required=True)
    parser.add_argument("--operation", action="append", required=True)
    parser.add_argument("--resource-pattern-type", default="literal")
    for resource in RESOURCES:
        parser.add_argument(f"--{resource.replace('_', '-')}", action="append", default=[])
    program, *words = shlex.split(command)
    assert program == "kafka-acls.sh"
    given = parser.parse_args(words)
    assert given.allow_principal == "User:anomaly"
    return [
        AclBinding(
            kind,
            name.replace("ec2_metrics", topic)
            .replace("anomalies", f"{topic}.out")
            .replace("incidents", f"{topic}.incidents")
            .replace("verdicts", f"{topic}.verdicts"),
            ResourcePatternType[given.resource_pattern_type.upper()],
            f"User:{ApacheKafka.limited}",
            "*",
            AclOperation[operation.upper()],
            AclPermissionType.ALLOW,
        )
        for resource, kind in RESOURCES.items()
        for name in getattr(given, resource)
        for operation in given.operation
    ]


@pytest.fixture
def user(apache_kafka: ApacheKafka, topic: str) -> Iterator[User]:
    """A user without rights, and topics to get rights to."""
    made = ("", 3), (".out", 1), (".incidents", 1), (".rejected", 1), (".verdicts", 1)
    for name, count in made:
        topics.create(Settings(_env_file=None, brokers=apache_kafka.address), [topic + name], count)
    user = User(apache_kafka, topic)
    yield user
    user.revoke_all()


class User:
    def __init__(self, broker: ApacheKafka, topic: str) -> None:
        self.broker = broker
        self.topic = topic
        self._admin = kafka.admin(Settings(_env_file=None, brokers=broker.address))

    def settings(self, **changed: Any) -> Settings:
        return Settings(_env_file=None, **{**self.options(), **changed})

    def options(self) -> dict[str, Any]:
        return {
            "brokers": self.broker.sasl_address,
            "topic": self.topic,
            "anomalies_topic": f"{self.topic}.out",
            "incidents_topic": f"{self.topic}.incidents",
            "rejected_topic": f"{self.topic}.rejected",
            "output": "kafka",
            "detector": "tutorial",
            "kafka": {
                "security_protocol": "SASL_SSL",
                "ssl_ca_location": str(self.broker.ca_file),
                "sasl_mechanism": "PLAIN",
                "sasl_username": self.broker.limited,
                "sasl_password": self.broker.password,
            },
        }

    def environment(self, **changed: Any) -> dict[str, Any]:
        options = {**self.options(), **changed}
        client = {f"kafka__{name}": value for name, value in options.pop("kafka").items()}
        return {**options, **client}

    def grant(self, granted: list[AclBinding]) -> None:
        """Grant exactly these rights, and wait until the broker knows."""
        self.revoke_all()
        for done in self._admin.create_acls(granted).values() if granted else ():
            done.result()
        self._await({str(it) for it in granted})

    def revoke_all(self) -> None:
        mine = self._filter()
        for done in self._admin.delete_acls([mine]).values():
            done.result()
        self._await(set())

    def _await(self, wanted: set[str]) -> None:
        deadline = time.monotonic() + 120
        while {str(it) for it in self._admin.describe_acls(self._filter()).result()} != wanted:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def _filter(self) -> AclBindingFilter:
        return AclBindingFilter(
            ResourceType.ANY,
            None,
            ResourcePatternType.ANY,
            f"User:{self.broker.limited}",
            None,
            AclOperation.ANY,
            AclPermissionType.ANY,
        )


def granted(name: str, topic: str, *more: str) -> list[AclBinding]:
    return [it for part in (name, *more) for line in page()[part] for it in bindings(line, topic)]


def flow_starts(user: User, folder: Path | None, **changed: Any) -> None:
    """Do what the flow does before it reads, with a new store in the folder."""
    options = user.settings(follow=False, **changed)
    detector = score.detector(options)
    store = None
    if folder is not None:
        initialize(folder, 1)
        store = Store(folder, options, score.form_of_states(detector), 0)
    build(options, detector, store)


def test_the_flow_needs_each_of_its_rights(user: User, tmp_path: Path) -> None:
    rights = granted("flow", user.topic, "incidents")
    assert len(rights) == 8
    user.grant(rights)
    flow_starts(user, tmp_path / "all", incidents=True)
    for number, right in enumerate(rights):
        user.grant([it for it in rights if it != right])
        with pytest.raises(UserError) as error:
            flow_starts(user, tmp_path / str(number), incidents=True)
        line = str(error.value)
        assert "\n" not in line
        assert f"no right to {right.operation.name}" in line
        assert f"--operation {right.operation.name.title()}" in line
        assert ("the transactional id" if right.name == "*" else repr(right.name)) in line


def test_a_flow_without_a_store_writes_only(user: User) -> None:
    rights = [
        it
        for it in granted("flow", user.topic)
        if it.name == user.topic or (it.operation == AclOperation.WRITE and it.name != "*")
    ]
    assert len(rights) == 3
    user.grant(rights)
    flow_starts(user, None)


def test_a_flow_with_the_rights_of_the_page(
    run_flow: Flow, user: User, store: Path, apache_kafka: ApacheKafka
) -> None:
    rows = made_rows(2, 300)
    fill_topic(
        apache_kafka.address,
        user.topic,
        [*keyed(rows), (None, b"{")],
    )
    user.grant(granted("flow", user.topic, "incidents"))
    settings = user.environment(incidents="true", follow="false", threshold=0.5)
    done = run_flow("-w", "2", "-r", str(store), "-s", "1", "-b", "0", **settings)
    assert done.returncode == 0
    assert "right" not in done.stderr
    assert all("reject" in line for line in done.stderr.splitlines())
    assert read_topic(apache_kafka.address, f"{user.topic}.out")
    assert len(read_topic(apache_kafka.address, f"{user.topic}.rejected")) == 1


def replay_starts(user: User) -> None:
    transfer.check_topics(user.settings(), from_topic=True, write=True)
    transfer.Sender(user.settings())


def notify_starts(user: User) -> None:
    process.run(user.settings(notify_webhook="http://127.0.0.1:1/", follow=False))


def silences_start(user: User) -> None:
    address, verdicts = "http://127.0.0.1:1/", f"{user.topic}.verdicts"
    settings = user.settings(notify_silences=True, notify_alertmanager=address, verdicts=verdicts)
    watch_of(settings, targets(settings), threading.Event())


STARTS: dict[str, Callable[[User], object]] = {
    "notify": notify_starts,
    "silences": silences_start,
    "replay": replay_starts,
    "dashboard": lambda user: feed_of(user.settings(), 100, None),
    "produce": lambda user: producer.prepare_topic(user.settings(), 3),
}


@pytest.mark.parametrize("command", STARTS)
def test_a_command_needs_each_of_its_rights(user: User, command: str) -> None:
    rights = granted(command, user.topic)
    user.grant(rights)
    STARTS[command](user)
    for right in rights:
        user.grant([it for it in rights if it != right])
        with pytest.raises(UserError, match=r"the user has no right to [^\n]*$") as error:
            STARTS[command](user)
        # Without the right to write, the user does not see that the topic exists.
        operation = "CREATE" if command == "produce" else right.operation.name
        assert operation in str(error.value)


def test_topics_needs_each_of_its_rights(
    user: User, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "dataflow.settings.load", lambda: user.settings(topic=f"{user.topic}.new", incidents=True)
    )
    rights = granted("topics", user.topic)
    for operation, lacks in (("DESCRIBE", "CREATE"), ("CREATE", "DESCRIBE")):
        right = AclBinding(
            *(ResourceType.TOPIC, f"{user.topic}.new", ResourcePatternType.LITERAL),
            *(f"User:{ApacheKafka.limited}", "*"),
            *(AclOperation[operation], AclPermissionType.ALLOW),
        )
        user.grant([*rights, right])
        with pytest.raises(UserError, match=f"no right to {lacks}.*--operation {lacks.title()}"):
            command(3)
