"""An audit believes signatures and hashes, and nothing that a dump says beside them."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.contract import events as e
from keyturn.contract import keys as k
from keyturn.contract.encoding import encode_json
from keyturn.contract.envelope import StatementType
from keyturn.contract.errors import BrokenChain, ForgedSignature, KeyturnError, MalformedInput, UnknownKind
from keyturn.contract.positions import Lane
from keyturn.contract.selectors import SelectorKind
from keyturn.feed.audit import Audit
from keyturn.feed.lines import HIGHEST_SEQUENCE, Line, claims_of, numbered, parse_line, render_line
from tests.world import World, new_statement_key

KEYS, REVOCATIONS = Lane


async def revocations(world: World, count: int) -> list[e.SignedEvent]:
    """Publish so many revocations and return their events."""
    member = await world.caught_up()
    publisher = world.publisher(REVOCATIONS, member)
    return [await publisher.append([world.entry(SelectorKind.JTI, f"t{number}")]) for number in range(count)]


def line_of(signed: Any) -> Line:
    """Return the line of a signed statement, as an honest dump has it."""
    position = signed.position
    claimed = claims_of(signed.compact)
    return Line(claimed.lane, position.epoch, position.sequence, signed.compact)


def take_all(audit: Audit, signed: Sequence[Any]) -> None:
    """Let an audit take statements in order."""
    for one in signed:
        audit.take(line_of(one))


@pytest.fixture
async def world() -> World:
    """Return a world in memory whose lanes have begun."""
    return await World().begin()


async def test_a_whole_lane_holds_from_its_genesis(world: World) -> None:
    """The genesis is the first link: with it nothing before the first event can be missing."""
    audit = Audit([world.trust()])
    signed = await revocations(world, 5)
    take_all(audit, [world.genesis(REVOCATIONS), *signed])
    (stretch,) = audit.lanes[REVOCATIONS].stretches
    assert (stretch.epoch, stretch.first, stretch.last, stretch.begins_with) == (1, 0, 5, "genesis")
    assert (stretch.events, list(stretch.signers)) == (5, [world.roles[REVOCATIONS].kid])
    audit.lanes[REVOCATIONS].require_all()


async def test_a_part_of_a_lane_holds_on_the_word_of_its_first_event(world: World) -> None:
    """A dump of a trimmed stream begins in the middle, and must say so."""
    audit = Audit([world.trust()])
    take_all(audit, (await revocations(world, 6))[3:])
    (stretch,) = audit.lanes[REVOCATIONS].stretches
    assert (stretch.first, stretch.last, stretch.begins_with) == (4, 6, "event")


async def test_what_the_lanes_role_did_not_sign_is_forged(world: World) -> None:
    """Another role's key, somebody's key and a changed byte."""
    audit = Audit([world.trust()])
    member = await world.caught_up()
    event = world.event(REVOCATIONS, member, [world.entry(SelectorKind.JTI, "x")])
    for key in (world.roles[KEYS], new_statement_key()):
        with pytest.raises(ForgedSignature):
            audit.take(line_of(e.sign_event(key, event)))
    good = e.sign_event(world.roles[REVOCATIONS], event)
    with pytest.raises(ForgedSignature):
        audit.take(line_of(good)._replace(compact=good.compact[:-4] + b"AAAA"))
    audit.take(line_of(good))


async def test_a_statement_under_another_lane_or_place_is_noticed(world: World) -> None:
    """The line is not signed: what it says of the place must be what the signed bytes say."""
    audit = Audit([world.trust()])
    (signed,) = await revocations(world, 1)
    for wrong in (line_of(signed)._replace(sequence=2), line_of(signed)._replace(epoch=2)):
        with pytest.raises(BrokenChain, match="the line says"):
            audit.take(wrong)
    with pytest.raises(ForgedSignature):
        audit.take(line_of(signed)._replace(lane=KEYS))


async def test_gaps_forks_and_steps_back_are_noticed(world: World) -> None:
    """Each names the place exactly."""
    signed = await revocations(world, 5)
    audit = Audit([world.trust()])
    take_all(audit, signed[:2])
    with pytest.raises(BrokenChain, match="3 to 4 of epoch 1 are missing"):
        audit.take(line_of(signed[4]))
    assert not audit.take(line_of(signed[0])).extends, "a line that comes twice is no harm"
    other = e.sign_event(
        world.roles[REVOCATIONS],
        e.RevocationsEvent(epoch=1, sequence=2, at=1.0, trust=1, previous=signed[0].hash, id="x", entries=()),
    )
    with pytest.raises(BrokenChain, match="two histories claim place 1:2"):
        audit.take(line_of(other))
    forked = e.sign_event(
        world.roles[REVOCATIONS],
        e.RevocationsEvent(epoch=1, sequence=3, at=1.0, trust=1, previous=other.hash, id="x", entries=()),
    )
    with pytest.raises(BrokenChain, match="1:3 follows another history"):
        audit.take(line_of(forked))
    take_all(audit, signed[2:])
    audit.take(line_of(world.genesis(REVOCATIONS, epoch=2)))
    with pytest.raises(BrokenChain, match="epoch 1 comes after epoch 2"):
        audit.take(line_of(signed[4]))
    assert [(one.epoch, one.last) for one in audit.lanes[REVOCATIONS].stretches] == [(1, 5), (2, 0)]


async def test_a_head_tells_of_events_that_a_dump_lacks(world: World) -> None:
    """Whoever cuts the end off a dump must not get away with it, where a head is at hand."""
    signed = await revocations(world, 3)
    head = e.sign_head(
        world.roles[REVOCATIONS], e.RevocationsHead(epoch=1, sequence=3, hash=signed[2].hash, at=1.0, trust=1)
    )
    audit = Audit([world.trust()])
    take_all(audit, signed[:2])
    assert not audit.take(line_of(head)).extends
    with pytest.raises(BrokenChain, match="vouches for 1:3, and the events end at 1:2"):
        audit.lanes[REVOCATIONS].require_all()
    audit.take(line_of(signed[2]))
    audit.lanes[REVOCATIONS].require_all()
    lying = e.sign_head(
        world.roles[REVOCATIONS], e.RevocationsHead(epoch=1, sequence=2, hash=signed[2].hash, at=1.0, trust=1)
    )
    with pytest.raises(BrokenChain, match="two histories"):
        audit.take(line_of(lying))


async def test_a_step_that_no_key_can_take_is_noticed_from_a_snapshot_on(world: World) -> None:
    """Every replica would stop there."""
    signed = e.sign_event(
        world.roles[KEYS],
        e.KeysEvent(
            epoch=1, sequence=1, at=1.0, trust=1, previous=world.genesis(KEYS).hash, id="x",
            changes=(k.Retired(kid="nobody"),),
        ),
    )  # fmt: skip
    audit = Audit([world.trust()])
    audit.take(line_of(world.genesis(KEYS)))
    with pytest.raises(BrokenChain, match="never published"):
        audit.take(line_of(signed))


async def test_a_signed_statement_of_a_newer_kind_is_not_called_false(world: World) -> None:
    """Only that this version cannot read it."""
    (signed,) = await revocations(world, 1)
    payload = json.loads(encode_json(signed.event)) | {"format": 2}
    newer = world.roles[REVOCATIONS].sign(StatementType.EVENT, encode_json(payload))
    with pytest.raises(UnknownKind):
        Audit([world.trust()]).take(line_of(signed)._replace(compact=newer))


async def test_a_key_that_had_the_role_is_believed_for_its_time_alone_and_named(world: World) -> None:
    """An archive outlives a role key; without the document of its time, what it signed is nobody's word."""
    old = await revocations(world, 2)
    old_trust, old_key = world.trust(), world.roles[REVOCATIONS]
    old_kid = old_key.kid
    world.roles[REVOCATIONS] = new_statement_key()
    new_trust = world.trust(version=2, lowest_epoch={"keys": 1, "revocations": 2})
    with pytest.raises(ForgedSignature):
        Audit([new_trust]).take(line_of(old[0]))
    audit = Audit([new_trust, old_trust])
    take_all(audit, [*old, world.genesis(REVOCATIONS, epoch=2, trust=2)])
    first, second = audit.lanes[REVOCATIONS].stretches
    assert audit.retired(REVOCATIONS, list(first.signers)) == [old_kid]
    assert audit.retired(REVOCATIONS, list(second.signers)) == []
    assert audit.dropped(REVOCATIONS, first.epoch)
    assert not audit.dropped(REVOCATIONS, second.epoch)
    for trust in (1, 2):  # The thief of the old key dates back what he signs, or does not.
        stolen = e.RevocationsEvent(epoch=2, sequence=1, at=1.0, trust=trust, previous="x", id="x", entries=())
        with pytest.raises(ForgedSignature):
            audit.take(line_of(e.sign_event(old_key, stolen)))
    late = Audit([old_trust])
    with pytest.raises(ForgedSignature):
        late.take(line_of(world.genesis(REVOCATIONS, epoch=2, trust=2)))
    late.learn(new_trust)
    late.take(line_of(world.genesis(REVOCATIONS, epoch=2, trust=2)))


@given(st.binary(max_size=64))
def test_no_bytes_in_the_store_break_the_text(stored: bytes) -> None:
    """Somebody else may have written there; his bytes must be shown, and not end the answer for all that follows."""
    rendered = render_line(KEYS, epoch=1, sequence=7, event=stored)
    assert rendered.count(b"\n") == 1
    line = parse_line(rendered)
    assert (line.lane, line.epoch, line.sequence) == (KEYS, 1, 7)
    with pytest.raises(KeyturnError):
        Audit([World().trust()]).take(line)


def test_what_is_no_line_is_refused() -> None:
    """Each with a reason and none with a crash."""
    good = {"lane": "keys", "epoch": 1, "sequence": 1, "event": "a.b.c"}
    for spoilt in (
        b"", b"nonsense", b"{", b"[]", b"a.!.c", b'{"lane":"keys","lane":"keys"}', b"\xff\xfe",
        json.dumps(good | {"head": "a.b.c"}).encode(), json.dumps(good | {"lane": "other"}).encode(),
        json.dumps(good | {"epoch": "1"}).encode(), json.dumps(good | {"event": 7}).encode(),
        json.dumps({name: good[name] for name in ("lane", "event")}).encode(),
    ):  # fmt: skip
        with pytest.raises(MalformedInput):
            parse_line(spoilt)
    assert parse_line(json.dumps(good | {"what": ["for people"]}).encode()).compact == b"a.b.c"


async def test_a_reader_gets_further_whatever_stands_in_the_stream(world: World) -> None:
    """A made-up sequence must neither hold a reader up nor send him beyond what a stream can have."""
    signed = await revocations(world, 3)
    far = world.roles[KEYS].sign(StatementType.EVENT, encode_json({"lane": "keys", "epoch": 1, "sequence": 10**20}))
    back = world.roles[KEYS].sign(StatementType.EVENT, encode_json({"lane": "keys", "epoch": 1, "sequence": 1}))
    batch = [signed[2].compact, b"\xff", far, back, b"", signed[0].compact]
    assert [sequence for sequence, _ in numbered(batch, after=0)] == [3, 4, 5, 6, 7, 8]
    assert max(sequence for sequence, _ in numbered([far], after=0)) <= HIGHEST_SEQUENCE
