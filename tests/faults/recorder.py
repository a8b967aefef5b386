"""Who was told what, and when: tokens, the answers about them, and which of those answers were wrong."""

from dataclasses import dataclass, field

import jwt

from keyturn.clock import SystemClock

CLOCK = SystemClock()


@dataclass(eq=False)
class Held:
    """A token, and what was ordered and promised about it (boot-time seconds)."""

    text: str
    asked_at: float | None = None  # Its revocation, or its key's, was sent.
    acknowledged: bool = False  # Somebody was told that it is durable.
    adopted_at: float | None = None  # Somebody was told that every live verifier obeys it.
    kid: str = field(init=False)
    jti: str = field(init=False)

    def __post_init__(self) -> None:
        """Read what it says of itself."""
        self.kid = jwt.get_unverified_header(self.text)["kid"]
        self.jti = jwt.decode(self.text, options={"verify_signature": False})["jti"]


@dataclass(frozen=True)
class Answer:
    """What a sidecar said of a token, and when it was asked and heard."""

    held: Held
    sidecar: str
    began_at: float
    ended_at: float
    status: int
    state: str


@dataclass
class Recorder:
    """Keeps everything that was said."""

    tokens: list[Held] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    def live(self) -> list[Held]:
        """Return the tokens that nobody has asked to revoke."""
        return [held for held in self.tokens if held.asked_at is None]

    def acknowledged(self) -> list[Held]:
        """Return the tokens whose revocation somebody counts on."""
        return [held for held in self.tokens if held.acknowledged]

    def false_rejects(self) -> list[Answer]:
        """Return refusals, of whatever status, of tokens that nobody had asked to revoke by then."""
        return [
            answer
            for answer in self.answers
            if answer.status != 200 and (answer.held.asked_at is None or answer.held.asked_at > answer.ended_at)
        ]

    def false_accepts(self) -> list[Answer]:
        """Return passes to requests that began after the receipt by which all verifiers had adopted the revocation."""
        return [
            answer
            for answer in self.answers
            if answer.status == 200 and answer.held.adopted_at is not None and answer.began_at > answer.held.adopted_at
        ]

    def since(self, moment: float) -> list[Answer]:
        """Return the answers to requests that began after a moment."""
        return [answer for answer in self.answers if answer.began_at >= moment]
