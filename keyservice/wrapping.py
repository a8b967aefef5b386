"""Key-encryption keys: where they live, and how a private key is wrapped by one."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keyturn import entropy
from keyturn.contract.encoding import unb64url
from keyturn.contract.errors import ConfigurationError, MalformedInput, TrustError
from keyturn.process.values import Secret, Unfit

NONCE_BYTES, TAG_BYTES = 12, 16
KEY_BYTES = 32
LONGEST_ID = 64
MOST_KEKS = 16
_MEND = 'name the kek.json that `keyturn init` made: {"id", "key": 32 bytes}, or {"keys": [newest, …]}'


class SealedKeyUnreadable(TrustError):
    """A sealed key does not open: made under another KEK, moved under another kid, or edited."""

    code = "sealed_key_unreadable"


class KeyWrapper(Protocol):
    """Wraps and unwraps short secrets under a KEK; `bound` is associated data that must be the same again."""

    async def current(self) -> str:
        """Return the id of the KEK that wraps new keys. Raises WrapperUnavailable."""
        ...

    async def wrap(self, raw: bytes, *, bound: bytes) -> bytes:
        """Return the wrapped form, which names its KEK. Raises WrapperUnavailable."""
        ...

    async def unwrap(self, wrapped: bytes, *, bound: bytes) -> bytes:
        """Return the secret. Raises SealedKeyUnreadable for what does not open, WrapperUnavailable if unknown."""
        ...

    def kek_of(self, wrapped: bytes) -> str:
        """Return the id of the KEK that wrapped this."""
        ...

    def is_foreign(self, wrapped: bytes) -> bool:
        """Say whether this has the form of what was wrapped under a KEK that is not held here."""
        ...


@dataclass(frozen=True, slots=True)
class _Kek:
    id: str
    box: AESGCM


class FileWrapper:
    """KEKs in a file, the newest first (AES-256-GCM). The file is read again when it has changed.

    The wrapped form is the KEK's id, NUL, nonce, ciphertext.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._keks: tuple[_Kek, ...] = ()
        self._load()

    def __repr__(self) -> str:
        """Name the KEKs by their ids."""
        return f"FileWrapper({', '.join(kek.id for kek in self._keks)})"

    async def current(self) -> str:
        """Return the id of the newest KEK."""
        self._load()
        return self._keks[0].id

    async def wrap(self, raw: bytes, *, bound: bytes) -> bytes:
        """Wrap by the newest KEK."""
        self._load()
        kek, nonce = self._keks[0], entropy.token_bytes(NONCE_BYTES)
        return kek.id.encode("utf-8") + b"\0" + nonce + kek.box.encrypt(nonce, raw, bound)

    async def unwrap(self, wrapped: bytes, *, bound: bytes) -> bytes:
        """Unwrap by the KEK that the wrapped form names."""
        self._load()
        named, _, rest = wrapped.partition(b"\0")
        kek = next((one for one in self._keks if one.id.encode("utf-8") == named), None)
        if kek is None:
            raise SealedKeyUnreadable(f"sealed by a KEK that {self._path.name} does not hold")
        try:
            return kek.box.decrypt(rest[:NONCE_BYTES], rest[NONCE_BYTES:], bound)
        except (InvalidTag, ValueError) as error:
            raise SealedKeyUnreadable("the seal does not open: made for another key, or edited") from error

    def kek_of(self, wrapped: bytes) -> str:
        """Return the id of the KEK that wrapped this."""
        return wrapped.partition(b"\0")[0].decode("utf-8", "replace")

    def is_foreign(self, wrapped: bytes) -> bool:
        """Say whether this has the form of what was wrapped under a KEK that the file does not hold."""
        self._load()
        named, nul, rest = wrapped.partition(b"\0")
        whole = bool(named) and bool(nul) and len(rest) > NONCE_BYTES + TAG_BYTES
        return whole and all(kek.id.encode("utf-8") != named for kek in self._keks)

    def _load(self) -> None:
        """Read the file if it is new; one that cannot be read any more leaves what was read before."""
        try:
            found = self._path.stat()
            stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
            if stamp == self._stamp:
                return
            self._keks = _parse(Secret.read(self._path).reveal())
            self._stamp = stamp
        except (OSError, Unfit, ConfigurationError) as error:
            if self._keks:
                return  # A half-written or vanished file must not stop a signer that works.
            if isinstance(error, ConfigurationError):
                raise
            raise ConfigurationError(
                f"{self._path} cannot be read: {error}", setting="keyservice.kek_file",
                mend=error.mend if isinstance(error, Unfit) else _MEND,
            ) from error  # fmt: skip


def _parse(content: bytes) -> tuple[_Kek, ...]:
    try:
        members = json.loads(content)
        rows = members.get("keys", [members])
        keks = tuple(_Kek(_named(row["id"]), AESGCM(_exactly(unb64url(row["key"])))) for row in rows)
    except (ValueError, TypeError, KeyError, AttributeError, MalformedInput) as error:
        raise _refused() from error
    ids = [kek.id for kek in keks]
    if not 0 < len(keks) <= MOST_KEKS or len(set(ids)) != len(ids):
        raise _refused()
    return keks


def _named(kek_id: object) -> str:
    if not isinstance(kek_id, str) or not 0 < len(kek_id) <= LONGEST_ID or "\0" in kek_id:
        raise MalformedInput("a KEK has an id")
    return kek_id


def _exactly(key: bytes) -> bytes:
    if len(key) != KEY_BYTES:
        raise MalformedInput(f"a KEK has {KEY_BYTES} bytes")
    return key


def _refused() -> ConfigurationError:
    return ConfigurationError("this is not a key-encryption key", setting="keyservice.kek_file", mend=_MEND)
