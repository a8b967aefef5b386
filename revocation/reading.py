"""What an operator asks to revoke: read from JSON, refused by name, and kept for as long as it can matter."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from keyturn.contract.encoding import decode_object
from keyturn.contract.errors import InvalidSelector, MalformedInput
from keyturn.contract.selectors import LONGEST_VALUE, Entry, Selector, SelectorKind, parse_selector
from revocation.description import LONGEST_REASON
from revocation.keeping import Keeping
from serving.parts import Parts

_MEMBERS = frozenset({"selector", "reason", "dry_run"})


class Asked(NamedTuple):
    """An order as it was read."""

    entry: Entry
    dry_run: bool


class _OneToken(msgspec.Struct, forbid_unknown_fields=True):
    jti: str


_ONE_TOKEN = msgspec.json.Decoder(_OneToken)
_QUOTES = 4  # Of one member that is a string.


class OrderReader:
    """Reads orders and lone selectors by one rule."""

    def __init__(self, parts: Parts, keeping: Keeping) -> None:
        self._parts, self._keeping = parts, keeping
        self._keys, self._longest = parts.replica.keys, keeping.longest(parts.replica.keys)

    def order(self, body: Mapping[str, Any]) -> Asked:
        """Read `{"selector", "reason"?, "dry_run"?}`; raises MalformedInput or InvalidSelector."""
        if unknown := body.keys() - _MEMBERS:
            raise MalformedInput(f"unknown member {min(unknown)!r}; the body has selector, reason and dry_run")
        members, reason, dry_run = body.get("selector"), body.get("reason", ""), body.get("dry_run", False)
        if not isinstance(members, dict):
            raise InvalidSelector('no selector; send one such as {"selector": {"sub": "alice"}}')
        if not isinstance(reason, str) or len(reason) > LONGEST_REASON:
            raise MalformedInput(f"reason is a string of at most {LONGEST_REASON} characters")
        if not isinstance(dry_run, bool):
            raise MalformedInput("dry_run is true or false")
        return Asked(self.entry(members, before=self._parts.now(), reason=reason), dry_run)

    def line(self, raw: bytes, *, before: float) -> Entry:
        """Read a selector as a line of a list has it; raises MalformedInput or InvalidSelector."""
        # Nearly every line of a long list names one of our tokens and says no more. Four quotes and no escape: there is
        # no second member, and so none that stands twice.
        if raw.count(b'"') == _QUOTES and b"\\" not in raw:
            with suppress(msgspec.DecodeError, UnicodeDecodeError):
                jti = _ONE_TOKEN.decode(raw).jti
                if 0 < len(jti) <= LONGEST_VALUE:
                    selector = Selector(iss=self._parts.issuer, kind=SelectorKind.JTI, value=jti)
                    return self._kept(selector, self._parts.now(), "")
        return self.entry(decode_object(raw), before=before)

    def entry(self, members: Mapping[str, Any], *, before: float, reason: str = "") -> Entry:
        """Read a selector; `before` is the moment of a cutoff that names none. Raises InvalidSelector."""
        parts, now = self._parts, self._parts.now()
        selector = parse_selector(
            members, issuer=parts.issuer, now=now, skew_seconds=parts.skew_seconds, default_before=before
        )
        if selector.iss != parts.issuer:
            return Entry(selector=selector, until=self._keeping.of_foreign(selector, now), reason=reason)
        return self._kept(selector, now, reason)

    def _kept(self, selector: Selector, now: float, reason: str) -> Entry:
        """Return a selector of our own tokens with the moment until which it is kept."""
        keys = self._parts.replica.keys
        if keys is not self._keys:
            self._keys, self._longest = keys, self._keeping.longest(keys)
        until = self._keeping.until(selector.kind, now, longest_token_seconds=self._longest)
        return Entry(selector=selector, until=until, reason=reason)


def shown(entry: Entry) -> dict[str, Any]:
    """Return a revocation as the API writes it."""
    selector: Selector = entry.selector
    members: dict[str, Any] = {"iss": selector.iss}
    if selector.value:
        members[selector.kind.value] = selector.value
    if selector.before is not None:
        members["before"] = selector.before
    return {"selector": members, "until": entry.until}
