"""What somebody may do to the feed who owns the store; each lasts as long as its block, and says what he does."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import jwt

from keyturn import entropy
from keyturn.contract.envelope import StatementKey
from keyturn.contract.jwk import public_jwk, thumbprint
from keyturn.contract.keys import Activated, Published, Revoked, Use
from keyturn.contract.positions import Lane
from keyturn.contract.selectors import Entry, Selector, SelectorKind
from keyturn.feed.redis import bell_channel, head_key, stream_key
from keyturn.feed.snapshots import chunks_key, snapshot_key
from tests.faults.fleet import Fleet
from tests.faults.intruder import stranger
from tests.faults.recorder import CLOCK, Held
from tests.faults.withstanding import Attack, Scene
from tests.waiting import eventually

Key = Callable[[Fleet, Lane], StatementKey]


def forged_revocation(key: Key, *, of: Lane = Lane.REVOCATIONS) -> Attack:
    """Make the attack of a revocation that this key signs, in a lane."""

    @asynccontextmanager
    async def attack(scene: Scene) -> AsyncIterator[None]:
        intruder, signer = scene.intruder, key(scene.people.fleet, of)
        event = await intruder.event(Lane.REVOCATIONS, [_revocation(scene)], signer, instead_of=of)
        await intruder.push(of, event, signer)
        yield

    return attack


def forged_key(key: Key) -> Attack:
    """Make the attack of a key, and of the revocation of the present one, that this key signs."""

    @asynccontextmanager
    async def attack(scene: Scene) -> AsyncIterator[None]:
        intruder, signer, private = scene.intruder, key(scene.people.fleet, Lane.KEYS), entropy.new_key("ES256")
        jwk = public_jwk(private.public_key())
        kid, now = thumbprint(jwk), CLOCK.now()
        changes = [
            Published(kid=kid, alg="ES256", jwk=jwk, use=Use.ACCESS, token_seconds=300),
            Activated(kid=kid, sign_until=now + 600, verify_until=now + 1200),
            Revoked(kid=scene.live.kid),
        ]
        claims = jwt.decode(scene.live.text, options={"verify_signature": False}) | {"sub": "intruder"}
        scene.forged.append(Held(jwt.encode(claims, private, algorithm="ES256", headers={"kid": kid, "typ": "at+jwt"})))
        await intruder.push(Lane.KEYS, await intruder.event(Lane.KEYS, changes, signer), signer)
        yield

    return attack


@asynccontextmanager
async def forged_head(scene: Scene) -> AsyncIterator[None]:
    """Sign heads by a strange key: for the present position, so that silence looks like life."""
    for lane in Lane:
        await scene.intruder.claim(lane, await scene.intruder.position(lane), stranger(scene.people.fleet, lane))
    yield


@asynccontextmanager
async def far_position(scene: Scene) -> AsyncIterator[None]:
    """Name a position far ahead, 9:9:x, beside a true statement."""
    for lane in Lane:
        await cast("Any", scene.intruder.redis.hset(head_key(lane), "position", "9:9:x"))
        await scene.intruder.redis.publish(bell_channel(lane), b"look")
    yield


@asynccontextmanager
async def no_position(scene: Scene) -> AsyncIterator[None]:
    """Name a position that is none."""
    for lane in Lane:
        await cast("Any", scene.intruder.redis.hset(head_key(lane), mapping={"position": b"\xff\n1:2"}))
        await scene.intruder.redis.publish(bell_channel(lane), b"look")
    yield


@asynccontextmanager
async def other_beater(scene: Scene) -> AsyncIterator[None]:
    """Date the heads ahead in another's name, so that the publishers hold theirs back."""
    for lane in Lane:
        ahead = {"beater": "intruder", "at": f"{int((CLOCK.now() + 4.9) * 1e6):020d}"}
        await cast("Any", scene.intruder.redis.hset(head_key(lane), mapping=ahead))
    yield


@asynccontextmanager
async def replayed_events(scene: Scene) -> AsyncIterator[None]:
    """Ring with the events of long ago, newest first."""
    for lane in Lane:
        for compact in reversed(await _events(scene, lane)):
            await scene.intruder.redis.publish(bell_channel(lane), compact)
    yield


@asynccontextmanager
async def yesterday(scene: Scene) -> AsyncIterator[None]:
    """Put everything back as it was before a revocation: streams, heads, snapshots, and ring with the old heads."""
    intruder, people = scene.intruder, scene.people
    copied, spare = await intruder.copy(), await people.token()
    assert await people.revoke(spare) == 200
    since = CLOCK.boottime()
    # A follower cannot tell from now what is younger than `stale`.
    await eventually(lambda: CLOCK.boottime() - since > people.fleet.stale_seconds, within_seconds=10)
    scene.revoked = spare
    await intruder.put_back(copied)
    for lane in Lane:
        statement = await cast("Any", intruder.redis.hget(head_key(lane), "statement"))
        await intruder.redis.publish(bell_channel(lane), statement)
    yield


@asynccontextmanager
async def reordered(scene: Scene) -> AsyncIterator[None]:
    """Swap the two newest revocations in the stream."""
    lane, redis = Lane.REVOCATIONS, scene.intruder.redis
    for _ in range(2):
        assert await scene.people.revoke(await scene.people.token()) == 200
    held = await scene.intruder.position(lane)
    stream, (older, newer) = stream_key(lane, held.epoch), (await _events(scene, lane))[-2:]
    last = held.sequence
    await redis.xdel(stream, f"{last - 1}-0", f"{last}-0")
    rest = await redis.xrange(stream)
    await redis.delete(stream)
    swapped = [(f"{last - 1}-0", {b"event": newer}), (f"{last}-0", {b"event": older})]
    for place, fields in [*rest, *swapped]:
        await redis.xadd(stream, cast("Any", fields), id=place)
    yield


@asynccontextmanager
async def truncated(scene: Scene) -> AsyncIterator[None]:
    """Delete every event."""
    for lane in Lane:
        position = await scene.intruder.position(lane)
        await scene.intruder.redis.xtrim(stream_key(lane, position.epoch), maxlen=0, approximate=False)
    yield


@asynccontextmanager
async def first_snapshot(scene: Scene) -> AsyncIterator[None]:
    """Put the very first snapshot in the place of the newest, and delete the events since."""
    for lane in Lane:
        genesis = (scene.people.fleet.directory / "genesis" / f"{lane}.jws").read_bytes().strip()
        await cast("Any", scene.intruder.redis.hset(snapshot_key(lane), mapping={"snapshot": genesis}))
    async with truncated(scene):
        yield


@asynccontextmanager
async def swapped_lanes(scene: Scene) -> AsyncIterator[None]:
    """Put each lane's head, snapshot and stream in the place of the other's."""
    redis = scene.intruder.redis
    names = [[head_key(lane), snapshot_key(lane), await stream_of(scene, lane)] for lane in Lane]
    for one, other in zip(*names, strict=True):
        here, there = await redis.dump(one), await redis.dump(other)
        for name, content in ((one, there), (other, here)):
            await redis.delete(name)
            if content is not None:
                await redis.restore(name, 0, content)
    yield


@asynccontextmanager
async def emptied(scene: Scene) -> AsyncIterator[None]:
    """Delete everything that the store holds of the feed."""
    for lane in Lane:
        names = (head_key(lane), snapshot_key(lane), chunks_key(lane), await stream_of(scene, lane))
        await scene.intruder.redis.delete(*names)
    yield


async def stream_of(scene: Scene, lane: Lane) -> str:
    """Name the stream of a lane's running epoch."""
    return stream_key(lane, (await scene.intruder.position(lane)).epoch)


async def _events(scene: Scene, lane: Lane) -> list[bytes]:
    rows = await scene.intruder.redis.xrange(await stream_of(scene, lane))
    return [fields[b"event"] for _, fields in rows]


def _revocation(scene: Scene) -> Entry:
    """Name the live token, as the revocation service would."""
    selector = Selector(iss=scene.people.fleet.issuer, kind=SelectorKind.JTI, value=scene.live.jti)
    return Entry(selector=selector, until=CLOCK.now() + 600)
