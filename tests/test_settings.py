from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from conftest import REPOSITORY

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


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("TOPIK", "cpu", "ANOMALY_TOPIK is not a setting: did you mean ANOMALY_TOPIC?"),
        ("FOLLOW", "perhaps", "ANOMALY_FOLLOW must be a valid boolean"),
        ("THRESHOLD", "1.5", "ANOMALY_THRESHOLD must be less than or equal to 1"),
        ("THRESHOLD", "nan", "ANOMALY_THRESHOLD must be"),
        ("DETECTOR", "magic", "does not exist: use one of calibrated, tutorial, zscore, isolation"),
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
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(UserError) as refusal:
        load()
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


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
    "THRESHOLD": "the detector's own",
    "PARTITIONS": "all",
    "REJECTED_TOPIC": "`TOPIC.rejected`",
    "METRICS_PORT": "`none`",
}


def shown(default: object) -> str:
    if default in (None, "", {}, ()):
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"
