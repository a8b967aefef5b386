"""What `keyturn feed verify` makes of files: how far each lane holds, by what it begins, and where it first breaks."""

import argparse
from typing import Any

from keyturn.cli.answers import ExitStatus
from keyturn.cli.dumps import Dump, Finding
from keyturn.cli.pinning import older_documents, open_document, read_document, root_file
from keyturn.cli.session import Session
from keyturn.cli.tables import facts_table, moment, plain
from keyturn.contract.positions import Lane
from keyturn.contract.trust import Trust
from keyturn.feed.audit import Audit, Stretch

TRUST_FILE = "trust.jws"  # Beside the root, as `keyturn init` lays them down.


async def verify(args: argparse.Namespace, session: Session) -> ExitStatus:
    """Check files: YES where all of it holds, NO at a break, UNTOLD where nothing can be said."""
    root = root_file(args, session)
    files, older = args.trust or [root.with_name(TRUST_FILE)], [] if args.trust else older_documents(root)
    audit = Audit([*older, *(open_document(read_document(file), root) for file in files)])
    dump = Dump(audit)
    dump.read(args.files)
    dump.finish()
    facts = {"holds": dump.holds, "trust": _trust_facts(audit.newest), "lanes": _lane_facts(dump)}
    session.printer.answer(facts | {"break": _break_facts(dump.first)}, *_report(dump))
    if dump.first is not None:
        return ExitStatus.NO if dump.first.readable else ExitStatus.UNTOLD
    return ExitStatus.YES if dump.holds else ExitStatus.UNTOLD


def _report(dump: Dump) -> list[str]:
    audit, lines = dump.audit, list[str]()
    for lane, found in audit.lanes.items():
        for one in found.stretches:
            begins = {"event": "on the word of its first event", "snapshot": "from a snapshot"}.get(
                one.begins_with, "from the genesis"
            )
            lines.append(
                f"{lane.value.ljust(11)}  {one.epoch}:{one.first} to {one.epoch}:{one.last} holds {begins}: "
                f"{one.events} events, the last of {moment(one.newest_at)}"
            )
            if audit.dropped(lane, one.epoch):
                lines.append(f"{'':11}  the root has dropped epoch {one.epoch}: nothing in it counts any more")
            if retired := audit.retired(lane, list(one.signers)):
                lines.append(f"{'':11}  signed by keys that have this role no more: {plain(retired)}")
        if not found.stretches:
            lines.append(f"{lane.value.ljust(11)}  nothing that holds")
    lines += [f"BREAK        {finding}" for finding in dump.findings]
    return [*lines, "", *facts_table(_trust_facts(audit.newest))]


def _lane_facts(dump: Dump) -> dict[str, Any]:
    audit = dump.audit
    return {
        lane.value: [_stretch_facts(audit, lane, one) for one in found.stretches] for lane, found in audit.lanes.items()
    }


def _stretch_facts(audit: Audit, lane: Lane, one: Stretch) -> dict[str, Any]:
    return {
        "epoch": one.epoch, "first": one.first, "last": one.last, "begins_with": one.begins_with,
        "events": one.events, "newest_at": one.newest_at, "signers": dict(one.signers),
        "retired_signers": audit.retired(lane, list(one.signers)), "dropped": audit.dropped(lane, one.epoch),
    }  # fmt: skip


def _break_facts(first: Finding | None) -> dict[str, Any] | None:
    return None if first is None else first.facts()


def _trust_facts(trust: Trust) -> dict[str, Any]:
    document = trust.document
    return {
        "trust version": document.version, "issuer": document.issuer, "expires": moment(document.expires_at),
        "dev": document.dev,
    }  # fmt: skip
