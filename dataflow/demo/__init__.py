"""What the demos run on: the embedded broker, the sample, the sine wave."""
