"""`[sidecar]` and `[policy.NAME]`: where it listens, who it is, whom it answers, and what it asks of tokens."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from keyturn.contract.envelope import StatementKey
from keyturn.contract.errors import ConfigurationError
from keyturn.contract.issuers import ForeignIssuer
from keyturn.process.issuers import OWN
from keyturn.process.pinned import statement_key
from keyturn.process.settings import Section, Settings, is_loopback
from keyturn.process.values import Duration, Listen, Range, Secret
from keyturn.sidecar.dialects import NGINX, Dialect
from keyturn.verifier.policy import Policy

DEFAULT_POLICY = "default"
DEFAULT_PORT = 8410
MOST_POLICIES = 64  # As many verdicts of one token as are kept.
_POLICY_NAME = re.compile(r"[a-z0-9_-]{1,64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SidecarSettings(Section):
    """The section of the sidecar."""

    SECTION: ClassVar[str] = "sidecar"
    verifier: str
    """Its name in the trust document, and of its user in the store."""
    identity: Secret
    """The private JWK that it signs its reports with."""
    listen: Listen = field(default_factory=lambda: Listen(host="127.0.0.1", port=DEFAULT_PORT))
    dialects: tuple[Dialect, ...] = (NGINX,)

    def __post_init__(self) -> None:
        """Refuse an address that other machines reach: whoever asks here need not prove who he is."""
        if self.listen.path is None and not is_loopback(self.listen.host):
            raise ConfigurationError(
                f"{self.listen} can be reached from other machines, which needs client authentication",
                setting="sidecar.listen", mend="listen on 127.0.0.1, [::1] or unix:/PATH",
            )  # fmt: skip
        if not self.dialects:
            raise ConfigurationError(
                "no gateway could ask anything", setting="sidecar.dialects", mend='list them, such as ["nginx"]'
            )

    def identity_key(self) -> StatementKey:
        """Return the key that reports are signed with; raises ConfigurationError."""
        return statement_key(self.identity, setting="sidecar.identity_file")


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicySettings(Section):
    """One `[policy.NAME]`."""

    SECTION: ClassVar[str] = "policy"
    audience: str
    scopes: tuple[str, ...] = ()
    """All of them must be granted."""
    issuers: tuple[str, ...] = (OWN,)
    """Whose tokens it takes: `own`, and names of `[issuers.NAME]`."""
    max_staleness: Annotated[Duration, Range(1.5, 86_400)] | None = None
    """Above this age of the replica nothing is said under this policy; heads come once a second."""


def read_policies(settings: Settings, own: str, others: Mapping[str, ForeignIssuer]) -> Mapping[str, Policy]:
    """Return all policies by name; `own` is our issuer's URL, `others` are the issuers that they may name.

    Raises ConfigurationError where there is none, or one is not usable.
    """
    sections = settings.named_sections(PolicySettings)
    if not sections:
        raise ConfigurationError(
            "there is no policy to judge tokens by",
            setting="policy.default.audience", mend="write [policy.default] and the audience of your API's tokens",
        )  # fmt: skip
    if len(sections) > MOST_POLICIES:
        raise ConfigurationError(
            f"{len(sections)} policies are too many for one sidecar",
            setting="policy", mend=f"keep {MOST_POLICIES} of them",
        )  # fmt: skip
    policies = {}
    for name, section in sections.items():
        if not _POLICY_NAME.fullmatch(name):
            raise ConfigurationError(
                f"{name!r} cannot stand in a path", setting=f"policy.{name}", mend="name it with a-z, 0-9, _ and -"
            )
        policies[name] = Policy(
            audience=section.audience,
            scopes=section.scopes,
            name=name,
            max_staleness_seconds=section.max_staleness,
            issuers=_issuers(section.issuers, own, others, setting=f"policy.{name}.issuers"),
        )
    return policies


def _issuers(names: tuple[str, ...], own: str, others: Mapping[str, ForeignIssuer], *, setting: str) -> frozenset[str]:
    urls = {OWN: own} | {name: issuer.url for name, issuer in others.items()}
    unknown = sorted(set(names) - urls.keys())
    if unknown or not names:
        raise ConfigurationError(
            f"there is no issuer {unknown[0]!r}" if unknown else "no token could pass",
            setting=setting, mend=f"choose from {', '.join(urls)}; others are described in [issuers.NAME]",
        )  # fmt: skip
    return frozenset(urls[name] for name in names)
