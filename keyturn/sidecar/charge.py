"""What a sidecar is told: whom it trusts, who it is, and what it asks of tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keyturn.contract.envelope import StatementKey
from keyturn.contract.errors import ConfigurationError
from keyturn.contract.issuers import ForeignIssuer
from keyturn.contract.trust import IdentityKind, Trust
from keyturn.process.belonging import Pinned
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
    issuers: Sequence[ForeignIssuer] = ()

    @property
    def pinned(self) -> Pinned:
        """Return what a trust document is held against."""
        return Pinned(issuer=self.issuer, root=self.root, allow_dev=self.allow_dev)


def is_known(trust: Trust, charge: Charge) -> bool:
    """Say whether a trust document knows this sidecar, by its name and key."""
    return charge.identity.kid in trust.identity(charge.verifier, IdentityKind.VERIFIER)


def require_known(trust: Trust, charge: Charge) -> None:
    """Raise ConfigurationError if a trust document does not know this sidecar."""
    if not is_known(trust, charge):
        raise ConfigurationError(
            f"the trust document knows no verifier {charge.verifier} with this key",
            setting="sidecar.identity_file", mend="name the verifier, and the key, that the root has signed",
        )  # fmt: skip
