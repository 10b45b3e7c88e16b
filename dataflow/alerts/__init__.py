"""Which anomalies are alerts, and which belong together. Pure: no I/O, no Bytewax, no clock."""
