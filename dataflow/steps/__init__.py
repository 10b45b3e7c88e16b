"""The steps of the flow, each a module named after it."""
