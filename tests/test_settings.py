from __future__ import annotations

import itertools
import os
import re
from pathlib import Path

import pytest
from conftest import REPOSITORY

from dataflow import kafka
from dataflow.errors import UserError
from dataflow.settings import PREFIX, Settings, load


def test_defaults_are_those_of_the_documentation() -> None:
    settings = load()
    assert settings.brokers == "localhost:9092"
    assert settings.topic == "ec2_metrics"
    assert settings.rejected_topic == "ec2_metrics.rejected"
    assert settings.anomalies_topic == "anomalies"
    assert settings.outputs == ("stdout",)
    assert settings.follow
    assert settings.scale == 100
    assert settings.threshold is None
    assert settings.partitions is None


def test_environment_wins_over_the_env_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("ANOMALY_TOPIC=from_file\nANOMALY_SEED=7\nOTHER=ignored\n")
    monkeypatch.setenv("ANOMALY_TOPIC", "from_environment")
    settings = load()
    assert (settings.topic, settings.seed) == ("from_environment", 7)
    assert settings.rejected_topic == "from_environment.rejected"


def test_scale_none_and_partitions_and_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANOMALY_SCALE", "none")
    monkeypatch.setenv("ANOMALY_DETECTOR", "zscore")
    monkeypatch.setenv("ANOMALY_PARTITIONS", "2, 0,2")
    monkeypatch.setenv("ANOMALY_OUTPUT", "stdout, kafka,found.jsonl")
    settings = load()
    assert settings.scale is None
    assert settings.partitions == (0, 2)
    assert settings.outputs == ("stdout", "kafka", "found.jsonl")


def test_a_key_and_a_time_may_be_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANOMALY_KEY_FIELD", "none")
    monkeypatch.setenv("ANOMALY_TIME_FIELD", "None")
    monkeypatch.setenv("ANOMALY_TOPIC", "raw-data")
    settings = load()
    assert (settings.key_field, settings.time_field) == (None, None)
    assert settings.only_instance == "raw-data"
    assert load(input="/some/where/wave.2.csv").only_instance == "wave.2"
    assert load(key_field="host").only_instance is None


def test_readings_may_be_counted_by_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANOMALY_TIME_FIELD", "at")
    monkeypatch.setenv("ANOMALY_INDEX_FIELD", "at")
    assert load().index_field == "at"


@pytest.mark.parametrize(
    ("name", "other"),
    [("INDEX", "VALUE"), ("INDEX", "KEY"), ("TIME", "VALUE"), ("TIME", "KEY"), ("VALUE", "KEY")],
)
def test_one_field_cannot_be_two_things(
    monkeypatch: pytest.MonkeyPatch, name: str, other: str
) -> None:
    monkeypatch.setenv(f"ANOMALY_{name}_FIELD", "x")
    monkeypatch.setenv(f"ANOMALY_{other}_FIELD", "x")
    with pytest.raises(UserError, match="both name the field 'x'") as refusal:
        load()
    assert f"ANOMALY_{name}_FIELD" in str(refusal.value)
    assert f"ANOMALY_{other}_FIELD" in str(refusal.value)


def test_librdkafka_settings_get_their_dots_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANOMALY_KAFKA__SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("ANOMALY_KAFKA__SASL_PASSWORD", "12345")
    settings = load()
    assert settings.kafka == {"security.protocol": "SASL_SSL", "sasl.password": "12345"}
    assert "12345" not in repr(settings)


def refusal(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> str:
    """The line that refuses a setting."""
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(UserError) as error:
        load()
    line = str(error.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("TOPIK", "cpu", "ANOMALY_TOPIK is not a setting: did you mean ANOMALY_TOPIC?"),
        ("FOLLOW", "perhaps", "ANOMALY_FOLLOW must be a valid boolean"),
        ("THRESHOLD", "1.5", "ANOMALY_THRESHOLD must be less than or equal to 1"),
        ("THRESHOLD", "nan", "ANOMALY_THRESHOLD must be"),
        ("DETECTOR", "magic", "does not exist: use one of calibrated, tutorial, zscore, rcf, "),
        ("DETECTOR", "mine:Jump", "cannot be imported (No module named 'mine')"),
        ("DETECTOR", "collections:OrderedDict", "is not a detector: subclass"),
        ("OUTPUT", "out.txt", "ANOMALY_OUTPUT names the output 'out.txt', which does not exist"),
        ("OUTPUT", "stdout,stdout", "ANOMALY_OUTPUT names the same output twice"),
        ("OUTPUT", "a.jsonl,b.jsonl", "ANOMALY_OUTPUT names two files"),
        ("INPUT", "metrics.parquet", "ANOMALY_INPUT must be `kafka`, or a path"),
        ("PARTITIONS", "0,x", "ANOMALY_PARTITIONS must be partition numbers"),
        ("SCALE", "0", "ANOMALY_SCALE must be greater than 0"),
        ("SCALE", "inf", "ANOMALY_SCALE must be"),
        ("INTERVAL", "-5", "ANOMALY_INTERVAL must be greater than 0"),
        ("KAFKA", "{", "ANOMALY_KAFKA"),
        ("KEY_FIELD", "", "at least 1 character"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    assert said in refusal(monkeypatch, name, value)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ACKS", "1", "loses records that the broker did not keep"),
        ("REQUEST_REQUIRED_ACKS", "0", "loses records"),
        ("ENABLE_IDEMPOTENCE", "false", "repeat or reorder"),
        ("ENABLE_IDEMPOTENCE", "F", "repeat or reorder"),
        ("LINGER_MS", "20000", "remove it, or set 0 to 1000"),
        ("QUEUE_BUFFERING_MAX_MS", "20000", "remove it, or set 0 to 1000"),
        ("MESSAGE_TIMEOUT_MS", "0", "remove it, or set 1 to 15000"),
        ("DELIVERY_TIMEOUT_MS", "300000", "remove it, or set 1 to 15000"),
        ("TRANSACTION_TIMEOUT_MS", "900000", "remove it, or set 10000 to 60000"),
        ("TRANSACTIONAL_ID", "mine", "belongs to the recovery store"),
        ("GROUP_ID", "mine", "one position"),
        ("GROUP_PROTOCOL", "consumer", "no client joins"),
        ("PARTITION_ASSIGNMENT_STRATEGY", "range", "ANOMALY_PARTITIONS"),
        ("ENABLE_AUTO_COMMIT", "true", "offsets"),
        ("AUTO_OFFSET_RESET", "latest", "skip records in silence"),
        ("AUTO_OFFSET_RESET", "earliest", "skip records in silence"),
        ("ISOLATION_LEVEL", "read_uncommitted", "transactions that were aborted"),
        ("ENABLE_PARTITION_EOF", "true", "end of a topic"),
        ("ENABLE_GAPLESS_GUARANTEE", "true", "experimental"),
        ("BOOTSTRAP_SERVERS", "other:9092", "contradicts ANOMALY_BROKERS"),
        ("METADATA_BROKER_LIST", "other:9092", "contradicts ANOMALY_BROKERS"),
        ("ALLOW_AUTO_CREATE_TOPICS", "true", "mistyped"),
        ("PARTITIONER", "random", "murmur2_random"),
        ("DELIVERY_REPORT_ONLY_ERROR", "true", "confirmed"),
        ("PLUGIN_LIBRARY_PATHS", "/tmp/evil.so", "runs code"),
        ("SSL_ENGINE_LOCATION", "/tmp/evil.so", "runs code"),
        ("SSL_PROVIDERS", "/tmp/evil.so", "runs code"),
        ("SASL_KERBEROS_KINIT_CMD", "touch /tmp/x", "runs code"),
        ("SASL_KERBEROS_PRINCIPAL", "a; touch /tmp/x", "a shell may run"),
        ("TEST_MOCK_NUM_BROKERS", "3", "keeps nothing"),
        ("LOGGER", "x", "not a setting of librdkafka"),
    ],
)
def test_a_librdkafka_setting_against_the_guarantee_is_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    line = refusal(monkeypatch, f"KAFKA__{name}", value)
    assert line.startswith(f"{PREFIX}KAFKA__{name}")
    assert said in line


def test_librdkafka_settings_in_one_variable_are_held_to_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(f"{PREFIX}KAFKA", '{"group.id": "mine"}')
    with pytest.raises(UserError, match="ANOMALY_KAFKA__GROUP_ID would give"):
        load()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("acks", "all"), ("acks", "-1"), ("enable.idempotence", "True")),
        *(
            ("linger.ms", "100"),
            ("message.timeout.ms", "5000"),
            ("isolation.level", "READ_COMMITTED"),
        ),
        *(("compression.type", "lz4"), ("ssl.providers", "default,legacy"), ("client.id", "me")),
        ("sasl.kerberos.principal", "anomaly/host.example@EXAMPLE.COM"),
    ],
)
def test_other_librdkafka_settings_are_passed_on(name: str, value: str) -> None:
    settings = Settings(_env_file=None, brokers="127.0.0.1:1", kafka={name: value})
    for make in (kafka.producer, kafka.consumer, kafka.admin):
        make(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("no.such", "1"), ("security.protocol", "TSL"), ("retries", "0")),
        *(("queuing.strategy", "lifo"), ("max.in.flight", "6"), ("fetch.max.bytes", "x")),
    ],
)
def test_what_librdkafka_rejects_is_one_line(name: str, value: str) -> None:
    settings = Settings(_env_file=None, brokers="127.0.0.1:1", kafka={name: value})
    with pytest.raises(UserError, match=r"librdkafka rejects the settings ANOMALY_KAFKA__\* \(.*"):
        kafka.producer(settings)


def test_a_setting_that_makes_the_connection_insecure_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(f"{PREFIX}KAFKA__ENABLE_SSL_CERTIFICATE_VERIFICATION", "false")
    load()
    (line,) = capsys.readouterr().err.splitlines()
    name = "ANOMALY_KAFKA__ENABLE_SSL_CERTIFICATE_VERIFICATION"
    assert line.startswith(f"warning: {name}=false turns off the check ")


TOPICS = ("TOPIC", "ANOMALIES_TOPIC", "REJECTED_TOPIC", "INCIDENTS_TOPIC")


@pytest.mark.parametrize(("one", "other"), [*itertools.combinations(TOPICS, 2)])
def test_no_two_topics_are_the_same(monkeypatch: pytest.MonkeyPatch, one: str, other: str) -> None:
    monkeypatch.setenv(PREFIX + one, "cpu")
    monkeypatch.setenv(PREFIX + other, "cpu")
    with pytest.raises(UserError, match="both name the topic 'cpu': give them different") as error:
        load()
    assert {f"{PREFIX}{one}", f"{PREFIX}{other}"} <= set(str(error.value).split())


@pytest.mark.parametrize(
    ("name", "value", "other"),
    [
        ("TOPIC", "anomalies", "ANOMALIES_TOPIC"),
        ("TOPIC", "incidents", "INCIDENTS_TOPIC"),
        ("ANOMALIES_TOPIC", "ec2_metrics.rejected", "REJECTED_TOPIC"),
    ],
)
def test_a_topic_must_not_be_the_default_of_another(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, other: str
) -> None:
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(UserError, match=f"ANOMALY_{other} both name the topic '{value}'"):
        load()


@pytest.mark.parametrize(
    "content",
    [
        "ANOMALY_TOPIC=ger\u00e4te\n".encode("latin-1"),
        "ANOMALY_TOPIC=cpu\n".encode("utf-16"),
        "ANOMALY_TOPIC=cpu\n".encode("utf-16-le"),
        "ANOMALY_TOPIC=\u20ac\n".encode("cp1252"),
    ],
)
def test_an_env_file_in_another_encoding_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_bytes(content)
    with pytest.raises(UserError, match=r"^\.env is not UTF-8 text: save it as UTF-8"):
        load()


def test_an_env_file_that_cannot_be_read_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    env = tmp_path / ".env"
    env.mkdir()
    with pytest.raises(UserError, match=r"^cannot read \.env \(Is a directory\): "):
        load()
    (env / "pyvenv.cfg").touch()
    assert load().topic == "ec2_metrics"  # a virtual environment of this name
    env.rename(tmp_path / "venv")
    env.symlink_to("missing")
    with pytest.raises(UserError, match=r"^cannot read \.env \(No such file"):
        load()
    env.unlink()
    os.mkfifo(env)
    with pytest.raises(UserError, match=r"^\.env is not a regular file: "):
        load()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_an_env_file_without_permission_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").touch(mode=0o000)
    with pytest.raises(UserError, match=r"^cannot read \.env \(Permission denied\): "):
        load()


def test_an_env_file_may_begin_with_a_byte_order_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_bytes(
        "ANOMALY_TOPIC=ger\u00e4te\nANOMALY_SEED=7\n".encode("utf-8-sig")
    )
    options = load()
    assert (options.topic, options.seed) == ("ger\u00e4te", 7)


def test_a_detector_that_needs_a_range_is_refused_without_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANOMALY_SCALE", "none")
    monkeypatch.setenv("ANOMALY_DETECTOR", "tutorial")
    with pytest.raises(UserError, match="ANOMALY_SCALE"):
        load()


def test_the_page_lists_every_setting_as_it_is() -> None:
    rows = re.findall(
        r"^\| `ANOMALY_(\w+)` \| (.*?) \| (.*?) \|$",
        (REPOSITORY / "docs" / "settings.md").read_text(),
        re.MULTILINE,
    )
    fields = Settings.model_fields
    assert sorted(name for name, *_ in rows) == sorted(name.upper() for name in fields)
    for name, default, text in rows:
        field = fields[name.lower()]
        assert text == field.description
        assert default == SHOWN.get(name, shown(field.default))


SHOWN = {
    "METRICS": "`cpu`",
    "THRESHOLD": "the detector's own",
    "PARTITIONS": "all",
    "REJECTED_TOPIC": "`TOPIC.rejected`",
    "METRICS_PORT": "`none`",
    "NOTIFY_METRICS_PORT": "`none`",
    "NOTIFY_PAGES": "`none`",
}


def shown(default: object) -> str:
    if default in (None, "", {}, ()):
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"
