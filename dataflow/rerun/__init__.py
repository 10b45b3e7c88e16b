"""Runs the flow over its input again, without writing anything: what if, and why."""
