"""What becomes of the anomalies and the silence of an instance. Pure."""
