"""Every setting: its name, default, range and description.

Settings come from the environment (`ANOMALY_` and the name in capitals) or from a `.env` file in
the working directory; the environment wins. `docs/settings.md` lists them.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from dataflow import librdkafka
from dataflow.calendars import holidays, zones
from dataflow.detectors import NAMES, find
from dataflow.errors import UserError
from dataflow.formats import KIND as FORMATS
from dataflow.formats.files import KINDS, is_file
from dataflow.formats.metrics import CPU
from dataflow.formats.paths import parse
from dataflow.groups import Groups, label_names, parse_pattern
from dataflow.incidents import maintenance
from dataflow.plugins import Kind, names
from dataflow.warnings import warn_once

__all__ = ["OUTPUTS", "PREFIX", "Addresses", "Settings", "is_output_file", "load"]

PREFIX = "ANOMALY_"

ENV_FILE = ".env"

OUTPUTS = Kind(
    "output",
    f"{PREFIX}OUTPUT",
    "dataflow.outputs",
    {
        "stdout": "dataflow.sinks.jsonl:StandardOutput",
        "kafka": "dataflow.sinks.kafka:KafkaOutput",
    },
)
"""The outputs that have a name; a file is named by its path."""


CPU_LIKE = r"(?i)cpu|^(value|usage\w*|utili[sz]ation)$"
"""What fields with a share of CPU are called."""

Addresses: TypeAlias = Annotated[tuple[SecretStr, ...], NoDecode]
"""Web addresses, which may hold a secret."""

Labels: TypeAlias = Annotated[tuple[tuple[str, str], ...], NoDecode]
"""Names of labels, each with its value."""

TAKEN_LABELS = ("alertname", "instance", "kind", "metric", "severity", "topic")
"""Labels that an alert has already."""

ARNS = {
    "notify_sns": (
        r"arn:aws[a-z-]*:sns:[a-z0-9-]+:\d{12}:[\w-]+(\.fifo)?",
        "arn:aws:sns:eu-central-1:123456789012:incidents",
    ),
    "notify_eventbridge": (
        r"arn:aws[a-z-]*:events:[a-z0-9-]+:\d{12}:event-bus/[\w./-]+",
        "arn:aws:events:eu-central-1:123456789012:event-bus/default",
    ),
}
"""The form of an address in AWS, and an example."""

Targets: TypeAlias = Annotated[tuple[tuple[str, SecretStr], ...], NoDecode]
"""Names of notification targets, each with its address, which may hold a secret."""


class Settings(BaseSettings):
    """The settings of one flow.

    >>> Settings(_env_file=None, topic="cpu").rejected_topic
    'cpu.rejected'
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=ENV_FILE,
        env_file_encoding="utf-8-sig",
        env_nested_delimiter="__",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    brokers: str = Field(
        "localhost:9092", description="Kafka or Redpanda: `host:port`, or several with commas"
    )
    input: str = Field(
        "kafka",
        description="`kafka`, or the path of a file: rows of a `.csv` file, or a record a line",
    )
    topic: str = Field("ec2_metrics", min_length=1, description="topic to read")
    follow: bool = Field(
        True,
        description="`true`: wait for new records; `false`: stop at the end of the topic (a file "
        "always ends)",
    )
    lost_input: Literal["stop", "continue"] = Field(
        "stop",
        description="what happens if the broker has deleted records that were not read yet: "
        "`stop`, or `continue` at the first record that is left, with a warning",
    )
    output: str = Field(
        "stdout",
        description="where anomalies go: `stdout`, `kafka`, a path ending in `.jsonl`, an output "
        "of your own, or several with commas",
    )
    anomalies_topic: str = Field(
        "anomalies", min_length=1, description="topic that the output `kafka` writes anomalies to"
    )
    rejected_topic: str = Field(
        "",
        description="topic of rejected records; with file input they go to a `.rejected.jsonl` "
        "file beside the output, or to standard error",
    )
    cloudevents: bool = Field(
        False,
        description="`true`: records of the output topics are CloudEvents 1.0 in binary mode: "
        "their attributes are headers, and their values stay as they are",
    )
    detector: str = Field(
        "calibrated",
        description=f"how readings are scored: {', '.join(f'`{name}`' for name in NAMES)}, or "
        "`module:Class` for your own or River's",
    )
    threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="a reading whose score is above it is an anomaly (0 to 1)",
    )
    least: float = Field(
        0,
        ge=0,
        allow_inf_nan=False,
        description="how far, in the unit of the value, a reading must be from what is expected to "
        "be an anomaly; `0`: any distance",
    )
    rules: str = Field(
        "",
        description="file of rules by patterns of instances, such as `rules.toml`; it is read "
        "again when it changes",
    )
    seed: int = Field(
        42, description="seed of a detector that draws at random; `calibrated` does not"
    )
    interval: float = Field(
        300, gt=0, le=604_800, description="seconds between two readings of an instance"
    )
    format: str = Field(
        "auto",
        min_length=1,
        description="format of the records: `auto` finds it by the first records that can be used; "
        f"{', '.join(f'`{name}`' for name in FORMATS.built_in)}, or a format of your own",
    )
    key_field: str | None = Field(
        "instance",
        min_length=1,
        description="field with the name of the instance, or a path such as `/tags/host`; `none`: "
        "all readings belong to one instance, named after the topic or the file",
    )
    value_field: str = Field(
        "value", min_length=1, description="field with the value to score, or its path"
    )
    time_field: str | None = Field(
        "timestamp",
        min_length=1,
        description="field with the time of the reading, or its path; `none`: readings have no "
        "time",
    )
    index_field: str | None = Field(
        "index",
        min_length=1,
        description="field with the number of the reading within its instance, or its path; "
        "`none`: readings go by their time, and repeats of a time are dropped",
    )
    metrics: Annotated[tuple[str, ...], NoDecode] = Field(
        (CPU,),
        description="metrics to score, such as `cpu, mem.used_percent, Network*`: names as the "
        "feed has them, with `*` and `?`; `cpu` is CPU, whatever the feed calls it",
    )
    metric_field: str | None = Field(
        None,
        min_length=1,
        description="field with the name of the metric, or its path, in JSON records of several "
        "metrics; `none`: all records are of one",
    )
    label_fields: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="tags, attributes, dimensions or labels, or paths, that anomalies and "
        "incidents repeat in `labels`, such as `AutoScalingGroupName, /cloud/account/id`",
    )
    group_fields: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="labels that make the group of an instance, such as `AutoScalingGroupName` or "
        "`service, zone`: named as in ANOMALY_LABEL_FIELDS, and repeated in `labels` too",
    )
    group_pattern: str = Field(
        "",
        description="in their place, a regular expression of names of instances whose part in "
        "parentheses is the group, such as `^([a-z]+)-`",
    )
    first_day: bool = Field(
        False,
        description="`true`: score the first readings of a new instance by the habit of the median "
        "member of its group; needs ANOMALY_GROUP_FIELDS or ANOMALY_GROUP_PATTERN",
    )
    together: bool = Field(
        False,
        description="`true`: judge the metrics of an instance together: alerts and incidents are "
        "those of the instance",
    )
    where: Annotated[tuple[tuple[str, str], ...], NoDecode] = Field(
        (),
        description="which records are read, such as `/name=cpu; /tags/cpu=cpu-total`: fields and "
        "what they must be, with `*` and `?`; others are skipped",
    )
    each: str | None = Field(
        None,
        min_length=1,
        description="path of a list in each record, such as `/metrics`: each element is a reading, "
        "in which the other fields lie",
    )
    invert: bool = Field(
        False,
        description="`true`: the value is what is left of the scale, such as idle CPU",
    )
    time_zone: str = Field(
        "",
        description="time zone in which hours and weekdays count, such as `Europe/Berlin`, or by "
        "patterns of instances: `eu-*: Europe/Berlin; *: America/New_York`; empty: UTC",
    )
    holidays: str = Field(
        "",
        description="days that count as Sundays: of a country or a part of it (`DE`, `DE-BY`), "
        "from a calendar `FILE.ics`, or by patterns: `eu-*: DE; us-*: US`",
    )
    scale: float | None = Field(
        100,
        gt=0,
        allow_inf_nan=False,
        description="upper bound of the values; values are divided by it. `none`: values have no "
        "bounds, and the detector finds their range",
    )
    partitions: Annotated[tuple[int, ...] | None, NoDecode] = Field(
        None, description="partitions that this process reads, such as `0,2`"
    )
    reorder: bool = Field(
        False,
        description="`true`: sort the readings of an instance by index, or by time where the index "
        "is not a whole number, for producers that spread an instance over several partitions",
    )
    reorder_size: int = Field(
        1000,
        ge=1,
        le=1_000_000,
        description="maximum number of readings of an instance to hold while earlier ones are "
        "missing",
    )
    reorder_seconds: float = Field(
        30,
        gt=0,
        le=86_400,
        description="maximum seconds to hold a reading while earlier ones are missing",
    )
    max_instances: int = Field(
        1_000_000,
        ge=1,
        description="maximum number of instances in this process, of several metrics each with "
        "each metric; readings of further ones are rejected. One that sends nothing for one to two "
        "days does not count",
    )
    forget: float = Field(
        1_209_600,
        ge=0,
        allow_inf_nan=False,
        description="seconds without a reading, by the times of the readings, after which what a "
        "detector has learned of an instance is discarded; `0`: never, and every instance counts",
    )
    metrics_port: int | None = Field(
        None,
        ge=1,
        le=65_535,
        description="port on which this process serves metrics for Prometheus, such as 9464; "
        "`none`: not served",
    )
    metrics_host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="address on which it serves them; `0.0.0.0`: every address of the machine",
    )
    metrics_instances: int = Field(
        20,
        ge=0,
        le=1000,
        description="maximum number of instances whose score, value and expected range are served, "
        "of those anomalous now or lately the ones with the highest scores; `0`: none",
    )
    kafka: dict[str, str] = Field(
        {},
        repr=False,
        description="any librdkafka setting, one variable each: "
        "`ANOMALY_KAFKA__SECURITY_PROTOCOL=SASL_SSL`",
    )

    incidents: bool = Field(
        False,
        description="`true`: group the anomalies of an instance into incidents, and open an "
        "incident when an instance stops sending",
    )
    incidents_topic: str = Field(
        "incidents",
        min_length=1,
        description="topic of incidents; a file output writes them beside it, to "
        "`.incidents.jsonl`",
    )
    incident_anomalies: int = Field(
        1,
        ge=1,
        le=1000,
        description="number of anomalies, among the recent readings, that opens an incident",
    )
    incident_readings: int = Field(
        1,
        ge=1,
        le=1000,
        description="number of recent readings considered when opening an incident",
    )
    incident_duration: float = Field(
        0,
        ge=0,
        le=604_800,
        description="minimum seconds between the first anomaly and the opening of its incident",
    )
    incident_quiet: float = Field(
        3600,
        gt=0,
        le=2_592_000,
        description="seconds of ordinary readings after which an episode is over, and its incident "
        "resolved",
    )
    incident_cooldown: float = Field(
        0,
        ge=0,
        le=2_592_000,
        description="seconds after an incident is resolved during which no new one opens",
    )
    incident_updates: int = Field(
        5, ge=0, le=100, description="maximum number of `updated` records per incident"
    )
    silence: int = Field(
        3,
        ge=0,
        le=100_000,
        description="number of missing readings after which an instance counts as silent; `0`: "
        "never",
    )
    silence_seconds: float = Field(
        1800,
        gt=0,
        le=2_592_000,
        description="seconds of clock time after which an instance counts as silent even if no "
        "other instance sends",
    )
    silence_gone: float = Field(
        86_400,
        ge=0,
        description="seconds after a silence is opened until the instance counts as gone and its "
        "incident is resolved; `0`: never",
    )
    silence_except: str = Field(
        "",
        description="instances whose silence is no incident, such as `asg-*,spot-*`: names or "
        "patterns with `*` and `?`, with commas",
    )
    maintenance: str = Field(
        "",
        description="windows in which no incident opens: `web-*: Sat 22:00-Sun 02:00; db-1: daily "
        "02:00-03:00`, or `@FILE` with one per line",
    )
    verdicts: str = Field(
        "",
        description="topic of [verdicts](verdicts.md), such as `verdicts`, or their file, a path "
        "ending in `.jsonl`; empty: none are read",
    )
    verdicts_key: SecretStr | None = Field(
        None,
        min_length=16,
        repr=False,
        description="secret of 16 characters or more with which `notify` signs links: with it, the "
        "page takes verdicts only from who comes by such a link",
    )
    notify_webhook: Addresses = Field(
        (), repr=False, description="addresses to which `notify` posts incidents as JSON"
    )
    notify_cloudevents: Addresses = Field(
        (), repr=False, description="addresses to which `notify` posts incidents as CloudEvents"
    )
    notify_slack: Addresses = Field(
        (), repr=False, description="addresses of Slack incoming webhooks for `notify`"
    )
    notify_alertmanager: Addresses = Field(
        (), repr=False, description="addresses of Alertmanagers for `notify`"
    )
    notify_silences: bool = Field(
        False,
        description="whether `notify` takes silences of the alerts of one instance in Alertmanager "
        "as [verdicts](verdicts.md#in-alertmanager)",
    )
    notify_pagerduty: Addresses = Field(
        (),
        repr=False,
        description="integration keys of PagerDuty (Events API v2) for `notify`; in the EU, "
        "`https://KEY@events.eu.pagerduty.com`",
    )
    notify_sns: Addresses = Field(
        (),
        repr=False,
        description="ARNs of topics of Amazon SNS for `notify` (extra `aws`)",
    )
    notify_eventbridge: Addresses = Field(
        (),
        repr=False,
        description="ARNs of event buses of Amazon EventBridge for `notify` (extra `aws`)",
    )
    notify_targets: Targets = Field(
        (),
        repr=False,
        description="further notification targets, `NAME=ADDRESS`, several with commas; NAME is a "
        "built-in, an entry point or `module:Class`",
    )
    notify_labels: Labels = Field(
        (),
        description="labels of every incident that `notify` delivers, for routing, such as "
        "`team=web,env=prod`; those of the incident come before them",
    )
    notify_link: str = Field(
        "",
        description="address of a page about incidents, which `notify` adds to its messages; "
        "`{instance}`, `{id}` and `{kind}` in it stand for those of the incident, `{verdict}` for "
        "what asks [whether it was fine](verdicts.md#in-a-message)",
    )
    notify_runbook: str = Field(
        "",
        description="address of what to do about an incident, such as "
        "`https://wiki.example/{kind}`, for PagerDuty and Alertmanager",
    )
    notify_pages: int | None = Field(
        None,
        ge=2,
        le=1000,
        description="pages a day, and for each value of the label `team`, that `notify` sends at "
        "most to each target: new incidents, and digests of the others; `none`: no limit",
    )
    notify_store: Path = Field(
        Path("notify.sqlite3"),
        description="file in which `notify` keeps what it has sent, on a disk that lasts; with "
        "ANOMALY_NOTIFY_PAGES only",
    )
    notify_max_age: float = Field(
        3600,
        ge=0,
        allow_inf_nan=False,
        description="seconds by which an incident may be older than its record: `notify` leaves "
        "out what was history when the flow read it; `0`: nothing",
    )

    notify_metrics_port: int | None = Field(
        None,
        ge=1,
        le=65_535,
        description="port on which `notify` serves metrics for Prometheus and its health, such as "
        "9465, at ANOMALY_METRICS_HOST; `none`: not served",
    )

    @field_validator(
        *("scale", "threshold", "partitions", "metrics_port", "notify_metrics_port"),
        *("notify_pages", "verdicts_key"),
        mode="before",
    )
    @classmethod
    def _none_is_none(cls, value: Any) -> Any:
        return None if isinstance(value, str) and value.lower() in ("none", "") else value

    @field_validator(
        "key_field", "time_field", "index_field", "metric_field", "each", mode="before"
    )
    @classmethod
    def _no_field(cls, value: Any) -> Any:
        return None if isinstance(value, str) and value.lower() == "none" else value

    @field_validator("where", mode="before")
    @classmethod
    def _where(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        pairs = [one.strip().partition("=") for one in value.split(";") if one.strip()]
        if not all(field.strip() and equals for field, equals, _ in pairs):
            raise ValueError("must be FIELD=VALUE, several separated by semicolons")
        return tuple((field.strip(), wanted.strip()) for field, _, wanted in pairs)

    @field_validator("metrics", mode="before")
    @classmethod
    def _metrics(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        # A name may hold tags, with commas between them.
        parts = re.split(r",(?![^{}]*\})", value)
        names = tuple(name for part in parts if (name := part.strip()))
        if not names:
            raise ValueError(f"must name a metric, such as {CPU}")
        return tuple(CPU if name.lower() == CPU else name for name in names)

    @field_validator("label_fields", "group_fields", mode="before")
    @classmethod
    def _label_fields(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        fields = tuple(name for part in value.split(",") if (name := part.strip()))
        names = label_names(fields)
        if len(set(names)) < len(names):
            raise ValueError("gives two labels the same name")
        return fields

    @field_validator("group_pattern")
    @classmethod
    def _group_pattern(cls, value: str) -> str:
        if value:
            parse_pattern(value)
        return value

    @field_validator(
        "key_field", "value_field", "time_field", "index_field", "metric_field", "each"
    )
    @classmethod
    def _path(cls, value: str | None) -> str | None:
        if value is not None:
            parse(value)
        return value

    @field_validator("partitions", mode="before")
    @classmethod
    def _partitions(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        parts = [part.strip() for part in value.split(",")]
        if not all(part.isascii() and part.isdigit() for part in parts):
            raise ValueError("must be partition numbers separated by commas, such as 0,2")
        return tuple(sorted({int(part) for part in parts}))

    @field_validator("input")
    @classmethod
    def _input(cls, value: str) -> str:
        if value != "kafka" and not is_file(value):
            raise ValueError(f"must be `kafka`, or a path ending in {KINDS}")
        return value

    @field_validator("output")
    @classmethod
    def _output(cls, value: str) -> str:
        places = [place.strip() for place in value.split(",")]
        for place in places:
            if is_output_file(place) or place in OUTPUTS.built_in or ":" in place:
                continue
            if place not in (known := names(OUTPUTS)):
                raise ValueError(
                    f"names the output {place!r}, which does not exist: use {', '.join(known)}, "
                    "a path ending in .jsonl, module:Class for your own, or several with commas"
                )
        if len(set(places)) < len(places):
            raise ValueError("names the same output twice")
        if sum(map(is_output_file, places)) > 1:
            raise ValueError("names two files: name only one")
        return ",".join(places)

    @field_validator("detector")
    @classmethod
    def _detector(cls, value: str) -> str:
        find(value)
        return value

    @field_validator("kafka")
    @classmethod
    def _kafka(cls, value: dict[str, str]) -> dict[str, str]:
        # Environment variables cannot hold the dots of librdkafka's names.
        return {name.lower().replace("_", "."): setting for name, setting in value.items()}

    @field_validator(
        *("notify_webhook", "notify_cloudevents", "notify_slack", "notify_alertmanager"),
        mode="before",
    )
    @classmethod
    def _addresses(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        addresses = [address.strip() for address in value.split(",") if address.strip()]
        if not all(map(_is_address, addresses)):
            raise ValueError("must be addresses such as https://HOST/PATH, separated by commas")
        if len(set(addresses)) < len(addresses):
            raise ValueError("names the same address twice")
        return tuple(map(SecretStr, addresses))

    @field_validator("notify_sns", "notify_eventbridge", mode="before")
    @classmethod
    def _arns(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, str):
            return value
        arns = [arn.strip() for arn in value.split(",") if arn.strip()]
        pattern, form = ARNS[info.field_name or ""]
        if not all(re.fullmatch(pattern, arn) for arn in arns):
            raise ValueError(f"must be ARNs such as {form}, separated by commas")
        if len(set(arns)) < len(arns):
            raise ValueError("names the same ARN twice")
        return tuple(map(SecretStr, arns))

    @field_validator("notify_pagerduty", mode="before")
    @classmethod
    def _pagerduty(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        given = [part.strip() for part in value.split(",") if part.strip()]
        addresses = [
            f"https://{part}@events.pagerduty.com" if _is_key(part) else part for part in given
        ]
        # Of a key of another length, PagerDuty answers that the event is wrong.
        if not all(_is_address(it) and _is_key(urlsplit(it).username) for it in addresses):
            raise ValueError(
                "must be integration keys of 32 letters and digits, or https://KEY@HOST, separated "
                "by commas"
            )
        if len(set(addresses)) < len(addresses):
            raise ValueError("names the same key twice")
        return tuple(map(SecretStr, addresses))

    @field_validator("notify_targets", mode="before")
    @classmethod
    def _targets(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        pairs = [pair.strip().partition("=") for pair in value.split(",") if pair.strip()]
        targets = [(name.strip(), address.strip()) for name, _, address in pairs]
        if not all(name and _is_address(address) for name, address in targets):
            raise ValueError("must be NAME=https://HOST/PATH, several separated by commas")
        if len(set(targets)) < len(targets):
            raise ValueError("names the same target twice")
        return tuple((name, SecretStr(address)) for name, address in targets)

    @field_validator("notify_labels", mode="before")
    @classmethod
    def _labels(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        pairs = [pair.strip().partition("=") for pair in value.split(",") if pair.strip()]
        labels = tuple((name.strip(), text.strip()) for name, _, text in pairs)
        names = [name for name, _ in labels]
        if not all(re.fullmatch("[a-zA-Z_][a-zA-Z0-9_]*", name) and text for name, text in labels):
            raise ValueError(
                "must be NAME=VALUE, several separated by commas, with letters, digits and "
                "underscores in a name"
            )
        if len(set(names)) < len(names):
            raise ValueError("names the same label twice")
        if taken := [name for name in names if name in TAKEN_LABELS]:
            raise ValueError(
                f"names the label {taken[0]!r}, which every alert has already: choose another name"
            )
        return labels

    @field_validator("notify_link", "notify_runbook")
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
                raise ValueError(
                    "names a file that cannot be read: check its path and permissions"
                ) from None
        maintenance.parse(value)
        return value

    @field_validator("time_zone")
    @classmethod
    def _time_zone(cls, value: str) -> str:
        zones.parse(value)
        return value

    @field_validator("holidays")
    @classmethod
    def _holidays(cls, value: str) -> str:
        holidays.parse(value)
        return value

    @model_validator(mode="after")
    def _local(self) -> Self:
        for name in ("time_zone", "holidays"):
            if self.time_field is None and getattr(self, name):
                raise ValueError(
                    f"{PREFIX}{name.upper()} needs readings with a time: leave it empty, or name "
                    f"the field in {PREFIX}TIME_FIELD, which is none"
                )
        return self

    @model_validator(mode="after")
    def _groups(self) -> Self:
        if self.group_fields and self.group_pattern:
            raise ValueError(
                f"{PREFIX}GROUP_FIELDS and {PREFIX}GROUP_PATTERN both say which group an instance "
                "is in: set one of them"
            )
        if self.first_day and not (self.group_fields or self.group_pattern):
            raise ValueError(
                f"{PREFIX}FIRST_DAY needs groups: set {PREFIX}GROUP_FIELDS or "
                f"{PREFIX}GROUP_PATTERN, or leave it out"
            )
        if self.first_day and self.time_field is None:
            raise ValueError(
                f"{PREFIX}FIRST_DAY needs readings with a time: leave it out, or name the field in "
                f"{PREFIX}TIME_FIELD, which is none"
            )
        names = label_names(self.carried_fields)
        if len(set(names)) < len(names):
            raise ValueError(
                f"{PREFIX}LABEL_FIELDS and {PREFIX}GROUP_FIELDS give two labels the same name: "
                "name the field in both in the same way"
            )
        return self

    @model_validator(mode="after")
    def _librdkafka(self) -> Self:
        wrong = librdkafka.check(self.kafka)
        if wrong is not None:
            raise ValueError(wrong)
        return self

    @model_validator(mode="after")
    def _topics(self) -> Self:
        # Also where one is not used now: the live page and `notify` read them all the same.
        taken: dict[str, str] = {}
        for name in ("topic", "anomalies_topic", "incidents_topic", "rejected_topic", "verdicts"):
            topic = getattr(self, name)
            if topic in taken:
                raise ValueError(
                    f"{PREFIX}{taken[topic].upper()} and {PREFIX}{name.upper()} both name the "
                    f"topic {topic!r}: give them different topics"
                )
            taken[topic] = name
        return self

    @model_validator(mode="after")
    def _incidents(self) -> Self:
        if self.incident_anomalies > self.incident_readings:
            raise ValueError(
                "ANOMALY_INCIDENT_ANOMALIES must not be above ANOMALY_INCIDENT_READINGS, the "
                "number of recent readings that can be anomalies"
            )
        return self

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.scale is None and find(self.detector).needs_range:
            raise ValueError(
                f"{PREFIX}SCALE must be a number for the detector {self.detector}, which needs "
                "values of a known range"
            )
        return self

    @model_validator(mode="after")
    def _fields(self) -> Self:
        # Time and index may be one field: readings without an index are ordered by their time.
        names = ["key_field", "value_field", "index_field", "metric_field"]
        names += ["time_field"] if self.time_field != self.index_field else []
        taken: dict[str, str] = {}
        for name in names:
            field = getattr(self, name)
            if field in taken:
                raise ValueError(
                    f"{PREFIX}{taken[field].upper()} and {PREFIX}{name.upper()} both name the "
                    f"field {field!r}: give them different fields"
                )
            if field is not None:
                taken[field] = name
        return self

    @model_validator(mode="after")
    def _read(self) -> Self:
        if self.time_field is None and self.index_field is None:
            raise ValueError(
                f"{PREFIX}TIME_FIELD and {PREFIX}INDEX_FIELD are both none: name a field for one, "
                "so that readings can be told apart"
            )
        if self.format not in ("auto", "json"):
            for name in ("where", "each", "invert", "metric_field"):
                if getattr(self, name):
                    raise ValueError(
                        f"{PREFIX}{name.upper()} belongs to the format json, and {PREFIX}FORMAT is "
                        f"{self.format}: remove one of them"
                    )
        if self.format == "json" and self.several_metrics and self.metric_field is None:
            raise ValueError(
                f"{PREFIX}METRICS selects by the name of a metric, which JSON has in a field: name "
                f"it in {PREFIX}METRIC_FIELD"
            )
        if self.invert and self.metric_field is not None:
            raise ValueError(
                f"{PREFIX}INVERT and {PREFIX}METRIC_FIELD cannot be used together: select the one "
                f"metric with {PREFIX}WHERE"
            )
        if self.several_metrics and find(self.detector).needs_range:
            raise ValueError(
                f"{PREFIX}METRICS must be {CPU} for the detector {self.detector}, which needs "
                "values of a known range"
            )
        if self.invert and self.scale is None:
            raise ValueError(
                f"{PREFIX}INVERT needs a scale, of which the value is what is left: set "
                f"{PREFIX}SCALE to a number"
            )
        return self

    @model_validator(mode="after")
    def _together(self) -> Self:
        if not self.together:
            return self
        if not self.several_metrics:
            raise ValueError(
                f"{PREFIX}TOGETHER judges several metrics of an instance: name them in "
                f"{PREFIX}METRICS, which is {CPU}"
            )
        if self.reorder:
            raise ValueError(
                f"{PREFIX}TOGETHER and {PREFIX}REORDER cannot be used together: key the records by "
                "instance"
            )
        if self.time_field is None:
            raise ValueError(
                f"{PREFIX}TOGETHER needs readings with a time: name the field in "
                f"{PREFIX}TIME_FIELD, which is none"
            )
        return self

    @model_validator(mode="after")
    def _verdicts(self) -> Self:
        if self.time_field is None and self.verdicts:
            raise ValueError(
                f"{PREFIX}VERDICTS needs readings with a time: leave it empty, or name the field "
                f"in {PREFIX}TIME_FIELD, which is none"
            )
        return self

    @model_validator(mode="after")
    def _maintained(self) -> Self:
        if self.time_field is None and self.maintenance:
            raise ValueError(
                f"{PREFIX}MAINTENANCE needs readings with a time: leave it empty, or name the "
                f"field in {PREFIX}TIME_FIELD, which is none"
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
    def verdicts_secret(self) -> str:
        """The secret that signs links to verdicts; empty if none is set."""
        return "" if self.verdicts_key is None else self.verdicts_key.get_secret_value()

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs, in the order of the setting."""
        return tuple(self.output.split(","))

    @property
    def output_file(self) -> Path | None:
        """The output that is a file; None if none is.

        >>> Settings(_env_file=None, output="stdout,found.jsonl").output_file
        PosixPath('found.jsonl')
        """
        return next((Path(name) for name in self.outputs if is_output_file(name)), None)

    @property
    def several_metrics(self) -> bool:
        """Whether other metrics than CPU are selected.

        >>> Settings(_env_file=None, metrics="cpu, load1").several_metrics
        True
        """
        return self.metrics != (CPU,)

    @property
    def carried_fields(self) -> tuple[str, ...]:
        """The fields of labels that travel with a reading.

        >>> Settings(_env_file=None, label_fields="zone", group_fields="asg,zone").carried_fields
        ('zone', 'asg')
        """
        return tuple(dict.fromkeys((*self.label_fields, *self.group_fields)))

    @property
    def groups(self) -> Groups:
        """The groups of instances."""
        return Groups(self.group_fields, self.group_pattern)

    @property
    def default_metric(self) -> str:
        """The name of what is scored by default: `cpu`, unless the settings say something else.

        >>> Settings(_env_file=None).default_metric
        'cpu'
        >>> Settings(_env_file=None, value_field="/fields/latency", scale=None).default_metric
        'latency'
        """
        if self.metric_field is not None:
            return CPU
        if "value_field" not in self.model_fields_set or self.format not in ("auto", "json"):
            return "value" if self.scale is None and self.format == "json" else CPU
        name = parse(self.value_field)[-1]
        return CPU if self.invert or re.search(CPU_LIKE, name) else name

    @property
    def ordered_by_time(self) -> bool:
        """Whether ANOMALY_REORDER goes by the time of readings, which is their index too.

        >>> Settings(_env_file=None, index_field="timestamp").ordered_by_time
        True
        """
        return self.time_field == self.index_field

    @property
    def source_name(self) -> str:
        """Where readings come from, as records name it: the topic, or the path of the file.

        >>> Settings(_env_file=None, topic="cpu").source_name
        'cpu'
        """
        return self.topic if self.input == "kafka" else self.input

    @property
    def columns(self) -> dict[str, str | None]:
        """The fields that a CSV file must have as columns, by the setting that names each."""
        if self.format not in ("auto", "json"):
            return {}
        names = ["key_field", "value_field", "time_field", "metric_field"]
        if self.format == "json" or "index_field" in self.model_fields_set:
            names.append("index_field")  # without one, `auto` takes the time
        return {name: getattr(self, name) for name in names}

    @property
    def names_fields(self) -> bool:
        """Whether fields of records are set, so that `auto` has only to look for these."""
        names = (
            "key_field",
            "value_field",
            "time_field",
            "metric_field",
            "where",
            "each",
            "invert",
        )
        return not self.model_fields_set.isdisjoint(names)

    @property
    def only_instance(self) -> str | None:
        """The name of the only instance where no field names one; None where a field does.

        >>> Settings(_env_file=None, topic="raw-data", key_field="none").only_instance
        'raw-data'
        """
        if self.key_field is not None:
            return None
        return self.topic if self.input == "kafka" else Path(self.input).stem


def load(**overrides: Any) -> Settings:
    """Read the settings from the environment and `.env`; `overrides` win over both.

    Raises `UserError`, in one line that names the setting, if a name or a value is wrong.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    given = [*os.environ, *_env_file(Path(ENV_FILE))]
    for name in sorted({name.upper() for name in given if name.upper().startswith(PREFIX)}):
        if name not in known and not name.startswith(f"{PREFIX}KAFKA__"):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "docs/settings.md lists the settings."
            raise UserError(f"{name} is not a setting: {hint}")
    try:
        settings = Settings(**overrides)
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
    for line in librdkafka.warnings(settings.kafka):
        warn_once("insecure-connection", f"{line}.", key=line)
    return settings


def _env_file(path: Path) -> Iterable[str]:
    """Return the names in the `.env` file, if there is one. Raises `UserError` if it is unreadable.

    A folder of this name is ignored if it is a virtual environment.
    """
    try:
        if not os.path.lexists(path) or (path / "pyvenv.cfg").is_file():
            return ()
        # Opening a pipe would wait for its writer.
        if path.exists() and not path.is_file() and not path.is_dir():
            raise UserError(f"{path} is not a regular file: write the settings to a text file.")
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(
            f"cannot read {path} ({error.strerror}): correct or remove it; it holds settings."
        ) from None
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UserError(f"{path} is not UTF-8 text: save it as UTF-8, for example with iconv.")
    return dotenv_values(stream=StringIO(text))


def is_output_file(output: str) -> bool:
    """Return whether an output is a file of JSON lines, by its name.

    >>> is_output_file("out/found.jsonl"), is_output_file("kafka")
    (True, False)
    """
    return Path(output).suffix == ".jsonl"


def _is_key(text: str | None) -> bool:
    """Return whether a text is an integration key of PagerDuty."""
    return re.fullmatch("[A-Za-z0-9]{32}", text or "") is not None


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        return False
