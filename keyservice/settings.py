"""`[keyservice]` and `[transit]`: where it listens, what it holds, and who keeps the key-encryption key."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

from keyservice.transit import TransitWrapper
from keyservice.wrapping import FileWrapper, KeyWrapper
from keyturn.contract.errors import ConfigurationError
from keyturn.process.settings import Section, is_loopback
from keyturn.process.values import Listen, Secret

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
