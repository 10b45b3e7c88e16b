"""Delivers incidents to notification targets, in a process of its own."""
