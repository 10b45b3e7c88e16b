"""Says what the records of a topic or a file are, and which settings read them."""
