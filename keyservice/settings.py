"""`[keyservice]` and `[rotation]`: where it listens, what it holds, and the times of a key's life."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

from keyservice.transit import TransitWrapper
from keyservice.wrapping import FileWrapper, KeyWrapper
from keyturn.contract.errors import ConfigurationError
from keyturn.contract.jwk import ALGORITHMS
from keyturn.contract.rotation import AtDeadline, Barrier, RotationPolicy, violations
from keyturn.process.settings import Section, is_loopback
from keyturn.process.values import Duration, Listen, Range, Secret
from keyturn.verifier.freshness import Freshness

MOST_STANDBYS = 8
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyserviceSettings(Section):
    """`[keyservice]`."""

    SECTION: ClassVar[str] = "keyservice"
    role_key: Secret
    """Private JWK of the keys role."""
    trust_document: Path
    """The root's newest signed trust document, which this service puts into the store."""
    genesis_file: Path
    kek_file: Path | None = None
    """The key-encryption key, `{"id", "key"}`, or several, `{"keys": [newest, …]}`; None where `[transit]` holds it."""
    listen: Listen = field(default_factory=lambda: Listen(host="127.0.0.1", port=8402))
    signing_listen: Listen | None = None
    """A unix socket for the other services; None where nobody signs here, as in the worker."""
    bootstrap: bool = False
    """Whether to begin the lane where the store has none. Never set it where one should be."""

    def __post_init__(self) -> None:
        """Refuse a signing listener on the network."""
        if self.signing_listen is not None and self.signing_listen.path is None:
            raise ConfigurationError(
                "services are not authenticated to each other over TCP yet",
                setting="keyservice.signing_listen", mend="write unix:/PATH of a socket that they share",
            )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class TransitSettings(Section):
    """`[transit]`: a KEK that never leaves Vault or OpenBao, in place of `keyservice.kek_file`."""

    SECTION: ClassVar[str] = "transit"
    url: str | None = None
    """Where Vault or OpenBao answers: https, or http on loopback."""
    key: str = "keyturn"
    """The name of a Transit key of an AEAD type, such as aes256-gcm96."""
    mount: str = "transit"
    token: Secret | None = None
    """A token that may encrypt and decrypt with that key, and read it."""

    def __post_init__(self) -> None:
        """Refuse a Transit without a token, in the clear, or with a name that is a path."""
        if self.url is None:
            return
        parts = urlsplit(self.url)
        if not parts.hostname or parts.scheme not in ("https", "http") or (
            parts.scheme == "http" and not is_loopback(parts.hostname)
        ):  # fmt: skip
            raise ConfigurationError(
                "the token and every key would travel in the clear",
                setting="transit.url", mend="write an https URL (http on loopback only)",
            )  # fmt: skip
        if self.token is None:
            raise ConfigurationError(
                "Transit asks for a token", setting="transit.token_file", mend="name a file, mode 600, that holds one"
            )
        for name in ("key", "mount"):
            if _NAME.fullmatch(getattr(self, name)) is None:
                raise ConfigurationError(
                    "this is not a name of Transit's", setting=f"transit.{name}", mend="use letters, digits, . _ -"
                )

    def wrapper(self, kek_file: Path | None) -> KeyWrapper:
        """Return the one place that holds the KEK; raises ConfigurationError for none or two."""
        if (self.url is None) == (kek_file is None):
            raise ConfigurationError(
                "the key-encryption key lives in exactly one place",
                setting="keyservice.kek_file", mend="set it, or [transit] url, and not both",
            )  # fmt: skip
        if kek_file is not None:
            return FileWrapper(kek_file)
        return TransitWrapper(url=self.url or "", mount=self.mount, key=self.key, token=self.token or Secret(b""))


@dataclass(frozen=True, kw_only=True, slots=True)
class RotationSettings(Section):
    """`[rotation]`: the letters are those of the architecture."""

    SECTION: ClassVar[str] = "rotation"
    algorithms: tuple[str, ...] = ("ES256",)
    active: Duration = 30 * 86_400.0  # L
    token: Duration = 300.0  # T
    lease: Duration = 5.0  # G
    distribution: Duration | None = None  # D; E + S unless set
    cache: Duration = 300.0  # C
    barrier: Barrier = Barrier.BOTH
    deadline: Duration = 3_600.0
    at_deadline: AtDeadline = AtDeadline.PROCEED
    standbys: Annotated[int, Range(1, MOST_STANDBYS)] = 2

    def __post_init__(self) -> None:
        """Refuse algorithms that we do not sign with, and times that break a rule."""
        for alg in self.algorithms:
            if alg not in ALGORITHMS:
                raise ConfigurationError(
                    f"no keys can be made for {alg!r}",
                    setting="rotation.algorithms", mend=f"choose from {', '.join(ALGORITHMS)}",
                )  # fmt: skip

    def policy(self, freshness: Freshness) -> RotationPolicy:
        """Return the rules' view of these settings, with the verifiers' E and S.

        Raises ConfigurationError naming the rule that they break, with the numbers.
        """
        skew, expired = freshness.skew_seconds, freshness.expired_after_seconds
        distribution = expired + skew if self.distribution is None else self.distribution
        policy = RotationPolicy(
            algorithms=self.algorithms, active_seconds=self.active, token_seconds=self.token,
            skew_seconds=skew, lease_seconds=self.lease, expired_seconds=expired,
            distribution_seconds=distribution, cache_seconds=self.cache, barrier=self.barrier,
            deadline_seconds=self.deadline, at_deadline=self.at_deadline, standbys=self.standbys,
        )  # fmt: skip
        if broken := violations(policy):
            raise ConfigurationError(broken[0], setting="rotation", mend="mend the numbers, then start again")
        return policy
