"""Sends rejected records to the input topic again: the plan, and its transfer."""
