"""The key service: makes, publishes, rotates and revokes signing keys, and signs for the other services."""
