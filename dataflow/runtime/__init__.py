"""What the flow relies on of Bytewax's insides, and nothing else."""
