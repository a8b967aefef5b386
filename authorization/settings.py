"""`[authorization]`: where it listens, who it is to the signer, and how long access tokens live."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

from keyturn.contract.envelope import StatementKey
from keyturn.contract.errors import ConfigurationError
from keyturn.process.pinned import statement_key
from keyturn.process.settings import Section, is_loopback
from keyturn.process.values import Duration, Listen, Range, Secret
from serving.settings import signer_path


@dataclass(frozen=True, kw_only=True, slots=True)
class AuthorizationSettings(Section):
    """`[authorization]`."""

    SECTION: ClassVar[str] = "authorization"
    identity: Secret
    """Private JWK of this service's identity, by which the signer knows it."""
    signer: Listen
    """The key service's signing listener."""
    listen: Listen = field(default_factory=lambda: Listen(host="127.0.0.1", port=8401))
    access_token: Annotated[Duration, Range(1, 86_400)] = 300.0
    """How long an access token is good for; the signer caps that of a JWT by its own limit."""
    refresh_token: Annotated[Duration, Range(1, 366 * 86_400)] = 7 * 86_400.0
    """How long a refresh token that is not used is good for; the next one has as long again, up to `grants.life`."""
    refresh_grace: Annotated[Duration, Range(0, 60)] = 10.0
    """For how long after a refresh token was used the same request is told the same successor again."""

    signin_url: str | None = None
    """Where users sign in: a page of the operator's own. Without it there is no `/authorize`."""

    def __post_init__(self) -> None:
        """Refuse a signer on the network, and a page in the clear."""
        signer_path(self.signer, service=self.SECTION)
        if self.signin_url is not None and not _is_page(self.signin_url):
            raise ConfigurationError(
                "users cannot be sent there to sign in", setting="authorization.signin_url",
                mend="write an https URL without fragment and user (http on loopback only)",
            )  # fmt: skip

    def identity_key(self) -> StatementKey:
        """Return the identity's key; raises ConfigurationError if the file holds something else."""
        return statement_key(self.identity, setting="authorization.identity_file")


def _is_page(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    plain = url.isascii() and url.isprintable() and not set(url) & set('#@ "<>\\')
    secure = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))
    return bool(host) and plain and secure and "login_challenge" not in parts.query
