"""Security Event Tokens out: each revocation told to whoever is configured, pushed (RFC 8935) or polled (RFC 8936)."""
