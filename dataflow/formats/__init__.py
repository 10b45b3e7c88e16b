"""The formats of raw records. No network and no Kafka."""
