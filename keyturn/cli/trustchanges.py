"""What the root may change in a trust document, as functions from one version to the next; nothing is written here."""

import msgspec

from keyturn.cli.answers import WrongUsage
from keyturn.contract.trust import TrustDocument

DAY_SECONDS = 86_400
WARN_DAYS = 30
"""So many days before a document expires, everybody begins to say so."""
MOST_DAYS = 1096
"""Three years: a document lives no longer, so that nobody is held on an old one for ever."""


def renewed(document: TrustDocument, *, days: int, now: float) -> TrustDocument:
    """Return the next version, good for that many days from now (Unix seconds); the same in all else."""
    return _next(document, now, expires_at=now + days * DAY_SECONDS)


def days_left(document: TrustDocument, now: float) -> float:
    """Return how many days a document has before it expires; negative once it has."""
    return (document.expires_at - now) / DAY_SECONDS


def require_in_force(document: TrustDocument, now: float) -> None:
    """Raise WrongUsage for a document that has expired: whatever else is changed in it, nobody would believe it."""
    if now >= document.expires_at:
        raise WrongUsage(f"version {document.version} has expired: keyturn trust renew comes first")


def _next(document: TrustDocument, now: float, **changes: object) -> TrustDocument:
    if now < document.issued_at:
        raise WrongUsage(
            f"version {document.version} was issued {(document.issued_at - now) / DAY_SECONDS:.1f} days after this "
            "machine's now: set its clock"
        )
    return msgspec.structs.replace(document, version=document.version + 1, issued_at=now, **changes)
