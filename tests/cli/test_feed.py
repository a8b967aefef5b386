"""`keyturn feed`: every line is held against the pinned root, and what does not hold is called out."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from keyturn.contract import events as e
from keyturn.contract.encoding import encode_json
from keyturn.contract.envelope import StatementType
from keyturn.contract.positions import Lane
from keyturn.contract.selectors import SelectorKind
from keyturn.feed.lines import render_line
from tests.cli.conftest import FakeOrigin, Run
from tests.world import World, new_statement_key

KEYS, REVOCATIONS = Lane


@dataclass
class Recorded:
    """A world, what was published in it, and the files that an operator has of it."""

    world: World
    events: dict[Lane, list[e.SignedEvent]]
    root: Path
    trust: Path

    def lines(self, lane: Lane) -> list[bytes]:
        """Return the lines of a lane as the issuer sends them."""
        return [
            render_line(lane, epoch=one.event.epoch, sequence=one.event.sequence, event=one.compact)
            for one in self.events[lane]
        ]

    def dump(self, *lines: bytes, name: str = "dump.ndjson") -> str:
        """Write lines to a file; return its path."""
        path = self.root.with_name(name)
        path.write_bytes(b"".join(lines))
        return str(path)

    @property
    def options(self) -> list[str]:
        """Return the options that name root and trust document."""
        return ["--root", str(self.root), "--trust", str(self.trust)]


@pytest.fixture
async def recorded(tmp_path: Path) -> Recorded:
    """Publish a key, let it sign, and revoke six tokens."""
    world = await World().begin()
    member = await world.caught_up()
    keys, revocations = (world.publisher(lane, member) for lane in Lane)
    published, activated = world.first_key()
    events = {
        KEYS: [await keys.append([published]), await keys.append([activated])],
        REVOCATIONS: [
            await revocations.append([world.entry(SelectorKind.SUBJECT, f"user-{number}", before=world.clock.now())])
            for number in range(6)
        ],
    }
    root, trust = tmp_path / "root.jwk", tmp_path / "trust.jws"
    root.write_text(json.dumps(world.root.public))
    trust.write_bytes(world.trust_bytes())
    return Recorded(world, events, root, trust)


async def test_a_dump_that_holds_is_0_and_says_how_far(run: Run, recorded: Recorded) -> None:
    """For both lanes in one file, and without any server."""
    file = recorded.dump(*recorded.lines(KEYS), *recorded.lines(REVOCATIONS))
    ran = await run("feed", "verify", file, *recorded.options)
    assert ran.status == 0, ran.err
    assert "keys         1:1 to 1:2 holds on the word of its first event: 2 events" in ran.out
    assert "revocations  1:1 to 1:6 holds" in ran.out
    told = (await run("feed", "verify", file, *recorded.options, "--json")).json
    assert (told["holds"], told["break"]) == (True, None)
    (stretch,) = told["lanes"]["revocations"]
    assert (stretch["first"], stretch["last"], stretch["events"], stretch["begins_with"]) == (1, 6, 6, "event")
    assert stretch["signers"] == {recorded.world.roles[REVOCATIONS].kid: 6}


async def test_segments_are_read_in_the_order_of_their_events_from_the_genesis_on(run: Run, recorded: Recorded) -> None:
    """A shell sorts `…-10-…` before `…-2-…`; what overlaps is compared."""
    lines = recorded.lines(REVOCATIONS)
    genesis = recorded.dump(recorded.world.genesis(REVOCATIONS).compact + b"\n", name="genesis.jws")
    files = [
        recorded.dump(*lines[3:], name="revocations-1-10.ndjson"),
        recorded.dump(*lines[:4], name="revocations-1-2.ndjson"),
    ]
    told = (await run("feed", "verify", *files, genesis, *recorded.options, "--json")).json
    (stretch,) = told["lanes"]["revocations"]
    assert (told["holds"], stretch["begins_with"], stretch["last"]) == (True, "genesis", 6)
    both = recorded.dump(*recorded.lines(KEYS), *lines, name="both.ndjson")
    told = (await run("feed", "verify", both, genesis, *recorded.options, "--json")).json
    assert told["lanes"]["revocations"][0]["begins_with"] == "genesis", "a file of both lanes belongs to both orders"


def swapped(recorded: Recorded) -> list[bytes]:
    """Let somebody else sign the third revocation."""
    lines = recorded.lines(REVOCATIONS)
    forged = e.sign_event(new_statement_key(), recorded.events[REVOCATIONS][2].event)
    lines[2] = render_line(REVOCATIONS, epoch=1, sequence=3, event=forged.compact)
    return lines


@pytest.mark.parametrize("how", ["forged", "gap", "cut", "noise"])
async def test_the_first_break_is_1_and_named_by_file_line_place_and_reason(
    run: Run, recorded: Recorded, how: str
) -> None:
    """An auditor must find it at once, and know how far he can rely on the rest."""
    lines = recorded.lines(REVOCATIONS)
    spoilt, code, number, place = {
        "forged": (swapped(recorded), "forged_signature", 3, 3),
        "gap": ([*lines[:2], *lines[3:]], "broken_chain", 3, 4),
        "cut": ([*lines[:2], lines[2][:-40]], "malformed", 3, None),
        "noise": ([*lines[:2], b"\xff\x00\x1b[31m\n", *lines[2:]], "malformed", 3, None),
    }[how]
    file = recorded.dump(*recorded.lines(KEYS), *spoilt)
    ran = await run("feed", "verify", file, *recorded.options, "--json")
    found = ran.json["break"]
    assert (ran.status, ran.json["holds"], found["code"], found["line"]) == (1, False, code, number + 2)
    assert found["file"] == file
    assert (found["place"] or {}).get("sequence") == place
    assert ran.json["lanes"]["revocations"][0]["last"] == 2
    assert ran.json["lanes"]["keys"][0]["last"] == 2, "the other lane is judged by itself"
    shown = await run("feed", "verify", file, *recorded.options)
    assert f"BREAK        {file}, line {number + 2}" in shown.out
    assert "\x1b" not in shown.out


async def test_what_a_head_promises_must_be_there(run: Run, recorded: Recorded) -> None:
    """A dump whose end was cut off."""
    last = recorded.events[REVOCATIONS][-1]
    unsigned = e.RevocationsHead(epoch=1, sequence=6, hash=last.hash, at=last.event.at, trust=1)
    head = e.sign_head(recorded.world.roles[REVOCATIONS], unsigned).compact
    file, line = recorded.dump(*recorded.lines(REVOCATIONS)[:4]), recorded.dump(head, name="head.jws")
    ran = await run("feed", "verify", file, line, *recorded.options)
    assert ran.status == 1
    assert "a head vouches for 1:6, and the events end at 1:4" in ran.out
    whole = recorded.dump(*recorded.lines(REVOCATIONS), name="whole.ndjson")
    assert (await run("feed", "verify", whole, line, *recorded.options)).status == 0


async def test_what_cannot_be_judged_is_3_and_never_a_yes(run: Run, recorded: Recorded) -> None:
    """No events, another root, and a signed event of a version to come."""
    file = recorded.dump(*recorded.lines(REVOCATIONS))
    assert (await run("feed", "verify", recorded.dump(name="empty"), *recorded.options)).status == 3
    stranger = recorded.root.with_name("stranger.jwk")
    stranger.write_text(json.dumps(new_statement_key().public))
    ran = await run("feed", "verify", file, "--root", str(stranger), "--trust", str(recorded.trust))
    assert (ran.status, ran.out) == (3, "")
    assert "no trust document to judge by" in ran.err
    payload = json.loads(encode_json(recorded.events[REVOCATIONS][0].event)) | {"format": 99}
    newer = recorded.world.roles[REVOCATIONS].sign(StatementType.EVENT, encode_json(payload))
    line = render_line(REVOCATIONS, epoch=1, sequence=1, event=newer)
    ran = await run("feed", "verify", recorded.dump(line, name="newer"), *recorded.options)
    assert ran.status == 3
    assert "feed format 99; this version reads" in ran.out


async def test_wrong_usage_of_verify_is_2(run: Run, recorded: Recorded) -> None:
    """No root, no file, no trust document: each with what to name."""
    file, pipe = recorded.dump(*recorded.lines(KEYS)), recorded.root.with_name("pipe")
    os.mkfifo(pipe)
    for argv, said in (
        (["feed", "verify", file], "--root"),
        (["feed", "verify", "missing.ndjson", *recorded.options], "missing.ndjson cannot be read"),
        (["feed", "verify", str(pipe), *recorded.options], "no plain file"),
        (["feed", "verify", str(recorded.root.parent), *recorded.options], "no plain file"),
        (["feed", "verify", file, "--root", str(recorded.root), "--trust", "missing.jws"], "--trust"),
        (["feed", "verify", *recorded.options], "FILE"),
        (["feed", "tail", "--after", "7"], "name it"),
        (["feed", "tail", "--epoch", "1"], "name it"),
        (["feed", "tail", "keys", "--epoch", "1", "--follow"], "leave --epoch out"),
        (["feed", "tail", "cheese"], "keys or revocations"),
        (["feed", "tail", "keys", "--after", "-1"], "--after"),
    ):
        ran = await run(*argv)
        assert (ran.status, ran.out) == (2, ""), argv
        assert said in ran.err


def serve(fake: FakeOrigin, recorded: Recorded, lane: Lane, lines: list[bytes], *, epoch: int = 1) -> None:
    """Let the fake origin serve a lane and the trust document."""
    fake.answer("GET /feed/trust", 200, {"trust": recorded.trust.read_text()})
    fake.answer(f"GET /feed/{lane}", 200, b"".join(lines), Keyturn_Epoch=str(epoch))


async def test_tail_says_what_happened_and_that_it_holds(keyturn: Run, fake: FakeOrigin, recorded: Recorded) -> None:
    """The operator's own words, in order, with when and by which key; the trust document comes from the issuer."""
    for lane in Lane:
        serve(fake, recorded, lane, recorded.lines(lane))
    ran = await keyturn("feed", "tail", "--root", str(recorded.root))
    assert ran.status == 0, ran.err
    shown, kid = ran.out.splitlines(), recorded.world.signing_kid[:12]
    assert [line.split("  ")[0] for line in shown] == [f"keys 1:{n}" for n in (1, 2)] + [
        f"revocations 1:{n}" for n in range(1, 7)
    ]
    assert f"published ES256 {kid}" in shown[0]
    assert f"activated {kid}, signs until 2027-" in shown[1]
    assert "2027-01-15 08:00:00Z  revoked sub user-0 from before 2027-01-15" in shown[2]
    assert f"(signed by {recorded.world.roles[KEYS].kid[:12]})" in shown[0]
    assert fake.of("/feed/keys").authorization.startswith("Bearer ")


async def test_what_tail_prints_as_json_can_be_verified_later(
    keyturn: Run, fake: FakeOrigin, recorded: Recorded
) -> None:
    """One pipe makes an archive."""
    serve(fake, recorded, REVOCATIONS, recorded.lines(REVOCATIONS))
    ran = await keyturn("feed", "tail", "revocations", "--json", "--root", str(recorded.root))
    told = [json.loads(line) for line in ran.out.splitlines()]
    assert [one["sequence"] for one in told] == [1, 2, 3, 4, 5, 6]
    assert told[0]["holds"] is True
    file = recorded.dump(ran.out.encode(), name="tailed.ndjson")
    assert (await keyturn("feed", "verify", file, *recorded.options)).status == 0


async def test_tail_calls_out_what_does_not_hold_goes_on_and_ends_with_1(
    keyturn: Run, fake: FakeOrigin, recorded: Recorded
) -> None:
    """Somebody writes into the store who should not: the operator must see which event, and what is true after it."""
    noise = render_line(REVOCATIONS, epoch=1, sequence=7, event=b"\xff\x1b[2J")
    serve(fake, recorded, REVOCATIONS, [*swapped(recorded), noise, recorded.lines(KEYS)[0], b"garbage\n"])
    ran = await keyturn("feed", "tail", "revocations", *recorded.options)
    shown = ran.out.splitlines()
    assert ran.status == 1
    assert shown[2].startswith("revocations 1:3  DOES NOT HOLD: forged_signature")
    assert "revoked sub user-3" in shown[3], "what follows is shown, since it is signed"
    assert shown[6].startswith("revocations 1:7  DOES NOT HOLD: forged_signature")
    assert "among those of revocations" in shown[7]
    assert shown[8].startswith("revocations  DOES NOT HOLD: malformed")
    assert "\x1b" not in ran.out


async def test_tail_says_where_a_trimmed_stream_begins(keyturn: Run, fake: FakeOrigin, recorded: Recorded) -> None:
    """Nobody may take the beginning of the stream for the beginning of the lane."""
    serve(fake, recorded, REVOCATIONS, recorded.lines(REVOCATIONS)[3:])
    ran = await keyturn("feed", "tail", "revocations", "--after", "1", *recorded.options)
    assert ran.status == 0
    assert "what came after 1 and before 4 is not in the stream any more" in ran.err
    assert fake.of("/feed/revocations").target == "/feed/revocations?after=1"


async def test_a_closed_epoch_can_be_read_as_long_as_the_store_has_it(
    keyturn: Run, fake: FakeOrigin, recorded: Recorded
) -> None:
    """After a recovery its last events are in no archive yet."""
    serve(fake, recorded, REVOCATIONS, recorded.lines(REVOCATIONS), epoch=2)
    ran = await keyturn("feed", "tail", "revocations", "--epoch", "1", *recorded.options)
    assert (ran.status, len(ran.out.splitlines())) == (0, 6)
    assert fake.of("/feed/revocations").target == "/feed/revocations?after=0&epoch=1"


async def test_tail_fetches_the_trust_document_that_a_signer_knew(
    keyturn: Run, fake: FakeOrigin, recorded: Recorded
) -> None:
    """While one follows, a role may be rotated: its new key must not look like a forger's."""
    world, old = recorded.world, recorded.trust.read_text()
    world.roles[REVOCATIONS] = new_statement_key()
    last = recorded.events[REVOCATIONS][-1]
    event = e.RevocationsEvent(
        epoch=1, sequence=7, at=last.event.at, trust=2, previous=last.hash, id="x",
        entries=(world.entry(SelectorKind.JTI, "y"),),
    )  # fmt: skip
    signed = e.sign_event(world.roles[REVOCATIONS], event)
    line = render_line(REVOCATIONS, epoch=1, sequence=7, event=signed.compact)
    serve(fake, recorded, REVOCATIONS, [*recorded.lines(REVOCATIONS), line])
    asked: list[Any] = []

    def trust() -> tuple[int, Any]:
        asked.append(1)
        return 200, {"trust": old if len(asked) == 1 else world.trust_bytes(version=2).decode()}

    fake.act("GET /feed/trust", trust)
    ran = await keyturn("feed", "tail", "revocations", "--root", str(recorded.root))
    assert (ran.status, len(asked)) == (0, 2), ran.out


async def test_following_goes_on_through_an_outage_and_into_a_new_epoch(
    keyturn: Run, fake: FakeOrigin, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever watches must not sit before a silent screen after a recovery."""
    monkeypatch.setattr("keyturn.cli.tailing.POLL_SECONDS", 0.0)
    serve(fake, recorded, REVOCATIONS, [])
    world, lines = recorded.world, recorded.lines(REVOCATIONS)
    event = e.RevocationsEvent(
        epoch=2, sequence=1, at=world.clock.now(), trust=1, previous=world.genesis(REVOCATIONS, epoch=2).hash, id="x",
        entries=(world.entry(SelectorKind.JTI, "after-the-failover"),),
    )  # fmt: skip
    signed = e.sign_event(world.roles[REVOCATIONS], event)
    new = render_line(REVOCATIONS, epoch=2, sequence=1, event=signed.compact)
    answers = iter(
        [
            (200, b"".join(lines[:3]), "1"), (503, None, ""), (200, lines[3], "1"), (200, b"", "2"), (200, new, "2"),
            (403, {"title": "enough"}, ""),
        ]
    )  # fmt: skip
    fake.act("GET /feed/revocations", lambda: next(answers))
    ran = await keyturn("feed", "tail", "revocations", "--follow", *recorded.options)
    assert ran.status == 3, "the fake does not allow it any more"
    assert "cannot answer now" in ran.err
    assert [line.split("  ")[0] for line in ran.out.splitlines()] == [f"revocations 1:{n}" for n in range(1, 5)] + [
        "revocations 2:1"
    ]
    asked = [one.target.partition("?")[2] for one in fake.asked if one.target.startswith("/feed/revocations")]
    assert asked == ["after=0", "after=3&epoch=1", "after=3&epoch=1", "after=4&epoch=1", "after=0&epoch=2",
                     "after=1&epoch=2"]  # fmt: skip


async def test_a_rotated_role_is_no_alarm_where_the_older_document_lies_beside_the_root(
    keyturn: Run, fake: FakeOrigin, recorded: Recorded
) -> None:
    """`keyturn trust` keeps it there. What the key of before has signed is marked; without the document it is false."""
    recorded.world.roles[REVOCATIONS] = new_statement_key()
    older = recorded.trust.read_bytes()
    recorded.trust.write_bytes(recorded.world.trust_bytes(version=2))
    serve(fake, recorded, REVOCATIONS, recorded.lines(REVOCATIONS))
    file, root = recorded.dump(*recorded.lines(REVOCATIONS)), ["--root", str(recorded.root)]
    assert (await keyturn("feed", "tail", "revocations", *root)).status == 1
    assert (await keyturn("feed", "verify", file, *root)).status == 1
    recorded.trust.with_name("trust-1.jws").write_bytes(older)
    recorded.trust.with_name("trust-0.jws").write_bytes(World().trust_bytes())
    ran = await keyturn("feed", "tail", "revocations", *root)
    assert (ran.status, ran.out.count("which has this role no more")) == (0, 6)
    ran = await keyturn("feed", "verify", file, *root)
    assert ran.status == 0
    assert "signed by keys that have this role no more" in ran.out


async def test_an_issuer_that_cannot_say_is_3(keyturn: Run, fake: FakeOrigin, recorded: Recorded) -> None:
    """No answer is no clean bill."""
    fake.answer("GET /feed/trust", 200, {"trust": recorded.trust.read_text()})
    fake.answer("GET /feed/keys", 503, Retry_After="1")
    ran = await keyturn("feed", "tail", "keys", "--root", str(recorded.root))
    assert (ran.status, ran.out) == (3, "")
    fake.answer("GET /feed/trust", 200, {})
    assert (await keyturn("feed", "tail", "keys", "--root", str(recorded.root))).status == 3
