"""What is true in a run, told from what the server took and what clients were answered; no process is asked."""

from dataclasses import dataclass, field

from keyturn.contract.events import KeysEvent, RevocationsEvent, SignedEvent
from keyturn.contract.keys import KeyRecord, KeySet, Revoked
from keyturn.contract.selectors import Selector, SelectorKind
from tests.rotation.facts import Landed, Token


@dataclass(eq=False)
class Minted(Token):
    """A token that was handed out, with what a revocation can call it by."""

    jti: str
    grant_id: str
    granted_at: float
    sub: str

    def named_by(self, selector: Selector) -> bool:
        """Say whether a revocation names this token: in the plainest way, on purpose not that of production."""
        match selector.kind:
            case SelectorKind.JTI:
                return selector.value == self.jti
            case SelectorKind.GRANT:
                return selector.value == self.grant_id
            case SelectorKind.SUBJECT:
                return selector.value == self.sub and self.granted_at < (selector.before or 0.0)
        raise AssertionError(f"no client revokes by {selector.kind}")


@dataclass(eq=False)
class Revocation:
    """One revocation that a client asked for; moments are virtual seconds."""

    selector: Selector
    tokens: list[Minted]  # What it named when it was asked for.
    until: float
    asked: float
    landed: float | None = None
    acknowledged: float | None = None
    receipt: float | None = None  # When its receipt said that all have adopted it,
    adopters: frozenset[str] = frozenset()  # and who that was.


@dataclass
class Truth:
    """Keys and revocations as the server has them."""

    keys: KeySet = field(default_factory=KeySet)
    chain: list[Landed] = field(default_factory=list)
    tokens: list[Minted] = field(default_factory=list)
    revocations: list[Revocation] = field(default_factory=list)
    keys_revoked: dict[str, float] = field(default_factory=dict)  # kid → when its tombstone landed.
    keys_in_doubt: set[str] = field(default_factory=set)  # Somebody asked for their tombstone.
    keys_ended: dict[str, float] = field(default_factory=dict)  # kid → when it stopped being the active one.

    def landed(self, signed: SignedEvent, moment: float) -> None:
        """Take an event that the server has taken."""
        event = signed.event
        if isinstance(event, RevocationsEvent):
            for entry in event.entries:
                for one in self.revocations:
                    if one.landed is None and one.selector == entry.selector:
                        one.landed = moment
        elif isinstance(event, KeysEvent):
            before = self.keys
            self.keys = before.after(event.changes, at=event.at, place=(event.epoch, event.sequence))
            landed = Landed(event, moment, before, self.keys)
            self.chain.append(landed)
            for change in event.changes:
                if isinstance(change, Revoked):
                    self.keys_revoked.setdefault(change.kid, moment)
            for key in before:
                if landed.ended(key.kid):
                    self.keys_ended[key.kid] = moment

    def key(self, token: Token) -> KeyRecord:
        """Return the record of the key that signed a token."""
        record = self.keys.get(token.kid)
        assert record is not None, "signed by a key that the server never heard of"
        return record

    def revoked(self, token: Minted) -> list[Revocation]:
        """Return the revocations that name a token and have landed."""
        return [one for one in self.revocations if one.landed is not None and token.named_by(one.selector)]

    def in_doubt(self, token: Minted) -> bool:
        """Say whether anybody has asked for its end, or its key's: then it may be rejected, landed or not."""
        return token.kid in self.keys_in_doubt or any(token.named_by(one.selector) for one in self.revocations)
