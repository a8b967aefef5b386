"""private_key_jwt: a client proves itself by a JWT that it signed for us, once (RFC 7523, 2.2 and 3)."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from aiohttp.test_utils import make_mocked_request
from fakeredis import FakeAsyncRedis
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from keyturn import entropy
from keyturn.contract.encoding import b64url, encode_json
from keyturn.contract.errors import InvalidToken, StoreUnavailable
from keyturn.contract.jwk import ALGORITHMS, public_jwk
from keyturn.contract.positions import Lane
from keyturn.contract.trust import CLIENT_ROLE, Client, TrustDocument
from serving.authentication import Authenticator, Caller
from serving.clientassertions import ASSERTION_TYPE, LARGEST_ASSERTION_BYTES, LONGEST_LIFE_SECONDS, read_assertion
from serving.problems import OAuthError
from tests.building import CLIENTS, RESOURCE, SECRETS, FickleRedis, Standing, basic, standing
from tests.clocks import ManualClock
from tests.world import World

SIGNING, MINE = "signing", {alg: entropy.new_key(alg) for alg in ("ES256", "EdDSA", "RS256", "PS256", "ES384")}
PUBLIC = [{**public_jwk(key.public_key()), "kid": alg, "alg": alg} for alg, key in MINE.items()]
CLIENT = Client(secret_hash="", may_introspect=True)


class Maker:
    """Makes assertions as a client does, and as one would who means no good."""

    def __init__(self, world: World) -> None:
        self.world = world

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Return the claims of a good assertion; a change to None drops the claim."""
        now = self.world.clock.now()
        claims = {
            "iss": SIGNING, "sub": SIGNING, "aud": self.world.issuer, "iat": int(now), "exp": int(now) + 60,
            "jti": entropy.uuid7(now),
        }  # fmt: skip
        return {name: value for name, value in (claims | changes).items() if value is not None}

    def make(self, alg: str = "ES256", *, header: dict[str, Any] | None = None, key: Any = None, **changes: Any) -> str:
        """Sign it."""
        members = {"alg": alg, "kid": alg} | (header or {})
        plain = {name: value for name, value in members.items() if value is not None}
        signing_input = f"{b64url(encode_json(plain))}.{b64url(encode_json(self.claims(**changes)))}"
        signature = ALGORITHMS[alg].sign(signing_input.encode(), MINE[alg] if key is None else key)
        return f"{signing_input}.{b64url(signature)}"


def register(stage: Standing, jwks: list[dict[str, Any]], *, version: int) -> None:
    """Give the client these keys, in the next trust document."""
    roles = {**stage.world.document().roles, CLIENT_ROLE + SIGNING: tuple(jwks)}
    stage.member.replica.adopt_trust(stage.world.trust(version=version, roles=roles))


@asynccontextmanager
async def signing_client(store: Redis) -> AsyncIterator[Standing]:
    """Begin a world in which `signing` has a key of each algorithm, and `keyless` none."""
    clients = {**CLIENTS, SIGNING: CLIENT, "keyless": CLIENT}
    async with standing(store, deaf=True, clock=ManualClock(), clients=clients) as one:
        register(one, PUBLIC, version=2)
        yield one


@pytest.fixture
async def stage() -> AsyncIterator[Standing]:
    """Begin it on a store in memory."""
    async with signing_client(FakeAsyncRedis()) as one:
        yield one


async def ask(stage: Standing, assertion: str, headers: Mapping[str, str] | None = None, /, **form: str) -> Caller:
    """Authenticate by an assertion."""
    sent = {"client_assertion": assertion, "client_assertion_type": ASSERTION_TYPE, **form}
    request = make_mocked_request("POST", "/token", headers=headers or {})
    return await Authenticator(stage.parts).authenticate(request, sent)


async def refused(stage: Standing, assertion: str, **form: str) -> OAuthError:
    """Return the error of one that is refused."""
    with pytest.raises(OAuthError) as caught:
        await ask(stage, assertion, **form)
    return caught.value


@pytest.mark.parametrize("alg", list(MINE))
async def test_a_client_proves_itself_by_a_key_of_its_own(stage: Standing, alg: str) -> None:
    """RFC 7523, 2.2: nothing that could be stolen from us or on the way proves a second time who it is."""
    maker = Maker(stage.world)
    assert await ask(stage, maker.make(alg)) == Caller(SIGNING, CLIENT, "private_key_jwt")
    assert (await ask(stage, maker.make(alg, header={"kid": None}), client_id=SIGNING)).client_id == SIGNING
    for typ in ("JWT", "client-authentication+jwt", "application/client-authentication+jwt"):
        assert (await ask(stage, maker.make(alg, header={"typ": typ}, aud=[stage.world.issuer]))).client_id == SIGNING


BAD_CLAIMS: list[tuple[str, dict[str, Any]]] = [
    ("of the token endpoint", {"aud": "https://issuer.example/token"}),
    ("of another server as well", {"aud": ["https://issuer.example", "https://evil.example"]}),
    ("for nobody", {"aud": None}),
    ("for an empty list", {"aud": []}),
    ("of another issuer than subject", {"iss": "client"}),
    ("without an issuer", {"iss": None}),
    ("without a subject", {"sub": None}),
    ("without a jti", {"jti": None}),
    ("with an empty jti", {"jti": ""}),
    ("with a number for a jti", {"jti": 7}),
    ("with a jti without end", {"jti": "x" * 257}),
    ("without an end", {"exp": None}),
    ("with an end that is a word", {"exp": "soon"}),
    ("with an end that is true", {"exp": True}),
    ("with an end in milliseconds", {"exp": 1_800_000_000_000_000}),
]


@pytest.mark.parametrize(("name", "changes"), BAD_CLAIMS, ids=[name for name, _ in BAD_CLAIMS])
async def test_an_assertion_that_is_not_for_us_or_has_no_bounds_is_refused(
    stage: Standing, name: str, changes: dict[str, Any]
) -> None:
    """Checklist (5): `aud` is the issuer; RFC 7523, 3: `iss` = `sub`, `exp`; and a `jti`, or it could be used again."""
    error = await refused(stage, Maker(stage.world).make(**changes))
    assert (error.error, error.status, error.basic) == ("invalid_client", 401, False)


async def test_the_time_of_an_assertion_is_bounded_on_both_sides(stage: Standing) -> None:
    """RFC 7523, 3: `exp`, `nbf`, `iat`; the skew is forgiven and no more; an end in a year would be a password."""
    maker, now, skew = Maker(stage.world), int(stage.world.clock.now()), stage.parts.skew_seconds
    longest = now + LONGEST_LIFE_SECONDS
    good: list[dict[str, Any]] = [{"exp": now - skew + 1}, {"nbf": now + skew}, {"iat": now + skew}, {"exp": longest}]
    for changes in good:
        assert (await ask(stage, maker.make(**changes))).client_id == SIGNING
    late = now + skew + 1
    bad: list[dict[str, Any]] = [
        {"exp": now - skew}, {"nbf": late}, {"iat": late}, {"exp": longest + skew + 1}, {"nbf": "now"},
    ]  # fmt: skip
    for changes in bad:
        assert (await refused(stage, maker.make(**changes))).status == 401


async def test_no_other_jwt_passes_for_an_assertion(stage: Standing) -> None:
    """RFC 8725, 3.11: above all no access token, nor one that brings its own key or another algorithm."""
    maker = Maker(stage.world)
    jwk = public_jwk(MINE["ES256"].public_key())
    for header in (
        {"typ": "at+jwt"}, {"typ": "secevent+jwt"}, {"typ": 7}, {"alg": "none"}, {"alg": "HS256"}, {"alg": None},
        {"jwk": jwk}, {"jku": "https://evil.example"}, {"x5u": "x"}, {"crit": ["exp"]}, {"b64": False}, {"kid": 7},
        {"kid": "EdDSA"}, {"alg": "RS256"}, {"alg": "PS256"},
    ):  # fmt: skip
        assert (await refused(stage, maker.make(header=header))).status == 401
    good = maker.make()
    for spelling in (good + "=", good + ".", good[:-1], " " + good, good.replace(".", "", 1), "é", "", "a.b.c"):
        assert (await refused(stage, spelling)).error == "invalid_client"
    assert (await refused(stage, "x" * (LARGEST_ASSERTION_BYTES + 1))).status == 401


async def test_only_the_client_s_own_keys_count(stage: Standing) -> None:
    """Another's key, a client without keys and one that nobody knows look alike."""
    maker, stranger = Maker(stage.world), entropy.new_key("ES256")
    told = {
        str(await refused(stage, assertion))
        for assertion in (
            maker.make(key=stranger),
            maker.make(iss="keyless", sub="keyless"),
            maker.make(iss="nobody", sub="nobody"),
            maker.make(iss=RESOURCE, sub=RESOURCE),
        )
    }
    assert told == {"invalid_client: no such client, or not its proof"}


async def test_every_assertion_that_fails_costs_a_signature_check(
    stage: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted, as a clock on a busy machine cannot tell: time must not say which client has keys, or of which kind."""
    maker, checked = Maker(stage.world), list[str]()
    for alg, algorithm in ALGORITHMS.items():
        verify = algorithm.verify

        def noting(*given: Any, alg: str = alg, verify: Any = verify) -> bool:
            checked.append(alg)
            return bool(verify(*given))

        monkeypatch.setattr(algorithm, "verify", noting)
    for assertion in (
        maker.make(key=entropy.new_key("ES256")),
        maker.make(iss="keyless", sub="keyless"),
        maker.make(iss="nobody", sub="nobody"),
        maker.make(header={"kid": "unknown"}),
        maker.make("EdDSA", iss="nobody", sub="nobody"),
    ):
        checked.clear()
        assert (await refused(stage, assertion)).status == 401
        assert checked == ["ES256"]


async def test_one_way_only(stage: Standing) -> None:
    """RFC 6749, 2.3: not an assertion beside a secret or a header; nor for another client_id (RFC 7521, 4.2)."""
    maker = Maker(stage.world)
    assert (await refused(stage, maker.make(), client_secret="x")).status == 400
    assert (await refused(stage, maker.make(), client_id=RESOURCE)).status == 400
    with pytest.raises(OAuthError) as caught:
        await ask(stage, maker.make(), basic(RESOURCE))
    assert caught.value.status == 400
    assert (await refused(stage, maker.make(), client_assertion_type="jwt")).status == 401
    assert (await refused(stage, "", client_assertion_type=ASSERTION_TYPE)).status == 401


async def test_an_assertion_is_used_once(stage: Standing) -> None:
    """Checklist (5), RFC 7523, 3: whoever sees it on the way has nothing; and its `jti` is one client's own."""
    maker = Maker(stage.world)
    assertion = maker.make(jti="same")
    assert (await ask(stage, assertion)).client_id == SIGNING
    for again in (
        assertion,
        maker.make(jti="same"),
        maker.make("EdDSA", jti="same", exp=1_800_000_500),
    ):
        error = await refused(stage, again)
        assert str(error) == "invalid_client: the assertion was used before"
    assert (await ask(stage, maker.make(jti="other"))).client_id == SIGNING


async def test_a_forged_assertion_spends_nothing(stage: Standing) -> None:
    """Or whoever guesses a `jti` could keep the client out."""
    maker = Maker(stage.world)
    await refused(stage, maker.make(jti="mine", key=entropy.new_key("ES256")))
    assert (await ask(stage, maker.make(jti="mine"))).client_id == SIGNING


async def test_an_assertion_stays_used_for_as_long_as_it_would_be_taken(stage: Standing) -> None:
    """Its mark in the store outlasts `exp`, the skew forgiven included."""
    life = 600
    await ask(stage, Maker(stage.world).make(exp=int(stage.world.clock.now()) + life))
    (name,) = [key async for key in stage.redis.scan_iter("keyturn:assertion:*")]
    assert life + stage.parts.skew_seconds < await stage.redis.ttl(name) <= life + 2 * stage.parts.skew_seconds + 2
    assert SIGNING.encode() not in name
    assert await stage.redis.get(name) == b""


async def test_exactly_one_of_many_wins(valkey: Redis) -> None:
    """R3: one atomic step on a real server; two services that look first would both let it in."""
    async with signing_client(valkey) as stage:
        for _ in range(10):
            assertion = Maker(stage.world).make()
            parts = [replace(stage.parts) for _ in range(8)]  # As many processes.
            outcomes = await asyncio.gather(
                *(ask(replace(stage, parts=one), assertion) for one in parts), return_exceptions=True
            )
            assert sum(isinstance(one, Caller) for one in outcomes) == 1


async def test_without_the_store_nobody_is_let_in_or_turned_away() -> None:
    """503: whether it was used before cannot be said."""
    store = FickleRedis()
    async with signing_client(store) as stage:
        assertion = Maker(stage.world).make()
        store.away = True
        with pytest.raises(StoreUnavailable):
            await ask(stage, assertion)
        store.away = False
        assert (await ask(stage, assertion)).client_id == SIGNING


async def test_a_key_that_the_root_took_away_proves_nothing(stage: Standing) -> None:
    """The next trust document binds at once, whatever was prepared under the one before."""
    maker, authenticator = Maker(stage.world), Authenticator(stage.parts)

    async def once(alg: str) -> Caller:
        sent = {"client_assertion": maker.make(alg), "client_assertion_type": ASSERTION_TYPE}
        return await authenticator.authenticate(make_mocked_request("POST", "/token"), sent)

    assert (await once("ES256")).client_id == SIGNING
    register(stage, PUBLIC[1:], version=3)
    with pytest.raises(OAuthError):
        await once("ES256")
    assert (await once("EdDSA")).client_id == SIGNING


async def test_a_key_that_is_none_leaves_the_others(stage: Standing) -> None:
    """Weak, for encryption or of a type that we do not use: the root may have signed it all the same."""
    odd: list[dict[str, Any]] = [
        {"kty": "oct", "k": "c2VjcmV0"}, {"kty": "RSA", "n": "AQAB", "e": "AQAB"}, {"kty": "EC", "crv": "P-256"}, {},
        {**PUBLIC[0], "use": "enc"}, {**PUBLIC[0], "alg": "ES384"},
    ]  # fmt: skip
    maker = Maker(stage.world)
    for number, keys in enumerate(([*odd, PUBLIC[0]], odd), start=3):
        register(stage, keys, version=number)
        if number == 3:
            assert (await ask(stage, maker.make())).client_id == SIGNING
        else:
            assert (await refused(stage, maker.make())).status == 401


def test_a_reader_of_before_reads_a_document_with_clients_keys() -> None:
    """A root signs one document for a fleet of several versions: an old sidecar must go on as if nothing had happened.

    Lanes' roles are what it asks for by name; a member that it does not know would have made it refuse the document.
    """
    world = World()
    roles = {**world.document().roles, CLIENT_ROLE + SIGNING: tuple(PUBLIC)}
    document = world.document(roles=roles)
    members = set(msgspec.to_builtins(document)) - {"clients", "identities"}
    assert members <= {
        "format", "version", "issuer", "issued_at", "expires_at", "dev", "feed_format", "roles", "lowest_epoch",
    }  # fmt: skip
    read = msgspec.json.decode(encode_json(document), type=TrustDocument)
    assert {lane.value for lane in Lane} < read.roles.keys()


@given(st.one_of(st.text(max_size=80), st.lists(st.text("ab.-_=é", max_size=20), min_size=3, max_size=3).map(".".join)))
def test_nothing_that_is_sent_breaks_the_reader(sent: str) -> None:
    """Whatever a stranger writes there, it is refused by a word."""
    with pytest.raises(InvalidToken):
        read_assertion(sent, issuer="https://issuer.example", now=1.8e9, skew_seconds=2)


async def test_a_secret_stays_good_beside_keys(stage: Standing) -> None:
    """A client moves to keys step by step; without a secret of its own it has none, and an empty one is none."""
    authenticator = Authenticator(stage.parts)
    request = make_mocked_request("POST", "/token", headers=basic(RESOURCE))
    assert (await authenticator.authenticate(request, {})).method == "client_secret_basic"
    for form in ({"client_id": SIGNING, "client_secret": SECRETS[RESOURCE]}, {"client_id": SIGNING}):
        with pytest.raises(OAuthError):
            await authenticator.authenticate(make_mocked_request("POST", "/token"), form)
