"""The trees of half-space forests, equal to River's to the bit."""
