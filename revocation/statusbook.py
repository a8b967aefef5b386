"""Which of the listed tokens are revoked: tokens that were written down, joined with the revocations that are held."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from keyturn import entropy
from keyturn.contract.selectors import Entry, SelectorKind, hashed, names_of
from keyturn.contract.statuslists import SIZE, ListedToken, StatusList
from keyturn.verifier.replica import Replica

MOST_TOKENS: Final = 4_000_000  # Listed at once; beyond that nothing is said of any. 250 to 350 bytes each.
_AT_ONCE: Final = 4096  # Bits that are looked at in one step.
_HASH_KEY_BYTES: Final = 16
_NOBODY: Final = float("-inf")  # The moment where no token stands.
_NONE: Final[tuple[int, ...]] = ()


class Listing:
    """One list: its bits, and which of its tokens each selector would name."""

    __slots__ = ("_granted", "_named", "ends", "statuses", "tokens")

    def __init__(self, size: int = SIZE) -> None:
        self.statuses = StatusList(size)
        self.ends, self.tokens = 0.0, 0  # When the last of its tokens expires (Unix seconds), and how many there are.
        # By name: one index, or all of them. Cutoffs compare the moment of the grant, by index.
        self._named: dict[int, int | array[int]] = {}
        self._granted = array("d", [_NOBODY]) * size

    def has(self, token: ListedToken, jti: int) -> bool:
        """Say whether this very token was taken in; `jti` is its name."""
        return token.index in self._indices(jti)

    def add(self, token: ListedToken, names: Iterable[int], granted_at: float) -> None:
        """Take a token in; raises MalformedInput for an index out of range.

        Of two at one index, which a store that lost its lease may bring about, either's revocation sets the bit.
        """
        self.statuses.is_set(token.index)
        held_moment = self._granted[token.index]
        self._granted[token.index] = granted_at if held_moment == _NOBODY else min(granted_at, held_moment)
        self.ends, self.tokens = max(self.ends, token.exp), self.tokens + 1
        for name in names:
            held = self._named.get(name)
            if held is None:
                self._named[name] = token.index
            elif isinstance(held, int):
                self._named[name] = array("I", (held, token.index))
            else:
                held.append(token.index)

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
        self._key = entropy.token_bytes(_HASH_KEY_BYTES)  # Of this process alone: no one can choose colliding names.
        self.listings: dict[str, Listing] = {}

    @property
    def tokens(self) -> int:
        """Count the listed tokens."""
        return sum(listing.tokens for listing in self.listings.values())

    def take(self, name: str, tokens: Iterable[ListedToken]) -> Iterator[None]:
        """Take in tokens of a list, one a step; who was taken in before is held against the replica once more.

        Raises MalformedInput for an index that no list has.
        """
        issuer, replica = self._replica.issuer, self._replica
        listing = self.listings.get(name)
        if listing is None:
            listing = self.listings[name] = Listing()
        for token in tokens:
            claims = token.claims(issuer)
            mine = names_of(claims, key=self._key)
            if not listing.has(token, mine.exact[0]):
                listing.add(token, (*mine.exact, *mine.cutoffs[1:]), mine.granted_at)  # The first is "everything".
            if replica.revokes(replica.names(claims)):
                listing.statuses.set(token.index)
            yield

    def revoke(self, entry: Entry) -> Iterator[None]:
        """Set the bits of all tokens that a new revocation names, in bounded steps."""
        selector = entry.selector
        if selector.iss != self._replica.issuer:
            return
        name = hashed(self._key, selector.kind, selector.iss, selector.value)
        for listing in [*self.listings.values()]:
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
