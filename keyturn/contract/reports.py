"""A verifier's signed word on what it has adopted: its presence."""

from typing import Annotated

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Meta

from keyturn.contract.encoding import encode_json
from keyturn.contract.envelope import StatementKey, StatementType, open_statement
from keyturn.contract.errors import UnknownKind

Place = tuple[Annotated[int, Meta(ge=0)], Annotated[int, Meta(ge=0)]]


class Report(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a verifier holds and obeys; `incarnation` (UUIDv7) and `count` only increase."""

    verifier: str
    incarnation: str
    count: Annotated[int, Meta(ge=0)]
    at: float
    keys: Place  # Epoch and sequence.
    revocations: Place
    state: str  # fresh, stale or expired
    goodbye: bool = False
    keys_hash: str = ""  # Of the events that stand there: places of two branches look alike.
    revocations_hash: str = ""

    @property
    def order(self) -> tuple[str, int]:
        """Return what orders the reports of one verifier; an older one is a replay."""
        return self.incarnation, self.count


def sign_report(key: StatementKey, report: Report) -> bytes:
    """Sign a report by the verifier's identity key."""
    return key.sign(StatementType.REPORT, encode_json(report))


def open_report(compact: bytes, verifier: str, signers: dict[str, Ed25519PublicKey]) -> Report:
    """Return a report that this verifier signed about itself; raises ForgedSignature or UnknownKind."""
    payload = open_statement(compact, StatementType.REPORT, signers)
    try:
        report = msgspec.json.decode(payload, type=Report)
    except msgspec.DecodeError as error:
        raise UnknownKind("a presence report that this version cannot read") from error
    if report.verifier != verifier:
        raise UnknownKind("a presence report that stands under another verifier's name")
    return report
