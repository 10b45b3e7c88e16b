"""Telegraf and the Collector, with no more than what reads the CPU of a host and writes it."""

from __future__ import annotations

from pathlib import Path

from go_programs import Unavailable, built

__all__ = ["Unavailable", "collector", "telegraf"]

TELEGRAF = "github.com/influxdata/telegraf/cmd/telegraf@v1.37.2"
TAGS = "custom,inputs.cpu,outputs.kafka,serializers.influx,serializers.json"
"""What `tools/custom_builder` of Telegraf would pass for the configuration in docs/feeds.md."""

COLLECTOR = Path(__file__).with_name("collector")


def telegraf() -> Path:
    """The program `telegraf`."""
    return built("telegraf-1.37.2", TELEGRAF, "-tags", TAGS)


def collector() -> Path:
    """The program of a Collector."""
    return built("collector-0.160.0", ".", source=COLLECTOR)
