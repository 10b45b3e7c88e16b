"""Tells others of incidents: a process of its own."""
