"""One verdict, four renderings: whoever asks, in whatever way and form, they agree with one another and the sidecar."""

import json
from collections import Counter
from itertools import product
from typing import Any

import pytest
from aiohttp import ClientSession

from introspection.batch import MOST_TOKENS
from keyturn.verifier.verdict import Kind
from tests.building import Standing
from tests.clocks import LeapingClock
from tests.introspection.conftest import BOTH, Answer
from tests.introspection.dealing import AUDIENCES, FAULTS, METHODS, TARGETS, Dealt, Proof, deal
from tests.introspection.test_introspect import INACTIVE
from tests.introspection.test_renderings import PHANTOM, SIGNED, read
from tests.rotation.dice import Dice
from tests.world import policy

AT_RANDOM = 70
JSON = "application/json"


class Court:
    """Asks about dealt tokens, and holds each answer to what it has to be."""

    def __init__(self, session: ClientSession, stage: Standing) -> None:
        """Begin without having asked."""
        self._session, self._stage, self._proof = session, stage, Proof(stage)
        self._policies = {
            audience: policy(audience=audience) for audience in ("https://api.example", "https://other.example")
        }
        self.reached: Counter[str] = Counter()
        self.inactive: dict[tuple[str, str], set[tuple[Any, ...]]] = {}

    async def ask(self, dealt: Dealt, client_id: str, method: str, accept: str) -> Answer:
        """Ask in one form."""
        headers, form = await self._proof.of(client_id, method)
        headers["Accept"] = accept
        async with self._session.post("/introspect", data={"token": dealt.token, **form}, headers=headers) as answer:
            kept = {name: value for name, value in answer.headers.items() if name != "Date"}
            return Answer(answer.status, await answer.read(), kept)

    async def hold(self, dealt: Dealt, client_id: str, method: str) -> dict[str, Any]:
        """Ask in each form for one caller; return what RFC 7662 says."""
        plain = await self.ask(dealt, client_id, method, JSON)
        assert plain.status == 200, plain
        told: dict[str, Any] = json.loads(plain.body)
        active = dealt.active_for(client_id)
        assert told["active"] is active
        self.reached[
            f"{active} {'late ' * dealt.late}{dealt.fault or 'good'} {'opaque' if dealt.opaque else 'JWT'}"
        ] += 1
        self.reached[method] += 1
        self._hold_plain(dealt, told)
        signed = await self.ask(dealt, client_id, method, SIGNED)
        header, claims = read(signed)
        assert (header["typ"], claims["aud"], claims["token_introspection"]) == (
            "token-introspection+jwt",
            client_id,
            told,
        )
        phantom = await self.ask(dealt, client_id, method, PHANTOM)
        if active and not dealt.late:
            self._hold_phantom(dealt, phantom, told)
        else:
            assert phantom.body == INACTIVE
            self._note("phantom", client_id, phantom)
        if not active:
            assert plain.body == INACTIVE
            self._note("JSON", client_id, plain)
            self._note("signed", client_id, signed._replace(body=b""))
        return told

    def hold_sidecar(self, dealt: Dealt) -> None:
        """Ask a sidecar about a JWT, under a policy for each audience."""
        for audience, one in self._policies.items():
            verdict = self._stage.member.verifier.judge(dealt.token.encode(), one)
            assert (verdict.kind is Kind.ACTIVE) is (dealt.passes_at(audience) and not dealt.opaque)
            self.reached[f"sidecar {verdict.kind}"] += 1

    def _hold_plain(self, dealt: Dealt, told: dict[str, Any]) -> None:
        """Say no more than the token does, and of an inactive one nothing."""
        if not told["active"]:
            assert told == {"active": False}
            return
        token_type = "DPoP" if dealt.bound and "jkt" in dealt.claims["cnf"] else "Bearer"
        assert told == {"active": True, "token_type": token_type, **dealt.claims}

    def _hold_phantom(self, dealt: Dealt, phantom: Answer, told: dict[str, Any]) -> None:
        """Take it to a sidecar of the token's audience, and back to introspection's words."""
        if not dealt.opaque:
            assert phantom.body.decode() == dealt.token
        _, claims = read(phantom)
        assert claims["exp"] <= told["exp"]
        timeless = {name: value for name, value in told.items() if name not in ("active", "token_type", "iat", "exp")}
        assert {name: value for name, value in claims.items() if name not in ("iat", "exp")} == timeless
        for audience, one in self._policies.items():
            verdict = self._stage.member.verifier.judge(phantom.body, one)
            assert (verdict.kind is Kind.ACTIVE) is dealt.passes_at(audience)

    def _note(self, rendering: str, client_id: str, answer: Answer) -> None:
        seen = answer.status, answer.body, *sorted(answer.headers.items())
        self.inactive.setdefault((rendering, client_id), set()).add(seen)


class StillClock(LeapingClock):
    """The wall clock stands still, so that a token stays just late or just good on a busy machine."""

    def __init__(self) -> None:
        """Stop now."""
        super().__init__()
        self._moment = super().now()

    def now(self) -> float:
        """Return the moment at which it stopped."""
        return self._moment


@pytest.fixture
def clock() -> LeapingClock:
    """Return a clock for everybody in this module."""
    return StillClock()


async def test_all_renderings_of_a_verdict_agree_for_every_caller(session: ClientSession, stage: Standing) -> None:
    """RFC 7662, 2.2, RFC 9701, 5, RFC 9068; checklist (1), (4), (8), (9), (11).

    A difference would let a caller choose the rendering that lets a bad token pass, or learn why it is bad.
    """
    court = Court(session, stage)
    batches: dict[str, tuple[list[str], list[dict[str, Any]]]] = {client_id: ([], []) for client_id in AUDIENCES}
    # Each fault in each form, where nothing else is wrong; then whatever the dice say.
    alone = [*product(FAULTS, (True, False), (False,)), ("", True, True), ("", False, True)]
    for seed in range(len(alone) + AT_RANDOM):
        dice = Dice(seed)
        if seed < len(alone):
            fault, opaque, late = alone[seed]
            client_id, targets = BOTH, TARGETS[:3]
        else:
            fault = dice.one_of(FAULTS) if dice.chance(2) else ""
            opaque, late = dice.chance(2), dice.chance(6)
            client_id, targets = dice.one_of(list(AUDIENCES)), TARGETS
        dealt = await deal(dice, stage, fault=fault, opaque=opaque, late=late, audiences=targets)
        method = dice.one_of(METHODS)
        try:
            told = await court.hold(dealt, client_id, method)
            court.hold_sidecar(dealt)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {dealt} asked about by {client_id}, {method}: {error}") from error
        batches[client_id][0].append(dealt.token)
        batches[client_id][1].append(told)
    for client_id, (tokens, expected) in batches.items():
        await _hold_batch(session, court, client_id, tokens, expected)
    assert {place: len(seen) for place, seen in court.inactive.items()} == dict.fromkeys(court.inactive, 1)
    _require_interesting(court.reached)


async def _hold_batch(
    session: ClientSession, court: Court, client_id: str, tokens: list[str], expected: list[dict[str, Any]]
) -> None:
    for first in range(0, len(tokens), MOST_TOKENS):
        headers, _ = await court._proof.of(client_id, "JWT bearer")
        asked = slice(first, first + MOST_TOKENS)
        async with session.post("/introspect/batch", json={"tokens": tokens[asked]}, headers=headers) as answer:
            assert (await answer.json())["results"] == expected[asked]


def _require_interesting(reached: Counter[str]) -> None:
    """Each way and form, good tokens and late ones, and a wrong audience came up, or the agreement says little."""
    assert all(reached[method] > 10 for method in METHODS)
    for name in ("True good opaque", "True good JWT", "True late good opaque", "False good JWT", "sidecar active"):
        assert reached[name], name
