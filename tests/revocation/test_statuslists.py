"""`GET /statuslists/{id}`: what draft-ietf-oauth-status-list-21 asks of it, and that no acknowledged bit is missing."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from redis.asyncio import Redis

from keyturn import entropy
from keyturn.contract.encoding import decode_object, unb64url
from keyturn.contract.envelope import StatementKey
from keyturn.contract.errors import ConfigurationError
from keyturn.contract.jwk import ed25519_private_jwk
from keyturn.contract.keys import Revoked
from keyturn.contract.positions import Lane
from keyturn.contract.selectors import SelectorKind
from keyturn.contract.statuslists import ListedToken, reference
from keyturn.contract.trust import MaySign
from revocation.statuslists import StatusLists
from serving.listening import listening
from serving.listings import ROWS_KEY, Listings
from serving.records import RecordKeys
from tests.authorization.signer import FakeSigner
from tests.contract.statusdecoder import status_in
from tests.revocation.conftest import PROVIDER, Office, office_on, private_file
from tests.waiting import eventually

TTL, LIFE = 60, 900
KINDS = ("jti", "grant_id", "sid", "sub", "client_id", "aud", "before")


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Bureau:
    """A revocation service with status lists, the store's rows, and its signer."""

    office: Office
    listings: Listings
    signer: FakeSigner

    @property
    def lists(self) -> StatusLists:
        """Return the lists that the service keeps."""
        assert self.office.service._lists is not None
        return self.office.service._lists

    async def list_token(self, *, name: str = "first", index: int = 7, **changes: Any) -> dict[str, Any]:
        """Put a token where authorization would have put it; return its claims."""
        claims = self.office.stage.world.claims(**changes)
        await self.listings.write({name: [ListedToken.of(claims, index)]}, keep_seconds=3600.0)
        return {**claims, "status": reference(claims["iss"], name, index)}

    async def get(self, path: str = "/statuslists/first", method: str = "GET", **headers: str) -> Answer:
        """Ask for a list; header names are written with underscores."""
        plain = {"Accept-Encoding": "identity"} | {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.office.http.request(method, path, headers=plain, auto_decompress=False) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def status(self, claims: dict[str, Any]) -> int:
        """Return a token's status as a relying party finds it (section 8.3)."""
        answer = await self.get("/statuslists/" + claims["status"]["status_list"]["uri"].rpartition("/")[2])
        assert answer.status == 200, answer.body
        header, payload = opened(answer.body)
        return status_in(claims, header, payload, self.office.stage.world.clock.now())

    async def revoke(self, **selector: Any) -> dict[str, Any]:
        """Revoke by a selector and return the receipt."""
        status, receipt = await self.office.admin("POST", "/revocations", {"selector": selector})
        assert status == 200, receipt
        return dict(receipt)


def opened(token: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a JWT's header and claims."""
    header, payload, _ = token.split(b".")
    return decode_object(unb64url(header)), decode_object(unb64url(payload))


@asynccontextmanager
async def bureau_on(valkey: Redis, url: str, folder: Path, **changes: Any) -> AsyncIterator[Bureau]:
    """Run the whole on a Valkey."""
    identity, socket = entropy.new_statement_key(), f"unix:{folder}/run/sign.sock"
    trust = {
        "services": {"revocation": StatementKey(identity)},
        "may_sign": {"revocation": (MaySign(typ="statuslist+jwt", any_audience=True),)},
    }
    names: dict[str, Any] = {
        "KEYTURN_STATUSLISTS__ENABLED": "true",
        "KEYTURN_STATUSLISTS__TTL": str(TTL),
        "KEYTURN_REVOCATION__SIGNER": socket,
        "KEYTURN_REVOCATION__IDENTITY_FILE": str(
            private_file(folder / "identity.jwk", json.dumps(ed25519_private_jwk(identity)))
        ),
    }
    async with AsyncExitStack() as stack:
        office = await stack.enter_async_context(office_on(valkey, url, folder, trust=trust, **(names | changes)))
        signer = FakeSigner(office.stage)
        await stack.enter_async_context(listening(signer.application(), socket))
        keys = RecordKeys.parse((folder / "records.json").read_bytes())
        yield Bureau(office, Listings(valkey, keys), signer)


@pytest.fixture
async def bureau(valkey: Redis, valkey_url: str, tmp_path: Path) -> AsyncIterator[Bureau]:
    """Run the whole for one test."""
    async with bureau_on(valkey, valkey_url, tmp_path) as one:
        yield one


async def test_a_list_is_what_the_draft_says(bureau: Bureau) -> None:
    """Sections 5.1 and 8.2: typ, sub, iat, exp and ttl; the media type; readable from a browser (8.1)."""
    claims = await bureau.list_token()
    answer = await bureau.get(Accept="application/statuslist+jwt")
    header, payload = opened(answer.body)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/statuslist+jwt")
    assert header.keys() == {"alg", "kid", "typ"}
    assert header["typ"] == "statuslist+jwt"
    assert payload.keys() == {"iss", "sub", "iat", "exp", "ttl", "status_list"}
    assert payload["sub"] == claims["status"]["status_list"]["uri"]
    assert payload["iss"] == claims["iss"]
    assert (payload["ttl"], payload["exp"] - payload["iat"]) == (TTL, LIFE)
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert status_in(claims, header, payload, payload["exp"] - 1) == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_what_was_acknowledged_is_in_the_next_list(bureau: Bureau, kind: str) -> None:
    """Every selector, cutoffs too: once the receipt is given no list lacks the bit, and no other token's is set."""
    now = bureau.office.stage.world.clock.now()
    old = entropy.uuid7(now - 20)
    mine = await bureau.list_token(index=1, sub="alice", client_id="shop", aud="urn:a", sid="one", grant_id=old)
    other = await bureau.list_token(index=2, sub="bob", client_id="app", aud="urn:b", sid="two")
    assert [await bureau.status(one) for one in (mine, other)] == [0, 0]
    await bureau.revoke(**({"before": now - 10} if kind == "before" else {kind: mine[kind]}))
    assert [await bureau.status(one) for one in (mine, other)] == [1, 0]
    late = await bureau.list_token(index=3, **{**mine, "status": None, "jti": mine["jti"]})
    assert await bureau.status(late) == 1  # Listed after its revocation.


async def test_a_receipt_says_whether_lists_show_the_revocation(bureau: Bureau) -> None:
    """An operator who protects verifiers of other makers must know what reaches them."""
    assert (await bureau.revoke(jti="x"))["status_list"] is True
    assert (await bureau.revoke(sub="x"))["status_list"] is True
    assert (await bureau.revoke(sub="x", iss=PROVIDER))["status_list"] is False


async def test_a_cutoff_spares_what_was_granted_after_it(bureau: Bureau) -> None:
    """A fresh sign-in right after works, here as at every verifier."""
    before = await bureau.list_token(index=1, sub="alice")
    await bureau.revoke(sub="alice")
    after = await bureau.list_token(
        index=2, sub="alice", grant_id=entropy.uuid7(bureau.office.stage.world.clock.now() + 1)
    )
    assert [await bureau.status(one) for one in (before, after)] == [1, 0]


async def test_a_thousand_who_ask_at_once_see_what_was_acknowledged_before(bureau: Bureau) -> None:
    """They share reads and signatures, and none of them gets a list from before it asked."""
    claims = [await bureau.list_token(index=index) for index in range(20)]
    for one in claims:
        await bureau.revoke(jti=one["jti"])
        assert set(await asyncio.gather(*(bureau.status(one) for _ in range(20)))) == {1}
    assert len(bureau.signer.batches) <= 2 * len(claims)


async def test_a_revocation_by_another_process_is_in_the_list_as_well(
    bureau: Bureau, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several revocation services may run: each answers for the store, and not for what it has heard by chance."""
    world, stage = bureau.office.stage.world, bureau.office.stage
    claims = await bureau.list_token()
    assert await bureau.status(claims) == 0

    async def overhear(*_word: object) -> None:
        pass

    monkeypatch.setattr(stage.parts.follower, "_take", overhear)
    await stage.revoke(world.entry(SelectorKind.JTI, claims["jti"]), elsewhere=True)
    assert await bureau.status(claims) == 1


async def test_a_list_may_be_cached_until_it_has_to_be_asked_for_again(bureau: Bureau) -> None:
    """RFC 9111: `max-age` is what is left of `ttl`; RFC 9110, 13.1.2: 304 to who has it, until a bit changes."""
    claims = await bureau.list_token()
    first = await bureau.get()
    directives = first.headers["Cache-Control"].split(", ")
    assert directives[0] == "public"
    assert TTL - 20 <= int(directives[1].removeprefix("max-age=")) <= TTL
    etag = first.headers["ETag"]
    held = await bureau.get(If_None_Match=f'"other", W/{etag}')
    assert (held.status, held.body, held.headers["ETag"]) == (304, b"", etag)
    assert held.headers["Cache-Control"].startswith("public, max-age=")
    assert (await bureau.get(If_None_Match="*")).status == 304
    head = await bureau.get(method="HEAD")
    assert (head.status, head.headers["ETag"], head.body) == (200, etag, b"")
    assert head.headers["Content-Length"] == first.headers["Content-Length"]
    await bureau.revoke(jti=claims["jti"])
    changed = await bureau.get(If_None_Match=etag)
    assert (changed.status, changed.headers["ETag"] != etag) == (200, True)


async def test_a_list_is_signed_anew_when_its_time_is_up(bureau: Bureau) -> None:
    """What is handed out is never older than `ttl`, never past its own `exp`, and never from the future."""
    await bureau.list_token()
    now = int(bureau.office.stage.world.clock.now())
    signed, etags = bureau.lists._signed, set()
    for issued_at, expires_at in ((now - TTL, now + 900), (now + 5, now + 900), (now - 1, now), (now, now + 900)):
        etags.add((await bureau.get()).headers["ETag"])
        signed["first"] = signed["first"]._replace(issued_at=issued_at, expires_at=expires_at, etag=f"{issued_at}")
    assert f'"{now}"' == (await bureau.get()).headers["ETag"]
    assert all(len(etag) > 15 for etag in etags)


async def test_a_list_is_zipped_for_who_takes_that(bureau: Bureau) -> None:
    """Section 8.2 recommends it; each form has an ETag of its own (RFC 9110, 8.8.3.3)."""
    await bureau.list_token()
    plain, zipped = await bureau.get(), await bureau.get(Accept_Encoding="br, gzip;q=0.8")
    assert zipped.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(zipped.body) == plain.body
    assert zipped.headers["ETag"] != plain.headers["ETag"]
    assert "Accept-Encoding" in zipped.headers["Vary"]
    assert (await bureau.get(If_None_Match=zipped.headers["ETag"], Accept_Encoding="gzip")).status == 304
    assert "Content-Encoding" not in (await bureau.get(Accept_Encoding="gzip;q=0, br")).headers


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("*/*", 200), ("application/*;q=0.1", 200), ("text/html, application/statuslist+jwt", 200), ("", 406),
        ("application/statuslist+cwt", 406), ("application/statuslist+jwt;q=0", 406), ("text/html", 406),
    ],
)  # fmt: skip
async def test_only_the_jwt_format_is_served(bureau: Bureau, accept: str, status: int) -> None:
    """Section 8.1; who asks for CWT must not take a JWT for it (RFC 9110, 15.5.7)."""
    await bureau.list_token()
    answer = await bureau.get(Accept=accept)
    assert answer.status == status


async def test_what_is_not_served_is_told(bureau: Bureau) -> None:
    """404 for a list that no live token names, whatever it is called; 501 for the past (section 8.4); 405."""
    await bureau.list_token()
    for name in ("other", "..%2f..", "%00", "x" * 5000, "first%20", "fïrst"):
        assert (await bureau.get(f"/statuslists/{name}")).status in (404, 400)
    assert (await bureau.get("/statuslists/first?time=1686925000")).status == 501
    for method in ("POST", "PUT", "DELETE"):
        assert (await bureau.get(method=method)).status == 405


async def test_all_lists_are_named_in_one_place(bureau: Bureau) -> None:
    """Section 9.3: so that a relying party can fetch them before it meets a token."""
    issuer = bureau.office.stage.world.issuer
    for name in ("b", "a"):
        await bureau.list_token(name=name)
    answer = await bureau.get("/statuslists")
    assert (answer.status, answer.headers["Content-Type"].partition(";")[0]) == (200, "application/json")
    assert json.loads(answer.body) == {"status_lists": [f"{issuer}/statuslists/{name}" for name in ("a", "b")]}
    assert answer.headers["Cache-Control"] == f"public, max-age={TTL}"
    _, payload = opened((await bureau.get("/statuslists/a")).body)
    assert payload["status_list"]["aggregation_uri"] == f"{issuer}/statuslists"


async def test_a_signer_that_fails_is_no_list(bureau: Bureau) -> None:
    """503 with Retry-After: an old list would lack what was acknowledged since; with the signer back all is well."""
    claims = await bureau.list_token()
    assert await bureau.status(claims) == 0
    await bureau.revoke(jti=claims["jti"])
    for status in (503, 403, 500):
        bureau.signer.status = status
        answer = await bureau.get()
        assert (answer.status, answer.headers["Retry-After"], answer.headers["Cache-Control"]) == (503, "1", "no-store")
    bureau.signer.status, bureau.signer.answer = 200, b'{"tokens":["nonsense"]}'
    assert (await bureau.get()).status == 503
    bureau.signer.answer = None
    assert await bureau.status(claims) == 1


async def test_a_list_by_a_key_that_was_revoked_is_signed_anew(bureau: Bureau) -> None:
    """Relying parties refuse it by the key's name, and would have nothing until its `ttl` is over."""
    claims = await bureau.list_token()
    world, far = bureau.office.stage.world, bureau.office.verifier
    stolen = opened((await bureau.get()).body)[0]["kid"]
    await world.publisher(Lane.KEYS, far).append([*world.first_key(), Revoked(kid=stolen, reason="stolen")])
    await eventually(lambda: bureau.office.stage.parts.replica.keys.get(world.signing_kid))
    assert opened((await bureau.get()).body)[0]["kid"] == world.signing_kid != stolen
    assert await bureau.status(claims) == 0


async def test_a_row_that_cannot_be_opened_leaves_its_list_unknown(bureau: Bureau, valkey: Redis) -> None:
    """Written under other keys, or by a thief: it may name the token that was revoked. Other lists are not touched."""
    await bureau.list_token()
    await bureau.list_token(name="second")
    await valkey.xadd(ROWS_KEY, {"list": "second", "tokens": "not ours"})
    assert (await bureau.get("/statuslists/second")).status == 503
    assert (await bureau.get("/statuslists/first")).status == 200
    for number in range(600):
        await valkey.xadd(ROWS_KEY, {"list": f"junk-{number}", "tokens": ""})
    assert (await bureau.get("/statuslists/first")).status == 200
    assert len(bureau.lists._rows.unreadable) < 300


async def test_a_store_that_lost_its_rows_takes_no_bit_back(bureau: Bureau, valkey: Redis) -> None:
    """What was read stays known until it expires; what is written later is read, though its ids begin anew."""
    claims = await bureau.list_token(index=1)
    await bureau.revoke(jti=claims["jti"])
    assert await bureau.status(claims) == 1
    await valkey.delete(ROWS_KEY)
    assert await bureau.status(claims) == 1
    late = await bureau.list_token(index=2)
    rows = await valkey.xrange(ROWS_KEY)
    await valkey.delete(ROWS_KEY)
    await valkey.xadd(ROWS_KEY, rows[-1][1], id="5-1")  # As a server with a slower clock would count.
    await bureau.revoke(jti=late["jti"])
    assert [await bureau.status(one) for one in (claims, late)] == [1, 1]


async def test_lists_that_end_leave_nothing_behind(bureau: Bureau) -> None:
    """Whether they were signed, could not be, or are being signed at that moment."""
    lists, now = bureau.lists, bureau.office.stage.world.clock.now()
    gone = {"exp": int(now - 1000)}
    await bureau.list_token()
    assert (await bureau.get()).status == 200
    for name in ("a", "b"):
        await bureau.list_token(name=name, **gone)
    bureau.signer.status = 503
    for name in ("a", "b"):
        assert (await bureau.get(f"/statuslists/{name}")).status in (503, 404)
    lists._signed["b"] = lists._signed["first"]
    lists._forget_expired()
    for held in (lists._signed, lists._signing, lists._book.listings):
        assert list(held) == ["first"]
    bureau.signer.status = 200
    assert [(await bureau.get(f"/statuslists/{name}")).status for name in ("first", "a", "b")] == [200, 404, 404]


async def test_a_clock_that_was_ahead_takes_no_list_away(bureau: Bureau) -> None:
    """An hour ahead it lets go of all; once it is put right, what lives is read again."""
    claims = await bureau.list_token()
    await bureau.revoke(jti=claims["jti"])
    lists, now = bureau.lists, bureau.office.stage.world.clock.now()
    assert await bureau.status(claims) == 1
    lists._book.forget_expired(now + 3600)
    lists._forgot_at = now + 3600
    assert await bureau.status(claims) == 1


async def test_without_lists_there_are_none(valkey: Redis, valkey_url: str, tmp_path: Path) -> None:
    """The setting is off unless it is set: the routes are there, and find nothing."""
    async with bureau_on(valkey, valkey_url, tmp_path, KEYTURN_STATUSLISTS__ENABLED="false") as one:
        await one.list_token()
        for path in ("/statuslists/first", "/statuslists"):
            assert (await one.get(path)).status == 404
        assert (await one.revoke(jti="x"))["status_list"] is False


async def test_a_service_without_a_signer_says_so(valkey: Redis, valkey_url: str, tmp_path: Path) -> None:
    """501 with the settings that are missing; revoking goes on."""
    async with office_on(valkey, valkey_url, tmp_path, KEYTURN_STATUSLISTS__ENABLED="true") as office:
        keys = RecordKeys.parse((tmp_path / "records.json").read_bytes())
        one = Bureau(office, Listings(valkey, keys), FakeSigner(office.stage))
        claims = await one.list_token()
        assert (await one.get()).status == 501
        await one.revoke(jti=claims["jti"])


async def test_a_ttl_beyond_the_life_of_a_list_is_refused(valkey: Redis, valkey_url: str, tmp_path: Path) -> None:
    """Section 13.7: it would be asked for again when it is no good any more."""
    with pytest.raises(ConfigurationError, match=r"statuslists\.ttl"):
        async with bureau_on(valkey, valkey_url, tmp_path, KEYTURN_STATUSLISTS__TTL="901"):
            pass
