"""What introspection remembers of opaque tokens: it makes a yes faster, and never keeps a no from being said."""

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from introspection.memory import BYTES_EACH, REMEMBERED_SECONDS, Memory, Remembered
from keyturn import entropy
from keyturn.contract.encoding import decode_object, encode_json
from keyturn.contract.positions import Lane
from keyturn.contract.revocations import RevocationIndex
from keyturn.contract.selectors import SelectorKind
from keyturn.verifier.freshness import State
from keyturn.verifier.verdict import Kind, Verdict
from serving.records import LARGEST_RECORD_BYTES
from tests.building import RESOURCE, FickleRedis, Standing, new_access_token
from tests.clocks import LeapingClock
from tests.introspection.conftest import BOTH, OTHER, Ask
from tests.world import AUDIENCE

INACTIVE = b'{"active":false}'
ACTIVE = b'"active":true'


@pytest.fixture
def gets(store: FickleRedis, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the key of each record that is read."""
    noted: list[str] = []
    made = store.pipeline

    def pipeline(*arguments: Any, **options: Any) -> Any:
        one = made(*arguments, **options)
        get = one.get

        def noting(name: str) -> Any:
            noted.append(name)
            return get(name)

        monkeypatch.setattr(one, "get", noting, raising=False)
        return one

    monkeypatch.setattr(store, "pipeline", pipeline)
    return noted


async def test_a_record_is_read_once_and_the_positions_each_time(
    ask: Ask, stage: Standing, store: FickleRedis, gets: list[str]
) -> None:
    """The promise of ADR 0005 needs the positions; the record cannot have changed without them."""
    token = await stage.put_opaque()
    before = store.trips
    answers = {(await ask(token)).body for _ in range(5)}
    assert len(answers) == 1
    assert ACTIVE in answers.pop()
    assert (len(gets), store.trips - before) == (1, 5)


@pytest.mark.parametrize("kind", ["jti", "grant", "subject", "client", "all"])
async def test_a_revocation_of_any_kind_reaches_what_is_remembered(ask: Ask, stage: Standing, kind: str) -> None:
    """The next question after a 200 from /revoke is a no, though nothing was pushed here (RFC 7662, 4; ADR 0005)."""
    grant, jti, now = entropy.uuid7(stage.world.clock.now() - 60), entropy.uuid7(1), stage.world.clock.now()
    token = await stage.put_opaque(jti=jti, grant_id=grant, sub="alice")
    other = await stage.put_opaque(sub="bob", grant_id=entropy.uuid7(now + 1))
    for _ in range(2):
        assert ACTIVE in (await ask(token)).body
        assert ACTIVE in (await ask(other)).body
    entry = stage.world.entry
    await stage.revoke(
        {
            "jti": lambda: entry(SelectorKind.JTI, jti),
            "grant": lambda: entry(SelectorKind.GRANT, grant),
            "subject": lambda: entry(SelectorKind.SUBJECT, "alice", before=now),
            "client": lambda: entry(SelectorKind.CLIENT, "shop", before=now),
            "all": lambda: entry(SelectorKind.ALL, "", before=now),
        }[kind](),
        elsewhere=True,
    )
    assert (await ask(token)).body == INACTIVE
    assert ACTIVE in (await ask(other)).body


async def test_a_deleted_record_is_a_revoked_one(ask: Ask, stage: Standing) -> None:
    """/revoke appends first and deletes then: the feed says all that the record's absence says."""
    jti = entropy.uuid7(1)
    token = await stage.put_opaque(jti=jti)
    assert ACTIVE in (await ask(token)).body
    await stage.revoke(stage.world.entry(SelectorKind.JTI, jti), elsewhere=True)
    await stage.records.delete(token)
    assert (await ask(token)).body == INACTIVE


async def test_a_record_that_went_without_a_word_is_missed_within_the_minute(
    ask: Ask, stage: Standing, store: FickleRedis
) -> None:
    """A bound for what nobody should do: to take a record away by hand."""
    token = await stage.put_opaque()
    assert ACTIVE in (await ask(token)).body
    await stage.records.delete(token)
    now = stage.world.clock.now()
    memory = Memory(stage.parts.replica, most=8)
    memory.keep(token, (AUDIENCE,), _active(stage), now)
    assert memory.recall(token, (AUDIENCE,), now)
    assert memory.recall(token, (AUDIENCE,), now + REMEMBERED_SECONDS) is None
    assert (len(memory), memory.size_bytes) == (0, 0)


def _active(stage: Standing, **changes: Any) -> Verdict:
    return Verdict(Kind.ACTIVE, "active", State.FRESH, stage.world.claims(**changes))


async def test_another_caller_learns_nothing_of_what_is_remembered(
    ask: Ask, stage: Standing, gets: list[str], store: FickleRedis
) -> None:
    """RFC 7662, 4: a token that others asked about is as unknown to a stranger as one that never was, in time, too."""
    token = await stage.put_opaque()
    for _ in range(2):
        assert ACTIVE in (await ask(token, RESOURCE)).body
    trips, reads = store.trips, len(gets)
    assert (await ask(token, OTHER)).body == INACTIVE
    assert (await ask(new_access_token(), OTHER)).body == INACTIVE
    assert (store.trips - trips, len(gets) - reads) == (2, 2)  # One trip and one record for each of both.
    assert ACTIVE in (await ask(token, BOTH)).body


async def test_nothing_is_remembered_of_a_no(ask: Ask, stage: Standing, gets: list[str]) -> None:
    """A record may be written the moment after; and the memory must not fill with what strangers make up."""
    token = new_access_token()
    assert (await ask(token)).body == INACTIVE
    claims = stage.world.claims()
    await stage.records.put(token, claims, expires_at=stage.world.clock.now() + 60)
    assert ACTIVE in (await ask(token)).body
    assert len(gets) == 2


async def test_only_a_fresh_replica_is_asked_from_memory(
    ask: Ask, stage: Standing, gets: list[str], clock: LeapingClock
) -> None:
    """The issue's words: used only while fresh. Past that each record is read again."""
    token = await stage.put_opaque(exp=int(clock.now()) + 900)
    for _ in range(2):
        assert ACTIVE in (await ask(token)).body
    assert len(gets) == 1
    clock.ahead_seconds = stage.world.freshness.stale_after_seconds + 1
    for _ in range(2):
        assert ACTIVE in (await ask(token)).body
    assert len(gets) == 3


async def test_a_client_that_the_root_has_dropped_takes_remembered_tokens_along(ask: Ask, stage: Standing) -> None:
    """Checklist (4), RFC 7662, 4: a deleted client's tokens are inactive, remembered or not."""
    memory, now = Memory(stage.parts.replica, most=8), stage.world.clock.now()
    memory.keep("a", (AUDIENCE,), _active(stage, client_id="gone"), now)
    assert memory.recall("a", (AUDIENCE,), now) is None
    memory.keep("b", (AUDIENCE,), _active(stage, client_id="shop"), now)
    one = memory.recall("b", (AUDIENCE,), now)
    assert one is not None
    assert memory.objection(one, now) is None


async def test_the_memory_is_bounded_and_holds_no_token(stage: Standing) -> None:
    """A limit on everything that grows; a dump of the memory gives nobody a token that works."""
    memory, now = Memory(stage.parts.replica, most=3), stage.world.clock.now()
    tokens = [new_access_token() for _ in range(5)]
    for token in tokens:
        memory.keep(token, (AUDIENCE,), _active(stage), now)
    assert len(memory) == 3
    assert [memory.recall(token, (AUDIENCE,), now) is not None for token in tokens] == [False, False, True, True, True]
    assert not any(token in repr(vars(memory)) for token in tokens)
    same, memory = _active(stage), Memory(stage.parts.replica, most=64)  # One has room for all that is kept of a token.
    for number in range(200):
        memory.keep(tokens[-1], (f"https://{number}.example",), same, now)
        one = memory.recall(tokens[-1], (f"https://{number}.example",), now)
        assert one is not None
        assert len(one.verdicts) == number % 64 + 1
    assert len(memory) == 1


async def test_what_is_remembered_is_found_by_no_hash_that_another_process_could_make(stage: Standing) -> None:
    """A dump of two processes' memories must not tell which tokens both have seen, nor let anybody search for one."""
    token, now = new_access_token(), stage.world.clock.now()
    memories = [Memory(stage.parts.replica, most=3) for _ in range(2)]
    for memory in memories:
        memory.keep(token, (AUDIENCE,), _active(stage), now)
    assert not set(memories[0]._kept) & set(memories[1]._kept)


async def test_a_record_that_reads_otherwise_leaves_no_answer_made_of_the_old_one(stage: Standing) -> None:
    """Each caller is told what the newest reading says, or nothing from memory: never two tokens by one name."""
    memory, now = Memory(stage.parts.replica, most=8), stage.world.clock.now()
    memory.keep("a", ("https://first.example",), _active(stage, sub="alice"), now)
    memory.keep("a", ("https://second.example",), _active(stage, sub="bob"), now)
    assert memory.recall("a", ("https://first.example",), now) is None
    one = memory.recall("a", ("https://second.example",), now)
    assert one is not None
    assert (one.claims["sub"], len(memory)) == ("bob", 1)


async def test_a_revocation_that_arrives_while_the_store_is_asked_is_obeyed(ask: Ask, stage: Standing) -> None:
    """What is remembered is looked at after the wait, not before it."""
    jti = entropy.uuid7(1)
    token = await stage.put_opaque(jti=jti)
    assert ACTIVE in (await ask(token)).body
    before = stage.parts.replica.place(Lane.REVOCATIONS)
    await stage.revoke(stage.world.entry(SelectorKind.JTI, jti), elsewhere=True)
    assert stage.parts.replica.place(Lane.REVOCATIONS) == before  # Only the question itself makes it catch up.
    assert (await ask(token)).body == INACTIVE


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[Remembered], None]]:
    """Return what is to happen, once each, to a token that was recalled while the store is asked about it."""
    events: list[Callable[[Remembered], None]] = []
    recall = Memory.recall

    def recalling(self: Memory, token: str, audiences: tuple[str, ...], now: float) -> Remembered | None:
        one = recall(self, token, audiences, now)
        if one is not None and events:
            events.pop()(one)
        return one

    monkeypatch.setattr(Memory, "recall", recalling)
    return events


async def test_what_was_remembered_for_long_enough_while_the_store_is_asked_is_active_still(
    ask: Ask, stage: Standing, meanwhile: list[Callable[[Remembered], None]]
) -> None:
    """RFC 7662, 2.2: that a record is due to be read again says nothing against its token."""
    token = await stage.put_opaque()
    first = await ask(token)
    meanwhile.append(lambda one: setattr(one, "expires", 0.0))
    assert ACTIVE in first.body
    assert await ask(token, accept="application/json") == first  # By the long way.
    assert meanwhile == []


async def test_an_answer_that_makes_way_while_the_store_is_asked_is_made_again(
    ask: Ask, stage: Standing, meanwhile: list[Callable[[Remembered], None]]
) -> None:
    """A bound on what is kept for some callers must not become a 500 for another."""
    token = await stage.put_opaque()
    first = await ask(token)
    meanwhile.append(lambda one: one.verdicts.clear())
    assert await ask(token, accept="application/json") == first  # By the long way.
    assert meanwhile == []


async def test_no_collection_visits_what_is_remembered(stage: Standing) -> None:
    """A full collection stops every answer: with a hundred thousand remembered tokens it took 160 ms."""
    memory, now, token = Memory(stage.parts.replica, most=8), stage.world.clock.now(), new_access_token()
    claims = {"iss": stage.parts.issuer, "client_id": RESOURCE, "jti": "one", "sub": "alice", "exp": now + 60}
    memory.keep(token, (AUDIENCE,), Verdict(Kind.ACTIVE, "active", State.FRESH, claims), now)
    kept = memory.recall(token, (AUDIENCE,), now)
    assert kept is not None
    assert kept.names
    gc.collect()
    parts = [kept, kept.claims, kept.names, *kept.names, kept.verdicts, *kept.verdicts.values()]
    assert [one for one in parts if gc.is_tracked(one)] == []


async def test_revocations_of_another_epoch_are_looked_for_by_its_own_hashes(stage: Standing) -> None:
    """A new epoch brings a new hash key: by the old names nothing of it would ever be found (ADR 0005)."""
    replica, now = stage.parts.replica, stage.world.clock.now()
    memory, claims = Memory(replica, most=8), stage.world.claims(jti=entropy.uuid7(1))
    memory.keep("a", (AUDIENCE,), Verdict(Kind.ACTIVE, "active", State.FRESH, claims), now)
    assert memory.recall("a", (AUDIENCE,), now) is not None
    for named, recalled in ((entropy.uuid7(2), True), (claims["jti"], False)):
        another = RevocationIndex(entropy.token_bytes(16))
        another.add(stage.world.entry(SelectorKind.JTI, named))
        for _ in replica.absorb((another,)):
            pass
        assert (memory.recall("a", (AUDIENCE,), now) is not None) == recalled


LARGE: dict[str, Any] = {
    "aud": [f"https://{number}.example" for number in range(600)],
    "scope": " ".join(f"scope-{number}" for number in range(300)),
}
"""About as much as a record may have, in the shape that takes the most memory for it."""


@pytest.mark.parametrize("shape", ["usual", "large", "long"])
@pytest.mark.parametrize("callers", [1, 64])
async def test_what_is_counted_is_what_it_takes(stage: Standing, shape: str, callers: int) -> None:
    """A bound in bytes is none if the bytes are counted wrongly."""
    shapes: dict[str, dict[str, Any]] = {"usual": {}, "large": LARGE, "long": {"scope": "x" * 15_000}}
    changes = shapes[shape]
    memory, now = Memory(stage.parts.replica, most=65_536), stage.world.clock.now()
    records = [encode_json(stage.world.claims(**changes)) for _ in range(64 if shape == "usual" else 4)]
    assert len(records[0]) <= LARGEST_RECORD_BYTES
    assert shape == "usual" or len(records[0]) > 0.8 * LARGEST_RECORD_BYTES
    audiences = [(f"https://{number}.example",) for number in range(callers)]
    memory.keep(new_access_token(), (AUDIENCE,), _active(stage), now)  # What is made once is not to be counted.
    before = memory.size_bytes
    tracemalloc.start()
    for record in records:
        token, claims = new_access_token(), decode_object(record)
        for audience in audiences:
            verdict = Verdict(Kind.ACTIVE, "active", State.FRESH, claims)
            memory.keep(token, audience, verdict, now)
            one = memory.recall(token, audience, now)
            assert one is not None
            assert one.verdicts[audience] is verdict
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    counted = memory.size_bytes - before
    assert 0.8 <= counted / taken <= 1.3, (taken / len(records), counted / len(records))


async def test_the_memory_is_bounded_by_bytes_too(stage: Standing) -> None:
    """A limit on everything that grows: by number alone, the largest records would take a hundred times the usual."""
    memory, now = Memory(stage.parts.replica, most=64), stage.world.clock.now()
    usual = [new_access_token() for _ in range(64)]
    for token in usual:
        memory.keep(token, (AUDIENCE,), _active(stage), now)
    assert len(memory) == 64, "usual ones are bounded by their number"
    assert memory.size_bytes <= 64 * BYTES_EACH
    large = [new_access_token() for _ in range(20)]
    for token in large:
        memory.keep(token, (AUDIENCE,), _active(stage, **LARGE), now)
        assert memory.recall(token, (AUDIENCE,), now), "the newest is there"
        assert 0 < memory.size_bytes <= 64 * BYTES_EACH
    assert not any(memory.recall(token, (AUDIENCE,), now) for token in usual), "the oldest make way"
    for token in large:
        memory.recall(token, (AUDIENCE,), now + REMEMBERED_SECONDS)
    assert (len(memory), memory.size_bytes) == (0, 0)
    small = Memory(stage.parts.replica, most=1)
    small.keep(large[0], (AUDIENCE,), _active(stage, **LARGE), now)
    assert (len(small), small.size_bytes) == (0, 0), "one that is too large by itself is not remembered"
    small.keep(usual[0], (AUDIENCE,), _active(stage), now)
    small.keep(large[0], (AUDIENCE,), _active(stage, **LARGE), now)
    assert small.recall(usual[0], (AUDIENCE,), now), "nor does it drive others out"
