"""The Prometheus metrics of this process, and the server for them."""
