"""What a raw record may look like: a format a file, found by name. Pure."""

from dataflow.formats.base import Fields, Format, Point, RecordError
from dataflow.plugins import Kind

__all__ = ["KIND", "Fields", "Format", "Point", "RecordError"]

KIND = Kind(
    "format",
    "ANOMALY_FORMAT",
    "dataflow.formats",
    {
        "json": "dataflow.formats.json:Json",
        "cloudwatch": "dataflow.formats.cloudwatch:CloudWatch",
        "otlp": "dataflow.formats.otlp:Otlp",
        "telegraf": "dataflow.formats.telegraf:Telegraf",
        "prometheus": "dataflow.formats.prometheus:Prometheus",
        "metricbeat": "dataflow.formats.metricbeat:Metricbeat",
        "vector": "dataflow.formats.vector:Vector",
        "fluent-bit": "dataflow.formats.fluent_bit:FluentBit",
        "collectd": "dataflow.formats.collectd:Collectd",
    },
)
"""A new built-in format is a file beside this one and a line here."""
