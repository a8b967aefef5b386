"""Which of the listed tokens are revoked: tokens that were written down, joined with the revocations that are held."""

from array import array
from collections.abc import Iterator, Sequence
from typing import Final

from keyturn.contract.selectors import Entry, SelectorKind, TokenNames, hashed
from keyturn.contract.statuslists import SIZE, ListedToken, StatusList, listed_names
from keyturn.verifier.replica import Replica

MOST_TOKENS: Final = 4_000_000  # Listed at once; beyond that nothing is said of any. About 430 bytes each.
_AT_ONCE: Final = 4096  # Bits that are looked at in one step.
_TAKEN_AT_ONCE: Final = 32  # Tokens: half a millisecond.
_NOBODY: Final = float("-inf")  # The moment where no token stands.
_NONE: Final[tuple[int, ...]] = ()


class Listing:
    """One list: its bits, and which of its tokens each selector would name."""

    __slots__ = ("_granted", "_named", "ends", "key", "statuses", "tokens")

    def __init__(self, key: bytes, size: int = SIZE) -> None:
        self.key = key  # Under which its tokens' names are hashed.
        self.statuses = StatusList(size)
        self.ends, self.tokens = 0.0, 0  # When the last of its tokens expires (Unix seconds), and how many there are.
        # By name: one index, or all of them. Cutoffs compare the moment of the grant, by index.
        self._named: dict[int, int | array[int]] = {}
        self._granted = array("d", [_NOBODY]) * size

    def add(self, token: ListedToken, names: TokenNames) -> None:
        """Take a token in, once; raises MalformedInput for an index out of range.

        Of two at one index, which a store that lost its lease may bring about, either's revocation sets the bit.
        """
        index, named, granted = token.index, self._named, self._granted
        jti = names.exact[0]
        if jti in named and index in self._indices(jti):
            return
        self.statuses.is_set(index)
        granted[index] = names.granted_at if granted[index] == _NOBODY else min(names.granted_at, granted[index])
        self.tokens += 1
        self.ends = max(self.ends, token.exp)
        for name in (*names.exact, *names.cutoffs[1:]):  # The first of these is "everything".
            held = named.setdefault(name, index)
            if held is index:
                continue  # Nobody else is called so.
            if isinstance(held, int):
                named[name] = array("I", (held, index))
            else:
                held.append(index)

    def revoke(self, name: int, before: float = float("inf")) -> Iterator[None]:
        """Set the bits of all tokens of a name whose grants lie before a moment, in bounded steps."""
        yield from self._cut(self._indices(name), before)

    def revoke_all(self, before: float) -> Iterator[None]:
        """Set the bits of all tokens whose grants lie before a moment, in bounded steps."""
        yield from self._cut(range(self.statuses.size), before)

    def _cut(self, indices: Sequence[int], before: float) -> Iterator[None]:
        for start in range(0, len(indices), _AT_ONCE):
            for index in indices[start : start + _AT_ONCE]:
                if _NOBODY < self._granted[index] < before:
                    self.statuses.set(index)
            yield

    def _indices(self, name: int) -> Sequence[int]:
        held = self._named.get(name)
        if held is None:
            return _NONE
        return (held,) if isinstance(held, int) else held


class StatusBook:
    """All lists of live tokens.

    A token is held against the replica when it is taken in, and a later revocation against all that were taken in:
    whichever comes first, the bit of a token that verifiers refuse as revoked is set.
    """

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self.listings: dict[str, Listing] = {}

    @property
    def tokens(self) -> int:
        """Count the listed tokens."""
        return sum(listing.tokens for listing in self.listings.values())

    def take(self, name: str, tokens: Sequence[ListedToken]) -> Iterator[None]:
        """Take in tokens of a list, a few a step; who was taken in before is held against the replica once more.

        Raises MalformedInput for an index that no list has.
        """
        for start in range(0, len(tokens), _TAKEN_AT_ONCE):
            self._take(name, tokens[start : start + _TAKEN_AT_ONCE])
            yield

    def _take(self, name: str, tokens: Sequence[ListedToken]) -> None:
        replica = self._replica
        known = [(index.key, listed_names(tokens, replica.issuer, key=index.key)) for index in replica.indexes]
        listing = self.listings.get(name)
        if listing is None:
            # By the replica's own key the names of a token are worked out once for both, until there is another epoch.
            listing = self.listings[name] = Listing(replica.indexes[0].key)
        mine = dict(known).get(listing.key) or listed_names(tokens, replica.issuer, key=listing.key)
        by_token = zip(*(names for _, names in known), strict=True)
        for token, own, names in zip(tokens, mine, by_token, strict=True):
            listing.add(token, own)
            if replica.revokes(names):
                listing.statuses.set(token.index)

    def revoke(self, entry: Entry) -> Iterator[None]:
        """Set the bits of all tokens that a new revocation names, in bounded steps."""
        selector = entry.selector
        if selector.iss != self._replica.issuer:
            return
        key, name = b"", 0
        for listing in [*self.listings.values()]:
            if listing.key != key:
                key, name = listing.key, hashed(listing.key, selector.kind, selector.iss, selector.value)
            if selector.before is None:
                yield from listing.revoke(name)
            elif selector.kind is SelectorKind.ALL:
                yield from listing.revoke_all(selector.before)
            else:
                yield from listing.revoke(name, selector.before)

    def forget_expired(self, now: float) -> None:
        """Forget the lists on which no token is good any more (section 13.1)."""
        for name in [name for name, listing in self.listings.items() if listing.ends <= now]:
            del self.listings[name]
