"""Who was told what, and when: tokens, orders, receipts, answers, states (boot-time seconds). It judges nothing."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import jwt

from keyturn.clock import SystemClock

CLOCK = SystemClock()


@dataclass(eq=False)
class Order:
    """A revocation of a token or of a key, and what was promised about it so far."""

    sent_at: float
    acknowledged_at: float | None = None  # Somebody was told that it is durable.
    adopted_at: float | None = None  # Somebody was told that every live verifier obeys it.


@dataclass(eq=False)
class Held:
    """A token that somebody was given; `order` is its revocation, once it has been sent."""

    text: str
    asked_at: float = float("-inf")  # When the request for it was sent, and
    issued_at: float = float("-inf")  # when it came.
    order: Order | None = None
    kid: str = field(init=False)
    jti: str = field(init=False)

    def __post_init__(self) -> None:
        """Read what it says of itself."""
        self.kid = jwt.get_unverified_header(self.text)["kid"]
        self.jti = jwt.decode(self.text, options={"verify_signature": False})["jti"]


@dataclass(frozen=True)
class Answer:
    """What a sidecar said of a token, and when it was asked and heard; only a pass tells the sidecar's state."""

    held: Held
    sidecar: str
    began_at: float
    ended_at: float
    status: int
    state: str


@dataclass(frozen=True)
class Seen:
    """What a sidecar said of its own state, and when it was asked and heard."""

    sidecar: str
    began_at: float
    ended_at: float
    state: str


@dataclass(frozen=True)
class Rotation:
    """A rotation that was acknowledged, and the key that signs from then on."""

    sent_at: float
    acknowledged_at: float
    kid: str


@dataclass
class Recorder:
    """Keeps everything that was said."""

    tokens: list[Held] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    states: list[Seen] = field(default_factory=list)
    rotations: list[Rotation] = field(default_factory=list)
    keys: dict[str, Order] = field(default_factory=dict)  # The revocations of keys, by kid.

    def orders(self, held: Held) -> Iterable[Order]:
        """Return what was ordered against a token: its own revocation, and its key's."""
        return [order for order in (held.order, self.keys.get(held.kid)) if order is not None]

    def live(self) -> list[Held]:
        """Return the tokens that nobody has asked to revoke."""
        return [held for held in self.tokens if not self.orders(held)]

    def acknowledged(self) -> list[Held]:
        """Return the tokens whose revocation somebody counts on."""
        return [held for held in self.tokens if any(order.acknowledged_at for order in self.orders(held))]

    def since(self, moment: float) -> list[Answer]:
        """Return the answers to requests that began after a moment."""
        return [answer for answer in self.answers if answer.began_at >= moment]
