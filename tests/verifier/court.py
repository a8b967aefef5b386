"""A verifier under a feed that a test drives by hand."""

from keyturn.contract.positions import Lane
from keyturn.contract.selectors import SelectorKind
from keyturn.verifier.policy import Policy
from keyturn.verifier.verdict import Kind
from tests.clocks import ManualClock
from tests.world import Member, World, policy

SKEW = 2.0
READ = policy(scopes=("read",))


class Court:
    """A verifier, and the publishers of both lanes on top of the same replica."""

    def __init__(self, world: World, member: Member, clock: ManualClock) -> None:
        self.world, self.member, self.clock = world, member, clock
        self.verifier = member.verifier
        self.keys, self.revocations = (world.publisher(lane, member) for lane in Lane)

    def judge(self, token: bytes, under: Policy = READ) -> tuple[Kind, str]:
        """Return kind and reason."""
        verdict = self.verifier.judge(token, under)
        return verdict.kind, verdict.reason

    async def beat(self) -> None:
        """Let both publishers be heard."""
        for publisher in (self.keys, self.revocations):
            await publisher.beat()

    async def advance(self, seconds: float) -> None:
        """Move the time on, with the publishers alive."""
        self.clock.advance(seconds)
        for publisher in (self.keys, self.revocations):
            assert await publisher.beat()
        await self.member.follower._read_all()

    async def revoke(self, kind: SelectorKind, value: str = "", **moments: float) -> None:
        """Publish one revocation."""
        await self.revocations.append([self.world.entry(kind, value, **moments)])


ACTIVE = (Kind.ACTIVE, "active")


def inactive(reason: str) -> tuple[Kind, str]:
    """Return what a refusal looks like."""
    return Kind.INACTIVE, reason
