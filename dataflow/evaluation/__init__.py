"""What detectors are worth on labelled series. Knows neither Bytewax nor Kafka."""
