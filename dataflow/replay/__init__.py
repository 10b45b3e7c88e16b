"""Refused records, sent again."""
