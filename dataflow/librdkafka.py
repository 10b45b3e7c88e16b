"""The settings of librdkafka that a user cannot set, or only within limits, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["check", "passed_on", "warnings"]

_TRUE = ("true", "t", "1")
_FALSE = ("false", "f", "0")


@dataclass(frozen=True)
class _Rule:
    """What is wrong with a setting, and what to do. No value is allowed unless one is named."""

    why: str
    do: str = "remove it"
    allowed: tuple[str, ...] = ()
    least: int | None = None
    most: int | None = None

    def allows(self, value: str) -> bool:
        if self.least is None or self.most is None:
            return value.strip().lower() in self.allowed
        text = value.strip()
        return text.isascii() and text.isdigit() and self.least <= int(text) <= self.most


_OWN_BROKERS = _Rule("contradicts ANOMALY_BROKERS", "remove it, and set ANOMALY_BROKERS")
_OFFSETS = "would let a broker's copy of the offsets decide what is read"
_NO_GROUP = "has no use, because no client joins a consumer group"
_MOCK = "replaces the broker by one that keeps nothing"
_RUNS_CODE = "loads a library, so that whoever sets it runs code"
_LOSES = "loses records that the broker did not keep"
_REPEATS = "lets a retry repeat or reorder records"
_OUTLASTS = "lets a delivery outlast the flow's wait for it"
_AT_MOST = "remove it, or set {least} to {most}"

_RULES = {
    # What is read.
    "bootstrap.servers": _OWN_BROKERS,
    "metadata.broker.list": _OWN_BROKERS,
    "group.id": _Rule(
        "would give all notification targets one position in the topic, and the flow needs no group"
    ),
    "group.instance.id": _Rule(_NO_GROUP),
    "group.protocol": _Rule(_NO_GROUP),
    "group.protocol.type": _Rule(_NO_GROUP),
    "group.remote.assignor": _Rule(_NO_GROUP),
    "partition.assignment.strategy": _Rule(
        "has no use, because the flow assigns partitions itself",
        "remove it, and set ANOMALY_PARTITIONS",
    ),
    "enable.auto.commit": _Rule(_OFFSETS, allowed=_FALSE),
    "auto.commit.enable": _Rule(_OFFSETS, allowed=_FALSE),
    "offset.store.method": _Rule(_OFFSETS),
    "offset.store.path": _Rule(_OFFSETS),
    "auto.offset.reset": _Rule(
        "would skip records in silence when an offset no longer exists", allowed=("error",)
    ),
    "isolation.level": _Rule(
        "would read records of transactions that were aborted", allowed=("read_committed",)
    ),
    "enable.partition.eof": _Rule("hides or adds the end of a topic, which the flow looks for"),
    "topic.blacklist": _Rule("hides topics"),
    "allow.auto.create.topics": _Rule(
        "creates a topic whose name is mistyped",
        "remove it, and create topics with `python -m dataflow topics`",
        allowed=_FALSE,
    ),
    # What is written.
    "acks": _Rule(_LOSES, allowed=("all", "-1")),
    "request.required.acks": _Rule(_LOSES, allowed=("all", "-1")),
    "enable.idempotence": _Rule(_REPEATS, allowed=_TRUE),
    "enable.gapless.guarantee": _Rule("is experimental", allowed=_FALSE),
    "transactional.id": _Rule(
        "would let two flows end each other, because the id belongs to the recovery store"
    ),
    "transaction.timeout.ms": _Rule(
        "holds up all readers after a crash, or ends a transaction that is still written",
        _AT_MOST,
        least=10_000,
        most=60_000,
    ),
    "message.timeout.ms": _Rule(_OUTLASTS, _AT_MOST, (), 1, 15_000),
    "delivery.timeout.ms": _Rule(_OUTLASTS, _AT_MOST, (), 1, 15_000),
    "linger.ms": _Rule("holds back anomalies", _AT_MOST, (), 0, 1_000),
    "queue.buffering.max.ms": _Rule("holds back anomalies", _AT_MOST, (), 0, 1_000),
    "partitioner": _Rule(
        "must keep the records of an instance in one partition",
        "remove it, or set murmur2_random",
        allowed=(
            *("murmur2_random", "murmur2", "consistent_random", "consistent"),
            *("fnv1a_random", "fnv1a"),
        ),
    ),
    "delivery.report.only.error": _Rule(
        "hides which records the broker has confirmed", allowed=_FALSE
    ),
    # What the client is.
    "plugin.library.paths": _Rule(_RUNS_CODE),
    "ssl.engine.location": _Rule(_RUNS_CODE),
    "ssl.engine.id": _Rule(_RUNS_CODE),
    "ssl.providers": _Rule(
        _RUNS_CODE,
        "remove it, or set default or default,legacy",
        allowed=("default", "legacy", "default,legacy", "legacy,default", "fips", "fips,base"),
    ),
    "sasl.kerberos.kinit.cmd": _Rule("runs a command, so that whoever sets it runs code"),
    "test.mock.num.brokers": _Rule(_MOCK),
    "test.mock.broker.rtt": _Rule(_MOCK),
    "logger": _Rule("is not a setting of librdkafka"),
    "default.topic.config": _Rule(
        "is not one setting", "give each setting of a topic a variable of its own"
    ),
}

_SHELL = ("sasl.kerberos.keytab", "sasl.kerberos.principal", "sasl.kerberos.service.name")
"""librdkafka puts these into the command line of `kinit`, which a shell runs."""

_DECIDED = {"isolation.level", "auto.offset.reset", "enable.auto.commit", "auto.commit.enable"} | {
    "allow.auto.create.topics",
    "acks",
    "request.required.acks",
    "enable.idempotence",
}
"""Settings of which only the value that holds anyway is allowed: a client that needs another one
for a single question, such as where a topic ends, keeps its own."""

_INSECURE = {
    "enable.ssl.certificate.verification": (
        _FALSE,
        "turns off the check of the broker's certificate, so that anyone on the way can read and "
        "change records: set ANOMALY_KAFKA__SSL_CA_LOCATION instead",
    ),
    "ssl.endpoint.identification.algorithm": (
        ("none",),
        "turns off the check of the broker's name, so that anyone with a certificate of the same "
        "authority can read and change records: use a certificate with the broker's name",
    ),
}


def check(settings: Mapping[str, str]) -> str | None:
    """Return what is wrong with the first setting that is not allowed, in one line, or None.

    >>> check({"acks": "all", "client.id": "mine"})
    >>> check({"acks": "1"})
    'ANOMALY_KAFKA__ACKS=1 loses records that the broker did not keep: remove it'
    """
    for name, value in sorted(settings.items()):
        rule = _RULES.get(name)
        if rule is not None and not rule.allows(value):
            shown = f"={value}" if rule.allowed or rule.most is not None else ""
            todo = rule.do.format(least=rule.least, most=rule.most)
            return f"{_variable(name)}{shown!s} {rule.why}: {todo}"
        if name in _SHELL and not all(it.isalnum() or it in "/._@-:" for it in value):
            return (
                f"{_variable(name)} holds a character that a shell may run: use letters, digits "
                "and / . _ @ - : only"
            )
    return None


def passed_on(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the settings without those of which only one value is allowed."""
    return {name: value for name, value in settings.items() if name not in _DECIDED}


def warnings(settings: Mapping[str, str]) -> list[str]:
    """Return a line for each setting that is allowed and makes the connection insecure.

    >>> [line.partition(" ")[0] for line in warnings({"enable.ssl.certificate.verification": "0"})]
    ['ANOMALY_KAFKA__ENABLE_SSL_CERTIFICATE_VERIFICATION=0']
    """
    return [
        f"{_variable(name)}={settings[name]} {why}"
        for name, (values, why) in _INSECURE.items()
        if settings.get(name, "").strip().lower() in values
    ]


def _variable(name: str) -> str:
    return f"ANOMALY_KAFKA__{name.upper().replace('.', '_')}"
