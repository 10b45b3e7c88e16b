"""Anomalies in the CPU of many EC2 instances, found as the readings arrive."""

__version__ = "0.1.0"
