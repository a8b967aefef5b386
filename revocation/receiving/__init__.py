"""Security events in: what other providers say has ended (RFC 8935, OIDC back-channel logout) becomes revocations."""
