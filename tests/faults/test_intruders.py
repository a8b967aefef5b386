"""The store is in a stranger's hands, or one role's key in the other's: no key, no revocation, no token comes of it."""

import json
from collections.abc import AsyncIterator

import jwt
import pytest

from keyturn import entropy
from keyturn.contract.envelope import StatementKey
from keyturn.contract.jwk import load_ed25519_private, public_jwk, thumbprint
from keyturn.contract.keys import Activated, Published, Revoked, Use
from keyturn.contract.positions import Lane
from keyturn.contract.selectors import Entry, Selector, SelectorKind
from tests.faults.intruder import Intruder
from tests.faults.people import People
from tests.faults.recorder import CLOCK, Held
from tests.waiting import eventually

REFUSED = "keyturn_replica_statements_refused_total"


@pytest.fixture
async def intruder(people: People) -> AsyncIterator[Intruder]:
    """Break into the store; at the end it is mended."""
    async with people.fleet.redis() as redis:
        intruder = Intruder(redis)
        async with intruder.undone(Lane):
            yield intruder


def role(people: People, lane: Lane) -> StatementKey:
    """Steal the key of a lane's role."""
    return StatementKey(
        load_ed25519_private(json.loads((people.fleet.directory / "roles" / f"{lane}.jwk").read_text()))
    )


def signer(people: People, who: str, lane: Lane) -> StatementKey:
    """Return a key that has no right to a lane."""
    if who == "stranger":
        return StatementKey(entropy.new_statement_key())
    [other] = set(Lane) - {lane}
    return role(people, other)


def revocation(people: People, held: Held) -> Entry:
    """Name a token, as the revocation service does."""
    selector = Selector(iss=people.fleet.issuer, kind=SelectorKind.JTI, value=held.jti)
    return Entry(selector=selector, until=CLOCK.now() + 600)


async def until_refused(people: People, before: dict[str, float]) -> None:
    """Wait until every sidecar has looked at something and refused it."""

    async def looked() -> bool:
        return all([await people.metric(name, REFUSED) > before[name] for name in people.sidecars()])

    await eventually(looked, saying=people.fleet.last_words)


async def refusals(people: People) -> dict[str, float]:
    """Return how often each sidecar has refused a statement."""
    return {name: await people.metric(name, REFUSED) for name in people.sidecars()}


async def places(people: People) -> list[tuple[int, int]]:
    """Return where each sidecar stands in both lanes."""
    states = [await people.state(name) for name in people.sidecars()]
    return [(state["keys"], state["revocations"]) for state in states]


@pytest.mark.parametrize("who", ["stranger", "other role"])
async def test_a_forged_revocation_in_stream_and_channel_revokes_nothing(
    people: People, intruder: Intruder, who: str
) -> None:
    """Neither a stranger nor the holder of the keys role can end anybody's session."""
    live, before, stood = await people.token(), await refusals(people), await places(people)
    key = signer(people, who, Lane.REVOCATIONS)
    event = await intruder.event(Lane.REVOCATIONS, [revocation(people, live)], key)
    await intruder.push(Lane.REVOCATIONS, event, key)
    await until_refused(people, before)
    assert await people.statuses(live) == [200, 200]
    assert await places(people) == stood
    assert await people.introspect(live) is not False  # True, or that it cannot tell any more.


@pytest.mark.parametrize("who", ["stranger", "other role"])
async def test_a_forged_key_in_stream_and_channel_signs_nothing(people: People, intruder: Intruder, who: str) -> None:
    """Neither a stranger nor the holder of the revocations role can mint a token, or take a key away."""
    live, before, stood = await people.token(), await refusals(people), await places(people)
    private = entropy.new_key("ES256")
    jwk = public_jwk(private.public_key())
    kid, now = thumbprint(jwk), CLOCK.now()
    changes = [
        Published(kid=kid, alg="ES256", jwk=jwk, use=Use.ACCESS, token_seconds=300),
        Activated(kid=kid, sign_until=now + 600, verify_until=now + 1200),
        Revoked(kid=live.kid),
    ]
    key = signer(people, who, Lane.KEYS)
    await intruder.push(Lane.KEYS, await intruder.event(Lane.KEYS, changes, key), key)
    await until_refused(people, before)
    claims = jwt.decode(live.text, options={"verify_signature": False}) | {"sub": "intruder"}
    forged = Held(jwt.encode(claims, private, algorithm="ES256", headers={"kid": kid, "typ": "at+jwt"}))
    assert await people.statuses(forged) == [401, 401]
    assert await people.statuses(live) == [200, 200]
    assert await places(people) == stood


async def test_a_statement_of_one_lane_counts_for_nothing_in_the_other(people: People, intruder: Intruder) -> None:
    """What a role signs truly for its own lane must not be carried over: each lane has its own voice."""
    live, before, stood = await people.token(), await refusals(people), await places(people)
    key = role(people, Lane.REVOCATIONS)
    event = await intruder.event(Lane.REVOCATIONS, [revocation(people, live)], key, instead_of=Lane.KEYS)
    await intruder.push(Lane.KEYS, event, key)
    await until_refused(people, before)
    assert await people.statuses(live) == [200, 200]
    assert await places(people) == stood


async def test_after_the_store_is_mended_everything_goes_on(people: People) -> None:
    """An intruder can stop the lanes for as long as he is there, and leaves nothing behind that stays."""
    async with people.fleet.redis() as redis:
        intruder, stranger = Intruder(redis), StatementKey(entropy.new_statement_key())
        live = await people.token()
        async with intruder.undone([Lane.REVOCATIONS]):
            event = await intruder.event(Lane.REVOCATIONS, [revocation(people, live)], stranger)
            await intruder.push(Lane.REVOCATIONS, event, stranger)
            assert await people.revoke(await people.token()) is None
            assert people.refused == [(503, "1")]
    victim = await people.token()

    async def accepted() -> bool:
        return await people.revoke(victim) == 200

    await eventually(accepted)
    assert await people.statuses(victim) == [401, 401]
    assert await people.statuses(live) == [200, 200]
