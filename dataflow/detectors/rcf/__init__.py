"""The random cut forest: how far a reading displaces the trees of a sample of earlier ones."""
