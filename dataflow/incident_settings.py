"""The options that say what an incident is, and whom to tell of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self, TypeAlias
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode

from dataflow import maintenance

__all__ = ["Addresses", "IncidentSettings"]

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


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        return False
