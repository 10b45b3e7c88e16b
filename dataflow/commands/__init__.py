"""The commands of `python -m dataflow`, one a file."""
