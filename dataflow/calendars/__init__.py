"""The time of an instance: its zone and its holidays. Pure, but for the files that are named."""
