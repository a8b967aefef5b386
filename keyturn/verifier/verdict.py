"""One decision about one token, which every answer renders."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

from keyturn.verifier.freshness import State


class Kind(StrEnum):
    """Active, inactive, or not known: never one for another."""

    ACTIVE = "active"
    INACTIVE = "inactive"
    UNKNOWN = "unknown"


NO_CLAIMS: Mapping[str, Any] = {}


class Verdict(msgspec.Struct, eq=False, gc=False):  # Many are kept, none in a circle: no collection visits them.
    """What was decided, why (a stable word), and how fresh the replica was.

    `rendered` keeps prepared reply bytes by dialect, so that an answer is made once.
    """

    kind: Kind
    reason: str
    state: State
    claims: Mapping[str, Any] = NO_CLAIMS
    rendered: dict[str, bytes] = msgspec.field(default_factory=dict)

    def __repr__(self) -> str:
        """Show the decision and nothing of the token."""
        return f"Verdict({self.kind}, {self.reason}, {self.state})"
