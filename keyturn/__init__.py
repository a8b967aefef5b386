"""Keyturn: rotate signing keys and revoke tokens across a fleet of APIs in milliseconds."""

from keyturn.connected import Verifier
from keyturn.contract.errors import ConfigurationError, FeedUnavailable, InvalidToken, KeyturnError, ReplicaExpired
from keyturn.verifier.policy import Policy

__all__ = [
    "ConfigurationError",
    "FeedUnavailable",
    "InvalidToken",
    "KeyturnError",
    "Policy",
    "ReplicaExpired",
    "Verifier",
]
