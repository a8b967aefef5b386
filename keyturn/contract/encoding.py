"""Strict base64url and JSON: each value has one spelling, and everything else is refused."""

import binascii
import json
from hashlib import sha256
from typing import Any

import msgspec

from keyturn.contract.errors import MalformedInput

_ALPHABET = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
_FOREIGN = b"!"
_TO_URL = bytes.maketrans(b"+/", b"-_")
# What is foreign to base64url is made foreign to base64 too, and so found by one quick search, however long the text.
_TO_STANDARD = bytes(byte if byte in _ALPHABET else ord(_FOREIGN) for byte in range(256)).translate(
    bytes.maketrans(b"-_", b"+/")
)
_WHITE_SPACE = b" \t\n\r"
_DEEPEST = 16


def b64url(raw: bytes) -> str:
    """Encode without padding (RFC 7515, 2)."""
    return binascii.b2a_base64(raw, newline=False).translate(_TO_URL, b"=").decode("ascii")


def b64url_bytes(raw: bytes) -> bytes:
    """Encode without padding, as bytes."""
    return binascii.b2a_base64(raw, newline=False).translate(_TO_URL, b"=")


def unb64url(text: str | bytes) -> bytes:
    """Decode the one canonical spelling: no padding, no foreign characters, no stray bits at the end.

    Raises MalformedInput otherwise, since two spellings of one token would walk around every deny list.
    """
    encoded = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    standard, odd = encoded.translate(_TO_STANDARD), len(encoded) % 4
    if _FOREIGN in standard or odd == 1:
        raise MalformedInput("not base64url without padding")
    raw = binascii.a2b_base64(standard + b"=" * (-odd % 4))
    if odd and binascii.b2a_base64(raw[-(odd - 1) :], newline=False)[:odd] != standard[-odd:]:
        raise MalformedInput("base64url with stray bits at the end")
    return raw


def encode_json(value: object) -> bytes:
    """Encode compactly, members in a fixed order."""
    return msgspec.json.encode(value, order="deterministic")


def decode_object(raw: bytes) -> dict[str, Any]:
    """Decode a JSON object whose member names are unique at every depth (RFC 8725, 2.7 and RFC 7515, 4).

    Raises MalformedInput for anything else, nesting beyond 16 included.
    """
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedInput("not JSON in UTF-8") from error
    if not isinstance(value, dict):
        raise MalformedInput("not a JSON object")
    refuse_duplicates(raw, members=count_members(value))
    return value


def refuse_duplicates(raw: bytes, *, members: int) -> None:
    """Raise MalformedInput if a member name stands twice in JSON of which so many members were decoded."""
    # Without escapes and white space each member leaves one `":` in the text. More of them are duplicates, or strings
    # that begin with a colon: then the slow way tells.
    if b"\\" in raw or raw.translate(None, _WHITE_SPACE).count(b'":') != members:
        _refuse_duplicates(raw)


def count_members(value: dict[str, Any] | list[Any], depth: int = _DEEPEST) -> int:
    """Count the members of a decoded value at every depth; raises MalformedInput for nesting beyond `depth`."""
    if depth == 0:
        raise MalformedInput(f"nested deeper than {_DEEPEST}")
    count, items = (len(value), value.values()) if isinstance(value, dict) else (0, value)
    for item in items:
        kind = type(item)
        if kind is dict or kind is list:  # What the decoder makes, and nothing that derives from it.
            count += count_members(item, depth - 1)
    return count


def _refuse_duplicates(raw: bytes) -> None:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) != len(pairs):
            raise MalformedInput("a member name stands twice")
        return members

    try:
        json.loads(raw, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise MalformedInput("not JSON in UTF-8") from error


def digest(raw: bytes) -> str:
    """Return the SHA-256 of those bytes in base64url."""
    return b64url(sha256(raw).digest())
