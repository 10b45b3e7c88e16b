"""Turns the anomalies and the silence of an instance into incidents. Pure."""
