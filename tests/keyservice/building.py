"""A key service's inside over a world in memory: rotator, keyring and signer, as many as a test wants."""

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, cast

from keyservice.importing import Importer
from keyservice.keyring import Keyring
from keyservice.rotator import Rotator
from keyservice.sealing import KeySealer
from keyservice.signer import Signer
from keyservice.wrapping import FileWrapper, KeyWrapper
from keyturn.cli.kekfile import new_kek
from keyturn.contract.positions import Lane
from keyturn.contract.rotation import Barrier, RotationPolicy
from keyturn.contract.trust import Identity, IdentityKind, MaySign
from keyturn.feed.log import PresenceBoard
from keyturn.feed.presence import PresenceWatch
from keyturn.feed.publisher import Publisher
from keyturn.verifier.follower import unnoted
from tests.world import Member, World

KEK = new_kek(1.0)
Note: TypeAlias = Callable[..., None]
POLICY = RotationPolicy(
    algorithms=("ES256",), barrier=Barrier.REPORTS, cache_seconds=0, expired_seconds=60, skew_seconds=1,
    distribution_seconds=61, active_seconds=3600,
)  # fmt: skip


@dataclass
class Inside:
    """One key service's parts."""

    member: Member
    publisher: Publisher
    watch: PresenceWatch
    keyring: Keyring
    rotator: Rotator
    signer: Signer
    importer: Importer


def kek_file(*keks: dict[str, str]) -> Path:
    """Write a KEK file that lasts as long as the test run; one KEK unless others are given."""
    path = Path(tempfile.mkdtemp(prefix="keyturn-tests-")) / "kek.json"
    write_keks(path, *(keks or (KEK,)))
    return path


def write_keks(path: Path, *keks: dict[str, str]) -> None:
    """Write KEKs, the newest first, in one step as an operator's tool does."""
    fresh = path.with_suffix(".new")
    fresh.touch(mode=0o600)
    fresh.write_text(json.dumps({"keys": list(keks)}))
    fresh.replace(path)


async def inside(
    world: World, policy: RotationPolicy = POLICY, *, others: Sequence[RotationPolicy] = (), complete: bool = True
) -> Inside:
    """Wire one over the world's feed, for more uses if there are `others`; `complete`: its presence set is known."""
    wrapper = FileWrapper(kek_file())
    wired = wire(world, await world.caught_up(), policy, others=others, durable=complete, wrapper=wrapper)
    if complete:
        await wired.watch.look()
    return wired


def wire(
    world: World, member: Member, policy: RotationPolicy, *, others: Sequence[RotationPolicy] = (), durable: bool,
    wrapper: KeyWrapper, note: Note = unnoted,
) -> Inside:  # fmt: skip
    """Wire one over a process that follows the world's feed, or is about to."""
    feed, clock = world.feed, world.clock
    policies = {one.use: one for one in (policy, *others)}
    publisher = world.publisher(Lane.KEYS, member)
    watch = PresenceWatch(
        cast("PresenceBoard", feed), lambda: member.replica.trust, clock,
        live_seconds=policy.expired_seconds + policy.skew_seconds, durable=durable,
    )  # fmt: skip
    keyring = Keyring(KeySealer(wrapper), feed, member.replica)
    rotator = Rotator(
        publisher=publisher, follower=member.follower, watch=watch, keyring=keyring, policies=policies, clock=clock,
        note=note,
    )  # fmt: skip
    signer = Signer(keyring, member.replica, publisher, policies, clock)
    importer = Importer(
        publisher=publisher, follower=member.follower, keyring=keyring, policy=policy, clock=clock, note=note
    )
    return Inside(member, publisher, watch, keyring, rotator, signer, importer)


def allowed(typ: str = "at+jwt", *audiences: str) -> Identity:
    """Return an identity that may have a type signed, for some audiences or any."""
    may = MaySign(typ=typ, audiences=audiences, any_audience=not audiences)
    return Identity(kind=IdentityKind.SERVICE, jwk={}, may_sign=(may,))
