"""A decoder of Token Status Lists, written from the draft's text alone: nothing of the product is used here."""

import base64
import zlib
from typing import Any

LARGEST_BYTES = 4 * 1024 * 1024  # What a relying party unpacks at most: a list may be a bomb.


class Unacceptable(Exception):
    """No statement about the status can be made, and the token should be rejected (section 8.3)."""


def status_of(status_list: dict[str, Any], index: int) -> int:
    """Return the status at an index of a `status_list` claim (sections 4.1, 4.2 and step 6 of 8.3)."""
    bits: int = status_list["bits"]
    lst: str = status_list["lst"]
    if bits not in {1, 2, 4, 8} or "=" in lst:
        raise Unacceptable
    packed = unpacked(lst)
    per_byte = 8 // bits
    if not 0 <= index < len(packed) * per_byte:
        raise Unacceptable
    # Bytes count from the left, the bits of a byte from the least significant one.
    return packed[index // per_byte] >> (index % per_byte) * bits & (1 << bits) - 1


def unpacked(lst: str) -> bytes:
    """Return the byte array of a list: base64url without padding, then DEFLATE in the ZLIB format."""
    raw = base64.urlsafe_b64decode(lst + "=" * (-len(lst) % 4))
    decompressor = zlib.decompressobj(wbits=15)  # A ZLIB header, neither raw DEFLATE nor gzip.
    packed = decompressor.decompress(raw, LARGEST_BYTES)
    if not decompressor.eof or decompressor.unused_data:
        raise Unacceptable
    return packed


def status_in(
    token_claims: dict[str, Any], list_header: dict[str, Any], list_claims: dict[str, Any], now: float
) -> int:
    """Return a token's status by a list whose signature was checked: steps 1, 3, 4, 5 and 6 of section 8.3."""
    named = token_claims["status"]["status_list"]
    if list_header["typ"] != "statuslist+jwt" or list_claims["sub"] != named["uri"]:
        raise Unacceptable
    if not isinstance(list_claims["iat"], int) or ("exp" in list_claims and list_claims["exp"] <= now):
        raise Unacceptable
    if "ttl" in list_claims and not list_claims["ttl"] > 0:
        raise Unacceptable
    return status_of(list_claims["status_list"], named["idx"])
