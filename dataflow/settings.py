"""Every option of the flow once: its name, its default, what it does.

Read from the environment, each name behind `ANOMALY_`, or from a `.env` file in the working
directory; the environment wins.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Annotated, Any, Self

from dotenv import dotenv_values
from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict, SettingsError

from dataflow.detectors import NAMES, NEED_RANGE
from dataflow.incident_settings import IncidentSettings
from dataflow.refusal import Refusal

__all__ = ["PREFIX", "Settings", "load"]

PREFIX = "ANOMALY_"


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
    """Read the settings; a wrong name or value is a Refusal that names it."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    given = [*os.environ, *(dotenv_values(".env") if Path(".env").is_file() else ())]
    for name in sorted({name.upper() for name in given if name.upper().startswith(PREFIX)}):
        if name not in known and not name.startswith(f"{PREFIX}KAFKA__"):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "the README lists the settings."
            raise Refusal(f"{name} is not a setting: {hint}")
    try:
        return Settings(**overrides)
    except ValidationError as wrong:
        first = wrong.errors()[0]
        reason = first["msg"].removeprefix("Value error, ").replace("Input should", "must")
        if first["loc"]:
            reason = f"{PREFIX}{'__'.join(map(str, first['loc'])).upper()} {reason}"
        raise Refusal(f"{reason}.") from None
    except SettingsError:  # only a setting that is several is read as JSON
        raise Refusal(
            f"{PREFIX}KAFKA is not a JSON object: give each librdkafka setting a variable of its "
            f"own, such as {PREFIX}KAFKA__SECURITY_PROTOCOL."
        ) from None
