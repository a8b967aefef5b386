"""What a signed statement of a lane may say: nothing that its reader would have to guess, or hold without a limit."""

from base64 import b64encode
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from keyturn.contract import events as e
from keyturn.contract.encoding import encode_json
from keyturn.contract.envelope import StatementType
from keyturn.contract.errors import ForgedSignature, UnknownKind
from keyturn.contract.jwk import load_public
from keyturn.contract.keys import Published, Use
from keyturn.contract.positions import Lane
from keyturn.contract.selectors import Entry, Selector, SelectorKind
from keyturn.contract.snapshots import MOST_CHUNKS, MOST_SECTIONS, Section
from tests.world import new_statement_key

KEY = new_statement_key()
SIGNERS: e.Signers = {KEY.kid: load_public(KEY.public, "EdDSA")}  # type: ignore[dict-item]
PLACE: dict[str, Any] = {"epoch": 1, "sequence": 1, "at": 1_800_000_000.0, "trust": 1}
ENTRY = Entry(selector=Selector(iss="i", kind=SelectorKind.JTI, value="a"), until=2e9)
EVENT = e.RevocationsEvent(**PLACE, previous="p", id="x", entries=(ENTRY,))
SNAPSHOT = e.RevocationsSnapshot(**PLACE, sections=(Section(hash_key=bytes(16)),))
CHUNK = ["x" * 43, 1, 1]
DEEP = b"[" * 100_000 + b"]" * 100_000


def section(number: int = 0, *, size: int = 16, **more: Any) -> dict[str, Any]:
    """Return a section under a hash key of its own."""
    return {"hash_key": b64encode(number.to_bytes(4, "big").rjust(size, b"\1")).decode(), **more}


def opened_event(**changes: Any) -> e.SignedEvent:
    """Open the event with these members, signed by its role."""
    compact = KEY.sign(StatementType.EVENT, encode_json(msgspec.to_builtins(EVENT) | changes))
    return e.open_event(compact, Lane.REVOCATIONS, SIGNERS)


def opened_snapshot(**changes: Any) -> e.SignedSnapshot:
    """Open the snapshot with these members, signed by its role."""
    compact = KEY.sign(StatementType.SNAPSHOT, encode_json(msgspec.to_builtins(SNAPSHOT) | changes))
    return e.open_snapshot(compact, Lane.REVOCATIONS, SIGNERS)


def entry(**changes: Any) -> dict[str, Any]:
    """Return the entry with these members."""
    return dict(msgspec.to_builtins(ENTRY)) | changes


@pytest.mark.parametrize(
    "changes",
    [
        {"epoch": 0}, {"epoch": -1}, {"sequence": -1}, {"trust": -1}, {"more": 1}, {"lane": "keys"}, {"format": 2},
        {"entries": [entry(more=1)]}, {"entries": [entry(selector=entry()["selector"] | {"more": 1})]},
        {"entries": [entry(selector=entry()["selector"] | {"kind": "device"})]}, {"entries": [entry(until="late")]},
    ],
    ids=str,
)  # fmt: skip
def test_an_event_that_says_what_this_version_cannot_know_is_not_read_in_part(changes: dict[str, Any]) -> None:
    """Its signer vouches for it: a member passed over may be the one that makes it a revocation."""
    assert opened_event().event == EVENT
    with pytest.raises(UnknownKind):
        opened_event(**changes)


def test_a_newer_format_is_named_whatever_else_it_brings() -> None:
    """An operator has to hear that the reader is old, and not that a statement is broken."""
    with pytest.raises(UnknownKind, match="feed format 2"):
        opened_event(format=2, more=1)


@pytest.mark.parametrize("open_", [e.open_event, e.open_head, e.open_snapshot])
def test_what_is_nested_without_an_end_is_unreadable_and_nothing_worse(open_: Callable[..., Any]) -> None:
    """A stolen role key must not end the readers; the follower lives through UnknownKind alone."""
    typ = {e.open_event: StatementType.EVENT, e.open_head: StatementType.HEAD}.get(open_, StatementType.SNAPSHOT)
    with pytest.raises(UnknownKind):
        open_(KEY.sign(typ, b'{"lane": "revocations", "entries": ' + DEEP + b"}"), Lane.REVOCATIONS, SIGNERS)


def test_a_key_that_is_nested_without_an_end_is_unreadable_and_nothing_worse() -> None:
    """A JWK may have members of any kind (RFC 7517, 4), so that only the reader's own depth is in its way."""
    published = Published(kid="k", alg="ES256", jwk={"x": "deep"}, use=Use.ACCESS, token_seconds=300.0)
    payload = encode_json(msgspec.to_builtins(e.KeysEvent(**PLACE, previous="p", id="x", changes=(published,))))
    assert e.open_event(KEY.sign(StatementType.EVENT, payload), Lane.KEYS, SIGNERS)
    with pytest.raises(UnknownKind):
        e.open_event(KEY.sign(StatementType.EVENT, payload.replace(b'"deep"', DEEP)), Lane.KEYS, SIGNERS)


def test_a_statement_is_opened_as_what_it_was_signed_as() -> None:
    """One key signs all of a lane: a head must not be taken for an event, nor anything without a place for either."""
    payload = encode_json(msgspec.to_builtins(EVENT))
    for typ in (StatementType.HEAD, StatementType.SNAPSHOT, StatementType.REPORT):
        with pytest.raises(ForgedSignature):
            e.open_event(KEY.sign(typ, payload), Lane.REVOCATIONS, SIGNERS)
    assert e.signed_at(KEY.sign(StatementType.EVENT, payload), Lane.REVOCATIONS, SIGNERS) == EVENT.at
    with pytest.raises(ForgedSignature):
        e.signed_at(KEY.sign(StatementType.REPORT, payload), Lane.REVOCATIONS, SIGNERS)


@pytest.mark.parametrize(
    "sections",
    [
        [], [section(number) for number in range(MOST_SECTIONS + 1)], [section(), section()], [section(more=1)],
        [section(size=15)], [section(size=65)], [section(exact=[CHUNK] * (MOST_CHUNKS + 1))],
        [section(cutoffs=[CHUNK] * (MOST_CHUNKS + 1))],
    ],
    ids=["none", "too many", "one key twice", "unknown member", "short key", "long key", "chunks", "cutoffs' chunks"],
)  # fmt: skip
def test_a_snapshot_has_sections_and_chunks_within_their_limits(sections: list[dict[str, Any]]) -> None:
    """Each section is an index that every look-up asks, each chunk a read; under a short key hashes can be made up."""
    most = [section(number) for number in range(MOST_SECTIONS)]
    assert isinstance(snapshot := opened_snapshot(sections=most).snapshot, e.RevocationsSnapshot)
    assert len(snapshot.sections) == MOST_SECTIONS
    with pytest.raises(UnknownKind):
        opened_snapshot(sections=sections)
