"""Keeps the book of status lists up with the store, and signs each list that is asked for as it stands."""

import asyncio
import gzip
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Final, NamedTuple

from keyturn.contract.encoding import b64url, decode_object, unb64url
from keyturn.contract.errors import (
    FeedUnavailable,
    MalformedInput,
    ReplicaExpired,
    SignerUnavailable,
    SigningRefused,
    StoreUnavailable,
    TrustError,
)
from keyturn.contract.events import RevocationsEvent, open_event
from keyturn.contract.keys import Phase
from keyturn.contract.positions import Lane
from keyturn.contract.purposes import STATUS_LIST
from keyturn.contract.revocations import RevocationIndex
from keyturn.contract.statuslists import PATH, list_claims, list_uri
from revocation.statusbook import MOST_TOKENS, Listing, StatusBook
from serving.gathering import Gathering
from serving.listings import MOST_ROWS, Listings, Row
from serving.parts import Parts
from serving.problems import Busy, NotFound
from serving.records import RecordStore
from serving.signing import Signer

LOOK_AGAIN_SECONDS: Final = 1.0
MOST_ASKING: Final = 4096
MOST_UNREADABLE: Final = 256  # Lists with a row that cannot be opened, beside those that are known.
ROW_UNREADABLE: Final = "status_row_unreadable"
TOO_MANY: Final = "too_many_listed_tokens"
_STEPS_AT_ONCE: Final = 8  # Of the book's; a step is up to 4,096 bits, mostly one.
_TAKEN_AT_ONCE: Final = (
    4  # Tokens that are taken in, of however many rows: others have ten and more turns for a request.
)
_ETAG_BYTES: Final = 15


class SignedList(NamedTuple):
    """A Status List Token as it was signed; `zipped` is the same by gzip, and `kid` and the moments are its own."""

    compact: bytes
    zipped: bytes
    etag: str
    version: int
    kid: str
    issued_at: int
    expires_at: int


class StatusLists:
    """All lists, each as true as the feed at the moment when it was asked for."""

    def __init__(
        self,
        parts: Parts,
        *,
        listings: Listings,
        records: RecordStore,
        signer: Signer,
        ttl_seconds: float,
        keep_seconds: float,
    ) -> None:
        """Use a store and a signer; a list is kept for `keep_seconds` after its last token has expired."""
        self.ttl_seconds = ttl_seconds
        self._parts, self._listings, self._records, self._signer = parts, listings, records, signer
        self._keep_seconds = keep_seconds
        self._book = StatusBook(parts.replica)
        self._signed: dict[str, SignedList] = {}
        self._signing: dict[str, asyncio.Lock] = {}
        self._unreadable: dict[str, float] = {}  # Lists of which a row cannot be opened, and until when that counts.
        # Up to where rows were read, and the feed was joined with them: a place in these indexes.
        self._after: bytes | None = None
        self._taken = 0
        self._forgot_at = 0.0
        self._place = (0, 0)
        self._indexes: tuple[RevocationIndex, ...] = ()
        self._current: Gathering[None, None] = Gathering(
            self._come_up, most_together=MOST_ASKING, at_once=1, most_waiting=MOST_ASKING
        )
        metrics = parts.metrics
        metrics.read_gauge("keyturn_status_lists", "Status lists of live tokens.", lambda: len(self._book.listings))
        metrics.read_gauge("keyturn_status_list_tokens", "Tokens that they speak of.", lambda: self._book.tokens)
        self._count = metrics.counter("keyturn_status_lists_signed", "Status lists that were signed.")

    async def run(self) -> None:
        """Read ahead until cancelled, so that nobody who asks waits for much."""
        clock = self._parts.clock
        while True:
            try:
                await self._current.ask(None)
            except Busy as error:
                self._parts.log.warning(TOO_MANY, reason=str(error))
            except (StoreUnavailable, FeedUnavailable, ReplicaExpired):
                pass  # The follower notes it; who asks meanwhile hears of it.
            self._forget_expired()
            await clock.sleep(LOOK_AGAIN_SECONDS)

    async def uris(self) -> list[str]:
        """Return where all lists are (section 9); raises what `signed` raises."""
        await self._current.ask(None)
        return [list_uri(self._parts.issuer, name) for name in sorted(self._book.listings)]

    async def signed(self, name: str) -> SignedList:
        """Return a list in which all is set that was acknowledged before this call, signed at most `ttl` ago.

        Raises NotFound for a list on which no live token stands; and where the list cannot be vouched for
        StoreUnavailable, FeedUnavailable, ReplicaExpired, SignerUnavailable, SignerMissing or Busy.
        """
        await self._current.ask(None)
        if name in self._unreadable:
            raise StoreUnavailable("a row of this list cannot be opened; compare the records.key_file of the services")
        listing = self._book.listings.get(name)
        if listing is None:
            raise NotFound("no live token names such a list")
        wanted = listing.statuses.version
        async with self._signing.setdefault(name, asyncio.Lock()):
            held = self._signed.get(name)
            if held is None or held.version < wanted or not self._is_good(held):
                held = self._signed[name] = await self._sign(name, listing)
        return held

    async def _sign(self, name: str, listing: Listing) -> SignedList:
        version, uri = listing.statuses.version, list_uri(self._parts.issuer, name)
        lst = await asyncio.to_thread(listing.statuses.encoded)  # Tens of milliseconds where many are revoked.
        claims = list_claims(
            lst, uri=uri, now=self._parts.clock.now(), ttl_seconds=self.ttl_seconds,
            life_seconds=self._parts.replica.freshness.expired_after_seconds,
            aggregation=self._parts.issuer + PATH,
        )  # fmt: skip
        try:
            signed = _read_signed(await self._signer.sign(STATUS_LIST, claims), version)
        except SigningRefused as error:  # Our identity's trouble, not that of who asks.
            raise SignerUnavailable(str(error)) from error
        self._count.inc()
        return signed

    def _is_good(self, signed: SignedList) -> bool:
        now, key = self._parts.clock.now(), self._parts.replica.keys.get(signed.kid)
        fresh = signed.issued_at <= now < min(signed.issued_at + self.ttl_seconds, signed.expires_at)
        return fresh and key is not None and key.phase in (Phase.ACTIVE, Phase.RETIRING)

    async def _come_up(self, asking: Sequence[None]) -> Sequence[None]:
        """Come to where the store stands, in revocations and in rows."""
        parts = self._parts
        parts.require_replica()
        await parts.reach(await self._records.positions())
        target = parts.replica.place(Lane.REVOCATIONS)
        while self._indexes != parts.replica.indexes or self._place < target:
            await self._join()
        if parts.clock.now() < self._forgot_at:
            self._after = None  # The clock was ahead: what it let go of may be alive.
            self._forgot_at = 0.0
        await self._read_rows()
        if self._book.tokens > MOST_TOKENS:
            raise Busy(f"more than {MOST_TOKENS} live tokens are listed")
        return [None] * len(asking)

    async def _join(self) -> None:
        """Hold the revocations that came since against the book: one by one, or all where the replica made a jump."""
        replica, lane = self._parts.replica, Lane.REVOCATIONS
        place = replica.place(lane)
        jumped = self._indexes != replica.indexes or self._place[0] != place[0]
        events = [] if jumped or not self._book.listings or self._place == place else self._events()
        if jumped or events is None:
            self._indexes, self._place, self._after = replica.indexes, place, None
            await self._read_rows()  # Each token is held against the replica as it is taken in.
            return
        for event in events:
            for entry in event.entries:
                for number, _ in enumerate(self._book.revoke(entry)):
                    if number % _STEPS_AT_ONCE == _STEPS_AT_ONCE - 1:
                        await self._parts.clock.sleep(0)
            self._place = (event.epoch, event.sequence)
            await self._parts.clock.sleep(0)
        self._place = max(self._place, place)

    def _events(self) -> list[RevocationsEvent] | None:
        """Return the events since our place, None where the replica does not have all of them any more."""
        replica, lane = self._parts.replica, Lane.REVOCATIONS
        compacts = replica.tails[lane].after(self._place[1])
        try:
            events = [open_event(compact, lane, replica.trust.role(lane)).event for compact in compacts or ()]
        except TrustError:  # The role has another key by now.
            return None
        return None if compacts is None else [event for event in events if isinstance(event, RevocationsEvent)]

    async def _read_rows(self) -> None:
        full = True
        while full:
            rows = await self._listings.read(self._after)
            full = len(rows) == MOST_ROWS
            if self._after is not None:
                if not rows or rows[0].id != self._after:
                    self._after, full = None, True  # It has run out, or the store has lost it: look at all there is.
                    continue
                rows = rows[1:]
            for row in rows:
                await self._take(row)
                self._after = row.id

    async def _take(self, row: Row) -> None:
        try:
            if row.tokens is not None:
                for _ in self._book.take(row.name, row.tokens):
                    self._taken += 1
                    if self._taken % _TAKEN_AT_ONCE == 0:
                        await self._parts.clock.sleep(0)  # Others have their turn.
                return
        except MalformedInput:
            pass  # An index that no list has: as good as unreadable.
        if row.name not in self._unreadable:
            self._parts.log.error(ROW_UNREADABLE)
        if row.name in self._book.listings or len(self._unreadable) < MOST_UNREADABLE:
            self._unreadable[row.name] = self._parts.clock.now() + self._keep_seconds

    def _forget_expired(self) -> None:
        now = self._parts.clock.now()
        self._book.forget_expired(now - self._keep_seconds)
        self._forgot_at = now
        for name in (self._signed.keys() | self._signing.keys()) - self._book.listings.keys():
            self._signed.pop(name, None)  # One of them alone: it is being signed, or could not be.
            self._signing.pop(name, None)
        for name in [name for name, until in self._unreadable.items() if until <= now]:
            del self._unreadable[name]


def _read_signed(token: str, version: int) -> SignedList:
    """Return what the signer made, with its word on the moments: it may have made its life shorter."""
    try:
        header, payload, _ = token.split(".")
        claims: dict[str, Any] = decode_object(unb64url(payload))
        kid, issued_at, expires_at = decode_object(unb64url(header))["kid"], int(claims["iat"]), int(claims["exp"])
    except (KeyError, TypeError, ValueError, MalformedInput) as error:
        raise SignerUnavailable("the signer's answer is no status list") from error
    compact = token.encode("ascii")
    etag = b64url(sha256(compact).digest()[:_ETAG_BYTES])
    return SignedList(compact, gzip.compress(compact, mtime=0), etag, version, kid, issued_at, expires_at)
