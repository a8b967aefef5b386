"""What an API asks of a token beyond its being genuine: audience and scopes."""

from typing import Any

import msgspec

from keyturn.contract.errors import ConfigurationError
from keyturn.contract.tokens import audiences


class Policy(msgspec.Struct, frozen=True, kw_only=True, eq=False, gc=False):
    """One named policy; an audience is always required (RFC 8725, 3.9).

    Compared by identity: make each policy once and keep it, since verdicts are cached under it.
    `scopes`: all of them must be granted. `max_staleness_seconds`: older replicas answer "unknown" for it.
    `issuers`: whose tokens it takes, each `iss` byte for byte; None stands for ours alone.
    """

    audience: str
    scopes: tuple[str, ...] = ()
    name: str = "default"
    max_staleness_seconds: float | None = None
    issuers: frozenset[str] | None = None

    def __post_init__(self) -> None:
        """Refuse a policy without an audience, or with a scope that is no scope token (RFC 6749, 3.3)."""
        if not self.audience:
            raise ConfigurationError(
                "a policy without an audience would accept tokens made for others",
                setting=f"policy.{self.name}.audience", mend="name the API that the tokens are for",
            )  # fmt: skip
        if any(not scope or not scope.isascii() or not scope.isprintable() or " " in scope for scope in self.scopes):
            raise ConfigurationError(
                "a scope is one word of printable ASCII",
                setting=f"policy.{self.name}.scopes", mend='list them, such as ["read", "write"]',
            )  # fmt: skip

    def takes(self, issuer: str, *, ours: str) -> bool:
        """Say whether it takes tokens of an issuer."""
        return issuer == ours if self.issuers is None else issuer in self.issuers

    def objection(self, claims: dict[str, Any]) -> str | None:
        """Return why these claims do not satisfy the policy: `audience`, `insufficient_scope`, or None."""
        if self.audience not in audiences(claims):
            return "audience"
        if self.scopes and not set(self.scopes) <= set(claims.get("scope", "").split(" ")):
            return "insufficient_scope"
        return None
