"""What a raw record may look like. Pure."""
