"""What a revocation names, and whether a token is among what it names."""

import re
import sys
from array import array
from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b
from typing import Any
from uuid import UUID

import msgspec

from keyturn.contract.errors import InvalidSelector

LONGEST_VALUE = 512
_HASH_BYTES = 8
_BEGUN_KNOWN = 128  # A key, a kind and an issuer each.
_PARTIES_KNOWN = 1024  # Clients and audiences: few, and nearly every token has the same.
_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")  # As we write them.


class SelectorKind(StrEnum):
    """The member that names what is revoked; `all` is everything before a moment."""

    JTI = "jti"
    GRANT = "grant_id"
    SESSION = "sid"
    SUBJECT = "sub"
    CLIENT = "client_id"
    AUDIENCE = "aud"
    ALL = "all"


_NAMING = {kind.value: kind for kind in SelectorKind if kind is not SelectorKind.ALL}
_EXACT = frozenset({SelectorKind.JTI, SelectorKind.GRANT, SelectorKind.SESSION})
_TOKENS_OWN = ((SelectorKind.JTI, "jti"), (SelectorKind.GRANT, "grant_id"), (SelectorKind.SESSION, "sid"))


# Neither of these two can be part of a cycle, and they come by the thousand: the garbage collector need not know them.
class Selector(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """One revocation: a token, grant or session for good, or all grants of a party before a moment."""

    iss: str
    kind: SelectorKind
    value: str = ""
    before: float | None = None  # Unix seconds; only for subject, client, audience and all.


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """A selector as the feed carries it, with the moment after which nothing that it names can still be valid."""

    selector: Selector
    until: float
    reason: str = ""


def parse_selector(
    members: Mapping[str, Any], *, issuer: str, now: float, skew_seconds: float, default_before: float | None = None
) -> Selector:
    """Read a selector as the API takes it: one naming member, `iss` and, for a cutoff, `before`.

    `iss` defaults to `issuer` and `before` to `default_before`, else to `now`. Raises InvalidSelector for a member that
    is unknown, a name that is empty or too long, two names, or a `before` later than now + skew.
    """
    named = [_NAMING[member] for member in members if member in _NAMING]
    if len(named) + ("iss" in members) + ("before" in members) != len(members):
        unknown = members.keys() - _NAMING.keys() - {"iss", "before"}
        raise InvalidSelector(f"unknown member {min(unknown)!r}; a selector has one of "
                              "jti, grant_id, sid, sub, client_id, aud or before, and iss")  # fmt: skip
    if len(named) > 1:
        raise InvalidSelector(f"names both {named[0].value} and {named[1].value}; send one selector for each")
    if not named and "before" not in members:
        raise InvalidSelector("names nothing; give jti, grant_id, sid, sub, client_id, aud or before")
    kind = named[0] if named else SelectorKind.ALL
    value = _name(members, kind.value) if named else ""
    iss = _name(members, "iss") if "iss" in members else issuer
    if kind in _EXACT:
        if "before" in members:
            raise InvalidSelector(f"before has no meaning beside {kind.value}, which is revoked for good")
        return Selector(iss=iss, kind=kind, value=value)
    before = members.get("before", now if default_before is None else default_before)
    if isinstance(before, bool) or not isinstance(before, int | float) or not 0 < before < 1e11:  # noqa: PLR2004
        raise InvalidSelector("before is a moment in Unix seconds")
    if before > now + skew_seconds:
        raise InvalidSelector(f"before lies {before - now:.0f} s ahead; a cutoff cannot name the future")
    return Selector(iss=iss, kind=kind, value=value, before=float(before))


def _name(members: Mapping[str, Any], member: str) -> str:
    value = members[member]
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_VALUE:
        raise InvalidSelector(f"{member} is a string of 1 to {LONGEST_VALUE} characters")
    return value


def hashed(key: bytes, kind: SelectorKind, iss: str, value: str) -> int:
    """Return the keyed 64-bit hash under which replicas hold a selector; the key is the epoch's."""
    one = _begun(key, kind, iss).copy()
    one.update(value.encode("utf-8", "surrogatepass"))
    return int.from_bytes(one.digest(), "big")


def hashed_all(key: bytes, selectors: Iterable[Selector]) -> "array[int]":
    """Return the hashes of many selectors, as `hashed` gives them; what follow each other share the look-up."""
    kind, iss, begun, digests = None, None, blake2b(), []
    for selector in selectors:
        if selector.kind is not kind or selector.iss != iss:
            kind, iss = selector.kind, selector.iss
            begun = _begun(key, kind, iss)
        one = begun.copy()
        one.update(selector.value.encode("utf-8", "surrogatepass"))
        digests.append(one.digest())
    return _numbers(digests)


def hashed_values(key: bytes, kind: SelectorKind, iss: str, values: Iterable[str]) -> "array[int]":
    """Return the hashes of many names of one kind and issuer, as `hashed` gives them."""
    begin, digests = _begun(key, kind, iss).copy, []
    for value in values:
        one = begin()
        one.update(value.encode("utf-8", "surrogatepass"))
        digests.append(one.digest())
    return _numbers(digests)


def _numbers(digests: Iterable[bytes]) -> "array[int]":
    names = array("Q", b"".join(digests))
    if sys.byteorder == "little":
        names.byteswap()
    return names


@lru_cache(maxsize=_BEGUN_KNOWN)
def _begun(key: bytes, kind: SelectorKind, iss: str) -> blake2b:
    return blake2b(f"{kind}\0{iss}\0".encode("utf-8", "surrogatepass"), digest_size=_HASH_BYTES, key=key)


@lru_cache(maxsize=_PARTIES_KNOWN)
def hashed_party(key: bytes, kind: SelectorKind, iss: str, value: str) -> int:
    """Return what `hashed` does, and remember it: for what nearly every token is called."""
    return hashed(key, kind, iss, value)


class TokenNames(msgspec.Struct, frozen=True, gc=False):
    """The hashes of all selectors that could name a token, and the moment that cutoffs compare."""

    exact: tuple[int, ...]
    cutoffs: tuple[int, ...]
    granted_at: float
    whole_seconds: bool  # No grant_id: the moment is a whole-second `iat`, and ties count as revoked.


def names_of(claims: Mapping[str, Any], *, key: bytes) -> TokenNames:
    """Return what revocations could call this token by; claims that are absent or not strings name nothing."""
    get = claims.get
    iss = str(get("iss", ""))
    exact = [hashed(key, kind, iss, value) for kind, member in _TOKENS_OWN if isinstance(value := get(member), str)]
    cutoffs = [hashed_party(key, SelectorKind.ALL, iss, "")]
    if isinstance(subject := get("sub"), str):
        cutoffs.append(hashed(key, SelectorKind.SUBJECT, iss, subject))
    if isinstance(client := get("client_id"), str):
        cutoffs.append(hashed_party(key, SelectorKind.CLIENT, iss, client))
    audience = get("aud")
    for one in [audience] if isinstance(audience, str) else audience or ():
        if isinstance(one, str):
            cutoffs.append(hashed_party(key, SelectorKind.AUDIENCE, iss, one))
    grant = grant_moment(get("grant_id"))
    if grant is not None:
        return TokenNames(tuple(exact), tuple(cutoffs), grant, whole_seconds=False)
    issued = get("iat")
    moment = float(issued) if isinstance(issued, int | float) else 0.0
    return TokenNames(tuple(exact), tuple(cutoffs), moment, whole_seconds=True)


def foreign_names_of(claims: Mapping[str, Any], mapped: Mapping[str, Any], *, key: bytes) -> TokenNames:
    """Return what revocations could call another issuer's token by: as it says itself, and under our names for that.

    A `grant_id` that it may carry is none of ours: it names nothing, and its whole-second `iat` is the moment.
    """
    told, ours = (names_of({**each, "grant_id": None}, key=key) for each in (claims, mapped))
    exact, cutoffs = dict.fromkeys(told.exact + ours.exact), dict.fromkeys(told.cutoffs + ours.cutoffs)
    return TokenNames(tuple(exact), tuple(cutoffs), told.granted_at, whole_seconds=True)


def grant_moment(grant_id: object) -> float | None:
    """Return the moment of sign-in that a version 7 UUID carries (Unix seconds, milliseconds exact), or None."""
    if not isinstance(grant_id, str):
        return None
    if _UUID7.fullmatch(grant_id):
        return int(grant_id[:8] + grant_id[9:13], 16) / 1000
    try:
        uuid = UUID(grant_id)
    except ValueError:
        return None
    return (uuid.int >> 80) / 1000 if uuid.version == 7 else None  # noqa: PLR2004 - RFC 9562, 5.7
