"""All understand a selector alike: the sidecar, introspection, and the issuer that stamps a new grant."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authorization.minting import new_grant_id
from introspection.judge import Judge
from introspection.memory import Memory
from keyturn import entropy
from keyturn.contract.positions import Lane
from keyturn.contract.revocations import RevocationIndex
from keyturn.contract.selectors import Entry, parse_selector
from keyturn.verifier.issuers import IssuerKeys
from keyturn.verifier.verdict import Verdict
from keyturn.verifier.verifier import TokenVerifier
from serving.authentication import BASIC, Caller
from serving.promises import GrantLife, Promises
from tests.building import CLIENTS, RESOURCE, FickleRedis, standing
from tests.clocks import START, ManualClock
from tests.families import LIFE_SECONDS, families_of
from tests.reaching import reach
from tests.verifier.abroad import URL, Abroad
from tests.world import AUDIENCE, ISSUER, policy

EXACT, PARTIES = ("jti", "grant_id", "sid"), ("sub", "client_id", "aud")
OTHER_API = "https://other.example"
GRANTS = [entropy.uuid7(START + offset / 1000) for offset in (-2500, -1001, -1000, -999, -500, -1, 0, 1)]
NAMES = {
    "jti": ["j1", "j2"], "sid": ["s1", "s2"], "sub": ["alice", "shop"], "client_id": ["shop", "web"],
    "aud": [AUDIENCE, OTHER_API], "grant_id": GRANTS,
}  # fmt: skip
MOMENTS = st.sampled_from([-3000, -2500, -1500, -1001, -1000, -999, -500, -1, 0, 1]).map(lambda ms: START + ms / 1000)


def one_of(name: str) -> st.SearchStrategy[Any]:
    """Return a value that selectors and tokens share."""
    return st.sampled_from(NAMES[name])


TOKENS = st.fixed_dictionaries(
    {
        "iss": st.sampled_from([ISSUER, URL]), "jti": one_of("jti"), "sid": st.sampled_from([*NAMES["sid"], None]),
        "sub": one_of("sub"), "client_id": one_of("client_id"),
        "aud": st.sampled_from([AUDIENCE, [OTHER_API, AUDIENCE]]),
        "iat": st.sampled_from([int(START) - seconds for seconds in (0, 1, 2, 3)]),
        "grant_id": st.none() | one_of("grant_id"),
    }
)  # fmt: skip


@st.composite
def cases(draw: st.DrawFn) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a token, and selectors as operators write them: every other one names what the token says."""
    token, written = draw(TOKENS), []
    for _ in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from([*EXACT, *PARTIES, "all"]))
        selector: dict[str, Any] = {"iss": draw(st.sampled_from([ISSUER, URL, token["iss"], token["iss"]]))}
        if kind != "all":
            own = AUDIENCE if kind == "aud" else token[kind]
            selector[kind] = own if own is not None and draw(st.booleans()) else draw(one_of(kind))
        if kind == "all" or (kind in PARTIES and draw(st.booleans())):
            selector["before"] = draw(MOMENTS)
        written.append(selector)
    return token, written


def named(token: dict[str, Any], selector: dict[str, Any]) -> bool:
    """Say, by the words of the architecture and without a hash, whether a selector ends a token."""
    if selector["iss"] != token["iss"]:
        return False
    (kind,) = selector.keys() - {"iss", "before"} or {""}
    ours = token["iss"] == ISSUER
    if kind in EXACT:
        return bool(token[kind] == selector[kind]) and (ours or kind != "grant_id")
    parties = token["aud"] if isinstance(token["aud"], list) else [token["aud"]]
    if kind and selector[kind] not in (parties if kind == "aud" else [token[kind]]):
        return False
    before = selector.get("before", START)
    if ours and token["grant_id"] is not None:
        return bool(int(token["grant_id"].replace("-", "")[:12], 16) / 1000 < before)
    return bool(token["iat"] <= before)


class Bench:
    """The three, on one replica."""

    def __init__(self) -> None:
        self.clock, self.seen = ManualClock(), Counter[str]()
        self.runner, self.stack = asyncio.Runner(), AsyncExitStack()

    async def open(self) -> None:
        """Begin a world whose replica is fresh, and stays so."""
        clients = CLIENTS | dict.fromkeys(NAMES["client_id"], CLIENTS[RESOURCE])
        world = standing(FickleRedis(), clock=self.clock, deaf=True, clients=clients)
        self.stage = await self.stack.enter_async_context(world)
        await self.stage.publish(*self.stage.world.first_key())
        await self.stage.world.publisher(Lane.REVOCATIONS, self.stage.member).beat()
        self.abroad = Abroad(self.clock)
        keys = IssuerKeys(self.abroad.issuer, self.abroad, self.clock)
        await keys.renew()
        self.replica = self.stage.parts.replica
        self.sidecar = TokenVerifier(self.replica, self.clock, issuers=[keys])
        self.memory = Memory(self.replica, most=1000)
        service = TokenVerifier(self.replica, self.clock)
        promises = Promises(self.stage.redis, self.stage.record_keys)
        life = GrantLife(promises, self.clock, issuer=ISSUER, own_seconds=LIFE_SECONDS)
        self.judge = Judge(
            self.stage.parts,
            self.stage.records,
            families_of(self.stage),
            service,
            self.memory,
            grant_life=life,
        )
        self.caller = Caller(RESOURCE, CLIENTS[RESOURCE], BASIC)
        self.policy = policy(issuers=frozenset({ISSUER, URL}))

    def hold(self, written: list[dict[str, Any]]) -> None:
        """Hold these revocations and no others."""
        index = RevocationIndex(b"the hash key of this bench")
        for members in written:
            selector = parse_selector(members, issuer=ISSUER, now=START, skew_seconds=2.0)
            index.add(Entry(selector=selector, until=START + 3600))
        self.replica.indexes = (index,)
        self.replica.generation += 1

    def verdicts(self, token: dict[str, Any]) -> list[Verdict]:
        """Ask all who can be asked about such a token; each one twice, so that a cache answers, too."""
        claims = token | {"exp": int(START) + 300, "nbf": None}
        if token["iss"] == URL:
            minted = self.abroad.mint(**(claims | {"azp": token["client_id"], "client_id": None}))
            return [self.sidecar.judge(minted, self.policy) for _ in range(2)]
        jwt = self.stage.world.mint(**claims)
        return [self.sidecar.judge(jwt, self.policy) for _ in range(2)] + self.runner.run(
            self._introspected(jwt, claims)
        )

    async def _introspected(self, jwt: bytes, claims: dict[str, Any]) -> list[Verdict]:
        opaque = await self.stage.put_opaque(**claims)
        return [await self.judge.judge(token, self.caller) for token in (jwt.decode(), opaque, opaque)]

    def stamped(self, token: dict[str, Any]) -> dict[str, Any]:
        """Return the token as our issuer would make it in a grant that begins now."""
        cutoff = self.replica.latest_cutoff(token)
        return token | {"iat": int(START), "grant_id": new_grant_id(now=START, cutoff=cutoff)}


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """Open it once."""
    bench = Bench()
    with bench.runner:
        bench.runner.run(bench.open())
        yield bench
        bench.runner.run(bench.stack.aclose())


def agree(bench: Bench, token: dict[str, Any], written: list[dict[str, Any]]) -> None:
    """Ask all about a token, and the issuer's next one, before and after these revocations."""
    bench.hold([])
    assert {verdict.reason for verdict in bench.verdicts(token)} == {"active"}  # It is in the caches now.
    bench.hold(written)
    hits = [named(token, selector) for selector in written]
    reasons = [verdict.reason for verdict in bench.verdicts(token)]
    assert set(reasons) == {"revoked" if any(hits) else "active"}, (reasons, token, written)
    who = "own" if token["iss"] == ISSUER else "foreign"
    for selector, hit in zip(written, hits, strict=True):
        bench.seen[f"{who} {min(selector.keys() - {'iss', 'before'} or {'all'})} {hit}"] += 1
    if token["iss"] == ISSUER:  # The next sign-in: no cutoff may touch it, and what is named for good stays so.
        fresh = bench.stamped(token)
        dead = any(named(fresh, selector) for selector in written if selector.keys() & set(EXACT))
        assert {verdict.reason for verdict in bench.verdicts(fresh)} == {"revoked" if dead else "active"}
        bench.seen[f"stamped {'dead' if dead else 'alive'}{' after a cutoff' if any(hits) else ''}"] += 1


def test_all_understand_a_selector_as_the_architecture_has_it(bench: Bench) -> None:
    """A token that one lets pass and another refuses is a hole, or locks a user out without a reason."""

    @given(case=cases())
    @settings(max_examples=200, deadline=None)
    def asked(case: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
        agree(bench, *case)

    kinds = [*EXACT, *PARTIES, "all"]
    wanted = {f"{who} {kind} {hit}" for who in ("own", "foreign") for kind in kinds for hit in (True, False)}
    wanted |= {"stamped alive after a cutoff", "stamped alive", "stamped dead after a cutoff"}
    reach(asked, bench.seen, dict.fromkeys(wanted - {"foreign grant_id True"}, 1))
    assert "foreign grant_id True" not in bench.seen  # Which cannot be.
