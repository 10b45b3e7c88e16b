"""Every option of the flow once: its name, its default, what it does.

Read from the environment, each name behind `ANOMALY_`, or from a `.env` file in the working
directory; the environment wins.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Annotated, Any, Self, TypeAlias
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from dataflow.detectors import NAMES, NEED_RANGE
from dataflow.errors import UserError
from dataflow.incidents import maintenance

__all__ = ["PREFIX", "Addresses", "IncidentSettings", "Settings", "load"]

PREFIX = "ANOMALY_"


Addresses: TypeAlias = Annotated[tuple[SecretStr, ...], NoDecode]
"""Web addresses, which may hold a secret."""


class IncidentSettings(BaseSettings):
    """The part of `dataflow.settings.Settings` that is about incidents.

    >>> IncidentSettings(_env_file=None).incident_updates
    5
    """

    incidents: bool = Field(
        False, description="`true`: also gather anomalies into incidents, and notice silence"
    )
    incidents_topic: str = Field(
        "incidents",
        min_length=1,
        description="topic of incidents; beside a file they go to its `.incidents.jsonl`",
    )
    incident_anomalies: int = Field(
        1, ge=1, le=1000, description="anomalies among the last readings that open an incident"
    )
    incident_readings: int = Field(
        1, ge=1, le=1000, description="how many the last readings are that are looked at for it"
    )
    incident_duration: float = Field(
        0, ge=0, le=604_800, description="seconds from the first anomaly to the one that opens it"
    )
    incident_quiet: float = Field(
        3600, gt=0, le=2_592_000, description="seconds without an anomaly that resolve it"
    )
    incident_cooldown: float = Field(
        0, ge=0, le=2_592_000, description="seconds after a resolve in which none is opened"
    )
    incident_updates: int = Field(
        5, ge=0, le=100, description="how often it is told, at most, that it has become worse"
    )
    silence: int = Field(
        3, ge=0, le=100_000, description="intervals without a reading that are a silence; `0`: none"
    )
    silence_seconds: float = Field(
        1800,
        gt=0,
        le=2_592_000,
        description="seconds of the machine's clock that are one even if nobody else sends",
    )
    silence_gone: float = Field(
        86_400,
        ge=0,
        description="seconds of silence after which an instance is gone for good; `0`: never",
    )
    maintenance: str = Field(
        "",
        description="when no incident opens: `web-*: Sat 22:00-Sun 02:00; db-1: daily 02:00-03:00`,"
        " or `@FILE` with one a line",
    )
    notify_webhook: Addresses = Field(
        (), repr=False, description="addresses that `notify` posts incidents to as JSON"
    )
    notify_slack: Addresses = Field(
        (), repr=False, description="addresses of Slack's incoming webhooks, for `notify`"
    )
    notify_alertmanager: Addresses = Field(
        (), repr=False, description="addresses of Alertmanagers, for `notify`"
    )
    notify_link: str = Field(
        "", description="address of a page about incidents, which `notify` adds to what it tells"
    )

    @field_validator("notify_webhook", "notify_slack", "notify_alertmanager", mode="before")
    @classmethod
    def _addresses(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        addresses = [address.strip() for address in value.split(",") if address.strip()]
        if not all(map(_is_address, addresses)):
            raise ValueError("must be addresses such as https://HOST/PATH, with commas between")
        if len(set(addresses)) < len(addresses):
            raise ValueError("names the same address twice")
        return tuple(map(SecretStr, addresses))

    @field_validator("notify_link")
    @classmethod
    def _link(cls, value: str) -> str:
        if value and not _is_address(value):
            raise ValueError("must be an address such as https://HOST/PATH")
        return value

    @field_validator("maintenance")
    @classmethod
    def _maintenance(cls, value: str) -> str:
        if value.startswith("@"):
            try:
                value = Path(value[1:]).read_text()
            except (OSError, ValueError):
                raise ValueError("names a file that cannot be read") from None
        maintenance.parse(value)
        return value

    @model_validator(mode="after")
    def _incidents(self) -> Self:
        if self.incident_anomalies > self.incident_readings:
            raise ValueError(
                "ANOMALY_INCIDENT_ANOMALIES must not be above ANOMALY_INCIDENT_READINGS: so many "
                "anomalies of the last readings"
            )
        return self


class Settings(IncidentSettings):
    """The settings of one flow.

    >>> Settings(_env_file=None, topic="cpu").rejected_topic
    'cpu.rejected'
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        env_nested_delimiter="__",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    brokers: str = Field(
        "localhost:9092", description="Kafka or Redpanda: `host:port`, or several with commas"
    )
    input: str = Field("kafka", description="`kafka`, or the path of a `.csv` or `.jsonl` file")
    topic: str = Field("ec2_metrics", min_length=1, description="topic that is read")
    follow: bool = Field(
        True, description="`false`: stop at the end of the topic (a file always ends)"
    )
    output: str = Field(
        "stdout",
        description="where anomalies go: `stdout`, `kafka`, a path ending in `.jsonl`, or several "
        "with commas",
    )
    anomalies_topic: str = Field(
        "anomalies", min_length=1, description="topic that the output `kafka` writes"
    )
    rejected_topic: str = Field(
        "",
        description="topic of refused records; with file input they go to a `.rejected.jsonl` "
        "beside the output, or to standard error",
    )
    detector: str = Field(
        "calibrated", description="how readings are scored: " + ", ".join(f"`{n}`" for n in NAMES)
    )
    threshold: float | None = Field(
        None, ge=0, le=1, allow_inf_nan=False, description="a score above it is an anomaly"
    )
    seed: int = Field(42, description="draws the detector's trees")
    interval: float = Field(
        300, gt=0, le=604_800, description="seconds between two readings of an instance"
    )
    key_field: str | None = Field(
        "instance",
        min_length=1,
        description="field that names the instance; `none`: all readings are of one instance, "
        "called after the topic",
    )
    value_field: str = Field("value", min_length=1, description="field that is scored")
    time_field: str | None = Field(
        "timestamp",
        min_length=1,
        description="field that says when; `none`: the detector gets no time",
    )
    index_field: str = Field(
        "index", min_length=1, description="field that counts an instance's readings"
    )
    scale: float | None = Field(
        100,
        gt=0,
        allow_inf_nan=False,
        description="upper bound of the value, which is divided by it; `none`: no bounds, no "
        "division, and a detector that scales for itself",
    )
    partitions: Annotated[tuple[int, ...] | None, NoDecode] = Field(
        None, description="partitions that this process reads, such as `0,2`"
    )
    reorder: bool = Field(
        False,
        description="`true`: put each instance's readings into the order of their indexes, where "
        "its readings lie on several partitions",
    )
    reorder_size: int = Field(
        1000, ge=1, le=1_000_000, description="readings of an instance held for those before them"
    )
    reorder_seconds: float = Field(
        30, gt=0, le=86_400, description="seconds that a reading is held for those before it"
    )
    max_instances: int = Field(
        1_000_000, ge=1, description="instances that one process takes; further ones are refused"
    )
    metrics_port: int | None = Field(
        None,
        ge=1,
        le=65_535,
        description="port of this process's figures for Prometheus, such as 9464; `none`: not "
        "served",
    )
    metrics_host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="address that they are served on; `0.0.0.0`: all of this machine's",
    )
    kafka: dict[str, str] = Field(
        {},
        repr=False,
        description="any librdkafka setting, each as a variable of its own: "
        "`ANOMALY_KAFKA__SECURITY_PROTOCOL=SASL_SSL`",
    )

    @field_validator("scale", "threshold", "partitions", "metrics_port", mode="before")
    @classmethod
    def _none_is_none(cls, value: Any) -> Any:
        return None if isinstance(value, str) and value.lower() in ("none", "") else value

    @field_validator("key_field", "time_field", mode="before")
    @classmethod
    def _no_field(cls, value: Any) -> Any:
        return None if isinstance(value, str) and value.lower() == "none" else value

    @field_validator("partitions", mode="before")
    @classmethod
    def _partitions(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        parts = [part.strip() for part in value.split(",")]
        if not all(part.isascii() and part.isdigit() for part in parts):
            raise ValueError("must be partition numbers with commas between, such as 0,2")
        return tuple(sorted({int(part) for part in parts}))

    @field_validator("input")
    @classmethod
    def _input(cls, value: str) -> str:
        if value != "kafka" and Path(value).suffix not in (".csv", ".jsonl"):
            raise ValueError("must be `kafka`, or a path ending in .csv or .jsonl")
        return value

    @field_validator("output")
    @classmethod
    def _output(cls, value: str) -> str:
        places = [place.strip() for place in value.split(",")]
        for place in places:
            if place not in ("stdout", "kafka") and Path(place).suffix != ".jsonl":
                raise ValueError(
                    "must be `stdout`, `kafka`, a path ending in .jsonl, or several with commas"
                )
        if len(set(places)) < len(places):
            raise ValueError("names the same output twice")
        if sum(place not in ("stdout", "kafka") for place in places) > 1:
            raise ValueError("names two files: one is the most")
        return ",".join(places)

    @field_validator("detector")
    @classmethod
    def _detector(cls, value: str) -> str:
        if value not in NAMES:
            raise ValueError(f"must be one of {', '.join(NAMES)}")
        return value

    @field_validator("kafka")
    @classmethod
    def _kafka(cls, value: dict[str, str]) -> dict[str, str]:
        # Environment variables cannot hold the dots of librdkafka's names.
        return {name.lower().replace("_", "."): setting for name, setting in value.items()}

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.scale is None and self.detector in NEED_RANGE:
            raise ValueError(
                f"{PREFIX}SCALE must be a number for the detector {self.detector}, which needs "
                "values of a known range"
            )
        return self

    @model_validator(mode="after")
    def _fields(self) -> Self:
        # Readings that carry nothing but a time are counted by it.
        names = ["key_field", "value_field", "index_field"]
        names += ["time_field"] if self.time_field != self.index_field else []
        taken: dict[str, str] = {}
        for name in names:
            field = getattr(self, name)
            if field in taken:
                raise ValueError(
                    f"{PREFIX}{taken[field].upper()} and {PREFIX}{name.upper()} both name the "
                    f"field {field!r}: one of them must be another"
                )
            if field is not None:
                taken[field] = name
        return self

    @model_validator(mode="after")
    def _maintained(self) -> Self:
        if self.time_field is None and self.maintenance:
            raise ValueError(
                f"{PREFIX}MAINTENANCE must be empty where readings carry no time "
                f"({PREFIX}TIME_FIELD is none)"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _rejected(cls, values: dict[str, Any]) -> dict[str, Any]:
        if not values.get("rejected_topic"):
            topic = values.get("topic", cls.model_fields["topic"].default)
            values = {**values, "rejected_topic": f"{topic}.rejected"}
        return values

    @property
    def outputs(self) -> tuple[str, ...]:
        """The outputs one by one."""
        return tuple(self.output.split(","))

    @property
    def columns(self) -> dict[str, str | None]:
        """The fields that a CSV file must have as columns, by the setting that names each."""
        names = ("key_field", "value_field", "time_field", "index_field")
        return {name: getattr(self, name) for name in names}

    @property
    def only_instance(self) -> str | None:
        """What the one instance is called if no field names it; None if one does.

        >>> Settings(_env_file=None, topic="raw-data", key_field="none").only_instance
        'raw-data'
        """
        if self.key_field is not None:
            return None
        return self.topic if self.input == "kafka" else Path(self.input).stem

    @property
    def uses_kafka(self) -> bool:
        """Whether the flow needs a broker at all."""
        return self.input == "kafka" or "kafka" in self.outputs


def load(**overrides: Any) -> Settings:
    """Read the settings; a wrong name or value is a UserError that names it."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    given = [*os.environ, *(dotenv_values(".env") if Path(".env").is_file() else ())]
    for name in sorted({name.upper() for name in given if name.upper().startswith(PREFIX)}):
        if name not in known and not name.startswith(f"{PREFIX}KAFKA__"):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "the README lists the settings."
            raise UserError(f"{name} is not a setting: {hint}")
    try:
        return Settings(**overrides)
    except ValidationError as wrong:
        first = wrong.errors()[0]
        reason = first["msg"].removeprefix("Value error, ").replace("Input should", "must")
        if first["loc"]:
            reason = f"{PREFIX}{'__'.join(map(str, first['loc'])).upper()} {reason}"
        raise UserError(f"{reason}.") from None
    except SettingsError:  # only a setting that is several is read as JSON
        raise UserError(
            f"{PREFIX}KAFKA is not a JSON object: give each librdkafka setting a variable of its "
            f"own, such as {PREFIX}KAFKA__SECURITY_PROTOCOL."
        ) from None


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        return False
