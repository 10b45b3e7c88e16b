"""OpenTelemetry's metrics (OTLP), in JSON and in protobuf.

format.py      which metrics are read, and how points become CPU: the format
metric.py      a metric as it is read from either
json.py        reads JSON
protobuf.py    reads protobuf; wire.py walks through its messages
template.py    reads at once the requests that come again but for values and times
"""

from dataflow.formats.otlp.format import Otlp, is_json

__all__ = ["Otlp", "is_json"]
