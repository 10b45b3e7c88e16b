"""What people say of anomalies, and what that keeps quiet."""
