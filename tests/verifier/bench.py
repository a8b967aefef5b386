"""A replica to put statements before, and short ways to sign them."""

from typing import Any

import msgspec

from keyturn.contract import events as e
from keyturn.contract.encoding import encode_json
from keyturn.contract.envelope import StatementKey, StatementType
from keyturn.contract.positions import Lane
from keyturn.contract.selectors import SelectorKind
from keyturn.verifier.freshness import State
from keyturn.verifier.replica import Admission
from tests.clocks import ManualClock
from tests.world import ISSUER, Member, World

KEYS, REVOCATIONS = Lane


class Bench:
    """A world, one member that has read its beginning, and short ways to sign and admit."""

    def __init__(self, world: World, member: Member, clock: ManualClock) -> None:
        self.world, self.member, self.replica, self.clock = world, member, member.replica, clock

    def admit(self, lane: Lane, statement: bytes) -> Admission:
        """Let the replica look at a statement now."""
        return self.replica.admit(lane, statement, now=self.clock.now(), boottime=self.clock.boottime())

    def signed(
        self, lane: Lane, content: list[Any], *, by: StatementKey | None = None, **changes: Any
    ) -> e.SignedEvent:
        """Return the lane's next event."""
        return e.sign_event(by or self.world.roles[lane], self.world.event(lane, self.member, content, **changes))

    def revocation(self, jti: str = "a-token", **changes: Any) -> e.SignedEvent:
        """Return the next event of the revocations lane, for one token."""
        return self.signed(REVOCATIONS, [self.world.entry(SelectorKind.JTI, jti)], **changes)

    def head(self, lane: Lane, *, at: float | None = None, **changes: Any) -> bytes:
        """Return a head for the place where the replica stands, or another."""
        held = self.replica.position(lane)
        assert held is not None
        members: dict[str, Any] = {
            "epoch": held.epoch, "sequence": held.sequence, "hash": held.hash, "trust": 1,
            "at": self.clock.now() if at is None else at,
        } | changes  # fmt: skip
        return e.sign_head(self.world.roles[lane], e.HEADS[lane](**members)).compact

    def state(self) -> State:
        """Return what the replica may be used for now."""
        return self.replica.state(self.clock.now(), self.clock.boottime())

    def revoked(self, jti: str = "a-token") -> bool:
        """Say whether the replica knows a token as revoked."""
        return self.replica.revokes(self.replica.names({"iss": ISSUER, "jti": jti}))

    def raw_event(self, lane: Lane, spoil: Any) -> bytes:
        """Return a signed event that was changed as plain JSON before it was signed."""
        content = [self.world.new_key("EdDSA")] if lane is KEYS else [self.world.entry(SelectorKind.JTI, "x")]
        members = msgspec.to_builtins(self.world.event(lane, self.member, content))
        spoil(members)
        return self.world.roles[lane].sign(StatementType.EVENT, encode_json(members))
