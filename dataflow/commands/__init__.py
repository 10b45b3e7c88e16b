"""The commands of `python -m dataflow`, one module each."""
