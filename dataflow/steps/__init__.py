"""The steps of the flow, each a module of its name."""
