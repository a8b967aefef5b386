"""Keyturn: rotate signing keys and revoke tokens across a fleet of APIs in milliseconds."""

from keyturn.connected import Verifier
from keyturn.contract.errors import (
    ConfigurationError,
    FeedUnavailable,
    InvalidToken,
    IssuerKeysUnavailable,
    KeyturnError,
    ReplicaExpired,
)
from keyturn.contract.issuers import ForeignIssuer
from keyturn.verifier.policy import Policy

__all__ = [
    "ConfigurationError",
    "FeedUnavailable",
    "ForeignIssuer",
    "InvalidToken",
    "IssuerKeysUnavailable",
    "KeyturnError",
    "Policy",
    "ReplicaExpired",
    "Verifier",
]
