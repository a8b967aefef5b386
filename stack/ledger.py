"""What the demo knows of each token, and so which answers were wrong."""

from dataclasses import dataclass, field
from enum import Enum, auto

import jwt


class Life(Enum):
    """Whether a token must pass, may do either, or must not pass."""

    LIVE = auto()
    DYING = auto()  # Its revocation was sent, and no receipt says yet that all have adopted it.
    DEAD = auto()


@dataclass(eq=False)
class Held:
    """A token that the demo holds; `life` is changed before an order is sent and after its receipt came."""

    token: str
    kid: str = field(init=False)
    life: Life = Life.LIVE

    def __post_init__(self) -> None:
        """Read the key's id from the header: the demo issues nothing and trusts its issuer."""
        self.kid = jwt.get_unverified_header(self.token)["kid"]


@dataclass
class Ledger:
    """Counts, and the figures of each event in milliseconds."""

    held: list[Held] = field(default_factory=list)
    tokens_issued: int = 0
    verified: int = 0
    false_rejects: list[str] = field(default_factory=list)
    false_accepts: list[str] = field(default_factory=list)
    revocation_ms: list[float] = field(default_factory=list)
    rotation_ms: list[float] = field(default_factory=list)
    emergencies: int = 0
    revocations: int = 0

    def took(self, token: str) -> Held:
        """Note a token that was issued just now."""
        held = Held(token)
        self.held.append(held)
        self.tokens_issued += 1
        return held

    def live(self) -> list[Held]:
        """Return the tokens that must pass."""
        return [one for one in self.held if one.life is Life.LIVE]

    def answered(self, held: Held, before: Life, status: int, sidecar: str) -> None:
        """Judge one answer: `before` is the token's life when the request began."""
        self.verified += 1
        if before is Life.LIVE and held.life is Life.LIVE and status != 200:  # noqa: PLR2004
            self.false_rejects.append(f"{sidecar} answered {status} for a live token of key {held.kid[:8]}")
        if before is Life.DEAD and status == 200:  # noqa: PLR2004
            self.false_accepts.append(f"{sidecar} passed a revoked token of key {held.kid[:8]}")


def percentile(figures: list[float], share: float) -> float:
    """Return the value below which that share of the figures lies (nearest rank), 0 if there are none."""
    if not figures:
        return 0.0
    ordered = sorted(figures)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2)
