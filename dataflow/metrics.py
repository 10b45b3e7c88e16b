"""Figures for Prometheus, in the registry that Bytewax serves its own from."""

from __future__ import annotations

from prometheus_client import Gauge

__all__ = ["CONSUMER_LAG"]

CONSUMER_LAG = Gauge(
    "anomaly_consumer_lag_records",
    "Records of a partition that are on the broker and not yet read.",
    ["topic", "partition"],
)
