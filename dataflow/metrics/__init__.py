"""What the process has counted, for Prometheus."""
