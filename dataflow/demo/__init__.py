"""For demos and tests: an embedded broker, a producer, the sample stream, a sine wave."""
