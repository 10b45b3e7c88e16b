"""Rules by patterns of instances, metrics, groups and labels: one file, which may change."""
