"""The recovery store: whose it is, its files, and the decisions of timers."""
