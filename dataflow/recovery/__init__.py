"""The recovery store: which flow owns it, its files, and the log of timer decisions."""
