"""Each JWT names a place in a status list that no other token has, and leaves only once the store knows of it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from authorization.app import AuthorizationService
from authorization.placing import LEASE_SECONDS, Placer
from keyturn.contract.encoding import decode_object, encode_json, unb64url
from keyturn.contract.errors import StoreUnavailable
from keyturn.contract.jwk import ed25519_private_jwk
from keyturn.contract.statuslists import SIZE, ListedToken
from keyturn.verifier.verdict import Kind
from serving.listings import BLOCK, Listings
from tests.authorization.signer import FakeSigner
from tests.building import CLIENT, FickleRedis, Standing, basic, new_record_keys, serving_at, write_secret
from tests.clocks import ManualClock
from tests.world import policy

ISSUER = "https://issuer.example"


@pytest.fixture
def redis() -> FickleRedis:
    """Return an empty store."""
    return FickleRedis()


@pytest.fixture
def listings(redis: FickleRedis) -> Listings:
    """Return what the store knows of status lists."""
    return Listings(redis, new_record_keys())


def placer(listings: Listings, clock: ManualClock) -> Placer:
    """Return the placer of one process."""
    return Placer(listings, issuer=ISSUER, clock=clock, token_seconds=300.0)


def claims(number: int) -> dict[str, Any]:
    """Return the claims of a token."""
    return {"jti": f"j{number}", "grant_id": "g", "sub": "s", "client_id": "c", "aud": "a", "exp": 1_800_000_300}


async def test_several_processes_give_no_place_twice(listings: Listings) -> None:
    """Section 13.3; each takes blocks of its own, however many ask at once, and no order of issue is to be seen."""
    clock = ManualClock()
    processes = [placer(listings, clock) for _ in range(3)]
    places = await asyncio.gather(*(processes[number % 3].take() for number in range(3 * BLOCK + 3)))
    taken = {(place.name, place.idx) for place in places}
    assert len(taken) == len(places)
    assert len({name for name, _ in taken}) == 1
    indices = [place.idx for place in places[::3]]
    assert max(indices) - min(indices) > SIZE // 2
    assert {place.claim["status_list"]["uri"] for place in places} == {f"{ISSUER}/statuslists/{places[0].name}"}
    assert all(
        place.claim == {"status_list": {"idx": place.idx, "uri": place.claim["status_list"]["uri"]}} for place in places
    )


async def test_those_who_ask_together_are_written_together(listings: Listings, redis: FickleRedis) -> None:
    """A round trip for each token would halve what one process issues."""
    one, written = placer(listings, ManualClock()), []
    write = listings.write

    async def count(rows: Any, **options: Any) -> None:
        written.append(sum(map(len, rows.values())))
        await write(rows, **options)

    listings.write = count  # type: ignore[method-assign]
    places = [await one.take() for _ in range(100)]
    await asyncio.gather(*(one.note(place, claims(number)) for number, place in enumerate(places)))
    assert sum(written) == 100
    assert len(written) <= 3
    tokens = [token for row in await listings.read(None) for token in listings.opened(row) or ()]
    assert tokens == [ListedToken.of(claims(number), place.idx) for number, place in enumerate(places)]


async def test_an_old_lease_is_thrown_away(listings: Listings) -> None:
    """Else an idle process would keep a list open for as long as it runs."""
    clock = ManualClock()
    one, other = placer(listings, clock), placer(listings, clock)
    first = await one.take()
    clock.advance(300.0)
    assert (await other.take()).name != first.name  # The list took tokens for long enough.
    assert (await one.take()).name != first.name
    still = await one.take()
    clock.advance(LEASE_SECONDS - 1)
    assert (await one.take()).name == still.name


async def test_a_store_that_is_away_gives_no_place(listings: Listings, redis: FickleRedis) -> None:
    """Neither does a place that cannot be written down count; all who wait hear of it, and later it goes on."""
    one = placer(listings, ManualClock())
    redis.away = True
    for told in await asyncio.gather(*(one.take() for _ in range(5)), return_exceptions=True):
        assert isinstance(told, StoreUnavailable)
    redis.away = False
    place = await one.take()
    redis.away = True
    with pytest.raises(StoreUnavailable):
        await one.note(place, claims(1))
    redis.away = False
    assert (await one.take()).idx != place.idx


@pytest.fixture
async def placed(stage: Standing, signer: FakeSigner, identity: Any, tmp_path: Path) -> AsyncIterator[ClientSession]:
    """Serve the authorization service with status lists."""
    write_secret(tmp_path / "identity.jwk", encode_json(ed25519_private_jwk(identity)).decode())
    own = {"identity_file": "identity.jwk", "signer": f"unix:{tmp_path}/run/sign.sock"}
    settings = stage.settings(tmp_path, authorization=own, statuslists={"enabled": True})
    async with serving_at([AuthorizationService(settings, stage.parts)], stage.parts) as client:
        yield client


async def ask(session: ClientSession, **form: str) -> tuple[int, dict[str, Any]]:
    """Ask for a token as the client."""
    data = {"grant_type": "client_credentials", **form}
    async with session.post("/token", data=data, headers=basic(CLIENT)) as answer:
        return answer.status, await answer.json()


async def test_a_jwt_carries_its_place_and_verifiers_take_it(placed: ClientSession, stage: Standing) -> None:
    """Section 6.2; what stands at the place is this very token, and it stood there before the token left."""
    status, content = await ask(placed)
    assert status == 200
    token = content["access_token"]
    told = decode_object(unb64url(token.split(".")[1]))
    assert told["status"].keys() == {"status_list"}
    named = told["status"]["status_list"]
    assert named.keys() == {"idx", "uri"}
    listings = Listings(stage.redis, stage.record_keys)
    [row] = await listings.read(None)
    assert listings.opened(row) == (ListedToken.of(told, named["idx"]),)
    assert named["uri"] == f"{stage.world.issuer}/statuslists/{row.name}"
    assert stage.member.verifier.judge(token.encode(), policy()).kind is Kind.ACTIVE


async def test_an_opaque_token_has_no_place(placed: ClientSession, stage: Standing) -> None:
    """Nobody but introspection can read it, which knows better."""
    _, content = await ask(placed, token_format="opaque")
    record = await stage.records.get(content["access_token"])
    assert record is not None
    assert "status" not in record
    assert await Listings(stage.redis, stage.record_keys).read(None) == []


async def test_no_token_leaves_whose_place_is_not_written_down(
    placed: ClientSession, store: FickleRedis, signer: FakeSigner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its revocation would never show: 503, though the signer signed it; and a signer that fails leaves no token."""
    assert (await ask(placed))[0] == 200

    async def fail(*_arguments: Any, **_options: Any) -> None:
        raise StoreUnavailable("gone")

    monkeypatch.setattr(Listings, "write", fail)
    signed = len(signer.batches)
    status, content = await ask(placed)
    assert (status, content["error"]) == (503, "temporarily_unavailable")
    assert len(signer.batches) == signed + 1
    monkeypatch.undo()
    signer.status = 503
    assert (await ask(placed))[0] == 503
    signer.status = 200
    assert (await ask(placed))[0] == 200


async def test_the_metadata_name_the_lists(placed: ClientSession, stage: Standing) -> None:
    """Section 9.1: `status_list_aggregation_endpoint`."""
    async with placed.get("/.well-known/oauth-authorization-server") as answer:
        content = await answer.json()
    assert content["status_list_aggregation_endpoint"] == f"{stage.world.issuer}/statuslists"
