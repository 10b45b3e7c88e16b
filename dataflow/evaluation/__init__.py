"""Scores detectors on labeled series. Imports neither Bytewax nor Kafka."""
