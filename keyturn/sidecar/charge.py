"""What a sidecar is told: whom it trusts, who it is, and what it asks of tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keyturn.contract.envelope import StatementKey
from keyturn.contract.errors import ConfigurationError, ForgedSignature, TrustError
from keyturn.contract.trust import IdentityKind, open_trust
from keyturn.sidecar.dialects import Dialect
from keyturn.verifier.freshness import Freshness
from keyturn.verifier.policy import Policy


@dataclass(frozen=True, kw_only=True)
class Charge:
    """Everything that a sidecar is, beside the store that it reads and the clock that it goes by."""

    issuer: str
    root: Mapping[str, Any]
    allow_dev: bool
    freshness: Freshness
    verifier: str
    identity: StatementKey
    policies: Mapping[str, Policy]
    dialects: Sequence[Dialect]


def require_ours(compact: bytes, charge: Charge) -> None:
    """Raise ConfigurationError if a trust document is not one that this sidecar can live by, and say why."""
    try:
        trust = open_trust(compact, root=charge.root, allow_dev=True)
    except ForgedSignature as error:
        raise ConfigurationError(
            "the store's trust document is not signed by this root", setting="trust.root",
            mend="name the root.jwk that was made with the rest, or the store that belongs to it",
        ) from error  # fmt: skip
    except TrustError as error:
        raise ConfigurationError(
            str(error), setting="trust.root", mend="upgrade, or use the store that fits"
        ) from error
    document = trust.document
    if document.dev and not charge.allow_dev:
        raise ConfigurationError(
            "the store's trust document was made by the development stack, and is not for production",
            setting="trust.allow_dev", mend="provision with `keyturn init`, or set it on a developer's machine",
        )  # fmt: skip
    if document.issuer != charge.issuer:
        raise ConfigurationError(
            f"the store belongs to issuer {document.issuer}, not {charge.issuer}",
            setting="issuer.url", mend="name that issuer, byte for byte, or the store of ours",
        )  # fmt: skip
    if charge.identity.kid not in trust.identity(charge.verifier, IdentityKind.VERIFIER):
        raise ConfigurationError(
            f"the trust document knows no verifier {charge.verifier} with this key",
            setting="sidecar.identity_file", mend="name the verifier, and the key, that the root has signed",
        )  # fmt: skip
