"""`POST /introspect/batch`: many questions of one caller, each answered as it would be alone."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import ClientSession

from introspection.batch import MOST_TOKENS, render_batch
from keyturn import entropy
from keyturn.contract.selectors import SelectorKind
from keyturn.verifier.freshness import State
from keyturn.verifier.verdict import Kind, Verdict
from tests.building import CLIENT, RESOURCE, SECRETS, FickleRedis, Standing, basic, new_access_token
from tests.introspection.conftest import OTHER, Answer, Ask
from tests.introspection.test_introspect import unusable

AskAll = Callable[..., Awaitable[Answer]]


@pytest.fixture
def ask_all(session: ClientSession) -> AskAll:
    """Return a function that asks about tokens together, as `resource` unless it is told another."""

    async def one(tokens: Any, client_id: str = RESOURCE) -> Answer:
        headers = basic(client_id, SECRETS.get(client_id, SECRETS[RESOURCE]))
        async with session.post("/introspect/batch", json={"tokens": tokens}, headers=headers) as answer:
            kept = {name: value for name, value in answer.headers.items() if name not in ("Date", "Content-Length")}
            return Answer(answer.status, await answer.read(), kept)

    return one


async def test_each_token_of_a_batch_is_answered_as_it_would_be_alone(
    ask: Ask, ask_all: AskAll, stage: Standing
) -> None:
    """Checklist (11): order kept, each judged for the same caller; the same member by member as RFC 7662, 2.2."""
    bad = [token.decode() if isinstance(token, bytes) else token for token in (await unusable(stage)).values()]
    good = [stage.world.mint(sub="alice").decode(), await stage.put_opaque(sub="bob")]
    elsewhere = stage.world.mint(aud="https://other.example").decode()
    tokens = [*bad, good[0], elsewhere, good[1], good[0]]
    active: list[list[int]] = []
    for caller in (RESOURCE, OTHER):
        answer = await ask_all(tokens, caller)
        alone = [json.loads((await ask(token, caller)).body) for token in tokens]
        assert (answer.status, json.loads(answer.body)) == (200, {"results": alone})
        assert answer.headers["Cache-Control"] == "no-store"
        active.append([number for number, one in enumerate(alone) if one["active"]])
    assert active[0] == [len(bad), len(bad) + 2, len(bad) + 3]
    assert len(bad) + 1 in active[1]
    assert not set(active[0]) & set(active[1])


async def test_a_batch_goes_to_the_store_once(ask_all: AskAll, stage: Standing, store: FickleRedis) -> None:
    """A hundred tokens cost one round trip, whatever they are."""
    tokens = [await stage.put_opaque(sub=f"user-{number}") for number in range(MOST_TOKENS - 2)]
    tokens += [stage.world.mint().decode(), new_access_token()]
    await ask_all(tokens[:1])
    before = store.trips
    answers = json.loads((await ask_all(tokens)).body)["results"]
    assert store.trips - before == 1
    assert [one.get("sub") for one in answers] == [*(f"user-{n}" for n in range(MOST_TOKENS - 2)), "alice", None]


async def test_a_revocation_that_was_answered_binds_the_next_batch(ask_all: AskAll, stage: Standing) -> None:
    """The replica hears nothing by itself here: the position read beside the records makes it catch up."""
    jti = entropy.uuid7(1)
    tokens = [await stage.put_opaque(jti=jti), stage.world.mint().decode(), stage.world.mint(jti=jti).decode()]
    assert [one["active"] for one in json.loads((await ask_all(tokens)).body)["results"]] == [True, True, True]
    await stage.revoke(stage.world.entry(SelectorKind.JTI, jti), elsewhere=True)
    assert [one["active"] for one in json.loads((await ask_all(tokens)).body)["results"]] == [False, True, False]


async def test_a_batch_of_which_one_cannot_be_judged_is_answered_503(
    ask_all: AskAll, stage: Standing, store: FickleRedis
) -> None:
    """Checklist (6), RFC 9110, 15.6.4: unknown is never "inactive", and an answer with a hole would be read so."""
    tokens = [stage.world.mint().decode(), new_access_token()]
    store.away = True
    answer = await ask_all(tokens)
    assert (answer.status, answer.body) == (503, b'{"error":"temporarily_unavailable"}')
    assert answer.headers["Retry-After"] == "1"


def test_one_unknown_among_many_leaves_nothing_to_be_said_of_any() -> None:
    """Checklist (6): a refresh token's family and a record are read apart, so that one may fail where others do not."""
    known = [Verdict(Kind.INACTIVE, "x", State.FRESH), Verdict(Kind.ACTIVE, "active", State.FRESH, {"sub": "alice"})]
    unknown = Verdict(Kind.UNKNOWN, "store_unavailable", State.FRESH)
    for verdicts in ([unknown, *known], [*known, unknown], [known[0], unknown, known[1]]):
        answer = render_batch(verdicts)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        assert answer.body == b'{"error":"temporarily_unavailable"}'
    assert render_batch(known).status == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b'{"tokens":[]}', 400),
        (b'{"tokens":["a",1]}', 400),
        (b'{"tokens":"a"}', 400),
        (b'{"tokens":["a"],"tokens":["b"]}', 400),
        (b'{"tokens":["a"],"token_type_hint":"x"}', 400),
        (json.dumps({"tokens": ["a"] * (MOST_TOKENS + 1)}).encode(), 400),
        (b'{"tokens":["' + b"x" * 1_000_000 + b'"]}', 413),
        (b'{"tokens":[""]}', 200),
        (json.dumps({"tokens": ["x" * 8192] * MOST_TOKENS}).encode(), 200),
        (json.dumps({"tokens": ["x" * 9000, "\ud800"]}).encode(), 400),
    ],
)
async def test_a_batch_is_a_json_list_of_one_to_a_hundred_strings(
    session: ClientSession, body: bytes, status: int
) -> None:
    """Limits are named and answered as RFC 6749, 5.2 has it; a hundred tokens of the largest size fit."""
    headers = {**basic(RESOURCE), "Content-Type": "application/json"}
    async with session.post("/introspect/batch", data=body, headers=headers) as answer:
        assert answer.status == status
        told = await answer.json()
        assert told["error"] == "invalid_request" if status != 200 else not any(x["active"] for x in told["results"])
        assert answer.headers["Cache-Control"] == "no-store"


async def test_a_batch_is_for_clients_that_may_introspect(session: ClientSession) -> None:
    """Checklist (2), RFC 7662, 2.1: and nobody's megabyte is read before he is known."""
    sent = {"tokens": ["x"], "client_id": RESOURCE, "client_secret": SECRETS[RESOURCE]}
    for headers in ({}, basic(CLIENT), basic(RESOURCE, "wrong"), basic("public", "")):
        async with session.post("/introspect/batch", json=sent, headers=headers) as answer:
            assert (answer.status, (await answer.json())["error"]) == (401, "invalid_client")
    async with session.post("/introspect/batch", data={"tokens": "x"}, headers=basic(RESOURCE)) as answer:
        assert answer.status == 415
    async with session.get("/introspect/batch", headers=basic(RESOURCE)) as answer:
        assert answer.status == 405
