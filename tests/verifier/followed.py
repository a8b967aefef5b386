"""What tests of a follower ask of a member, and do to the time."""

from collections.abc import Callable

from keyturn.contract.positions import Lane
from keyturn.contract.selectors import SelectorKind
from keyturn.verifier.freshness import State
from tests.clocks import ManualClock
from tests.waiting import eventually
from tests.world import Member, World

KEYS, REVOCATIONS = Lane


def state(member: Member, clock: ManualClock) -> State:
    """Return what a member's replica may be used for now."""
    return member.replica.state(clock.now(), clock.boottime())


async def as_time_passes(clock: ManualClock, seconds: float, predicate: Callable[[], object]) -> None:
    """Wait until something holds, moving the clock on by so much at each look."""

    def look() -> object:
        clock.advance(seconds)
        return predicate()

    await eventually(look)


async def revoke(world: World, member: Member, *jtis: str) -> None:
    """Publish revocations, one event each."""
    publisher = world.publisher(REVOCATIONS, member)
    for jti in jtis:
        await publisher.append([world.entry(SelectorKind.JTI, jti)])


def revoked(member: Member, jti: str) -> bool:
    """Say whether a member knows a token as revoked."""
    return member.replica.revokes(member.replica.names({"iss": member.replica.issuer, "jti": jti}))
