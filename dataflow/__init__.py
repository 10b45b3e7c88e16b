"""Flags EC2 instances whose CPU departs from their own past behavior, as readings arrive."""

__version__ = "0.1.0"
