"""The detector `calibrated`."""
