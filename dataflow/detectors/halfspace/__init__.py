"""Half-space trees, equal to River's to the bit."""
