"""One decision about one token, which every answer renders."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from keyturn.verifier.freshness import State


class Kind(StrEnum):
    """Active, inactive, or not known: never one for another."""

    ACTIVE = "active"
    INACTIVE = "inactive"
    UNKNOWN = "unknown"


NO_CLAIMS: Mapping[str, Any] = {}


class Verdict:
    """What was decided, why (a stable word), and how fresh the replica was.

    `rendered` keeps prepared reply bytes by dialect, so that an answer is made once.
    """

    __slots__ = ("claims", "kind", "reason", "rendered", "state")

    def __init__(self, kind: Kind, reason: str, state: State, claims: Mapping[str, Any] = NO_CLAIMS) -> None:
        self.kind, self.reason, self.state, self.claims = kind, reason, state, claims
        self.rendered: dict[str, bytes] = {}

    def __repr__(self) -> str:
        """Show the decision and nothing of the token."""
        return f"Verdict({self.kind}, {self.reason}, {self.state})"
