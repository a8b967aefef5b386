"""Keeps the book of status lists up with the store, and signs each list that is asked for as it stands."""

import asyncio
import gzip
from collections.abc import Iterator, Sequence
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
from keyturn.contract.events import Event, RevocationsEvent, open_event
from keyturn.contract.keys import Phase
from keyturn.contract.positions import Lane
from keyturn.contract.purposes import STATUS_LIST
from keyturn.contract.revocations import RevocationIndex
from keyturn.contract.statuslists import PATH, list_claims, list_uri
from revocation.statusbook import Listing, StatusBook
from revocation.statusrows import StatusRows
from revocation.turns import Turns
from serving.gathering import Gathering
from serving.listings import Listings
from serving.parts import Parts
from serving.problems import Busy, NotFound
from serving.records import RecordStore
from serving.signing import Signer

LOOK_AGAIN_SECONDS: Final = 1.0
MOST_ASKING: Final = 4096
TOO_MANY: Final = "too_many_listed_tokens"
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
        token_seconds: float,
        keep_seconds: float,
    ) -> None:
        """Use a store and a signer; a list is kept for `keep_seconds` after its last token has expired.

        A token lives for at most `token_seconds`.
        """
        self.ttl_seconds = ttl_seconds
        self._parts, self._records, self._signer = parts, records, signer
        self._keep_seconds = keep_seconds
        self._turns = Turns(parts.clock)
        self._book = StatusBook(parts.replica)
        self._rows = StatusRows(
            parts, listings=listings, book=self._book, turns=self._turns, doubt_seconds=token_seconds + keep_seconds
        )
        self._signed: dict[str, SignedList] = {}
        self._signing: dict[str, asyncio.Lock] = {}
        self._forgot_at = 0.0
        # Up to where the feed was joined with the book: a place in these indexes.
        self._place = (0, 0)
        self._indexes: tuple[RevocationIndex, ...] = ()
        self._current: Gathering[None, None] = Gathering(
            self._come_up, most_together=MOST_ASKING, at_once=1, most_waiting=MOST_ASKING
        )
        metrics = parts.metrics
        metrics.read_gauge("keyturn_status_lists", "Status lists of live tokens.", lambda: len(self._book.listings))
        metrics.read_gauge("keyturn_status_list_tokens", "Tokens that they speak of.", lambda: self._book.tokens)
        metrics.read_gauge(
            "keyturn_status_lists_unread_seconds", "How far rows are read, while lists wait for all of them.",
            lambda: self._rows.unread_seconds,
        )  # fmt: skip
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
        if name in self._rows.unreadable:
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
        if parts.clock.now() < self._forgot_at:
            self._rows.begin_anew()  # The clock was ahead: what it let go of may be alive.
            self._forgot_at = 0.0
        await self._rows.read(self._join)
        return [None] * len(asking)

    async def _join(self) -> None:
        """Hold the revocations that came since against the book; all rows are read anew where the replica jumped."""
        replica, place = self._parts.replica, self._parts.replica.place(Lane.REVOCATIONS)
        if self._indexes == replica.indexes and self._place == place:
            return
        since = self._since(place)
        if since is None or not await self._hold(since):
            self._indexes, self._place = replica.indexes, replica.place(Lane.REVOCATIONS)
            self._rows.begin_anew()  # Each token is held against the replica as it is taken in.
        else:
            self._place = max(self._place, place)

    def _since(self, place: tuple[int, int]) -> list[bytes] | None:
        """Return the events since our place, None where the replica jumped or does not have all of them any more."""
        replica = self._parts.replica
        if self._indexes != replica.indexes or self._place[0] != place[0]:
            return None
        return replica.tails[Lane.REVOCATIONS].after(self._place[1]) if self._book.listings else []

    async def _hold(self, compacts: Sequence[bytes]) -> bool:
        """Hold events against the book; say whether that could be: the role may have another key by now."""
        replica, lane, turns = self._parts.replica, Lane.REVOCATIONS, self._turns
        for compact in compacts:
            try:
                event = open_event(compact, lane, replica.trust.role(lane)).event
            except TrustError:
                return False
            for _ in self._revoked(event):
                if turns.is_over():
                    await turns.give_way()
            self._place = (event.epoch, event.sequence)
        return True

    def _revoked(self, event: Event) -> Iterator[None]:
        """Set the bits of all that an event names, in bounded steps."""
        yield
        for entry in event.entries if isinstance(event, RevocationsEvent) else ():
            yield from self._book.revoke(entry)

    def _forget_expired(self) -> None:
        now = self._parts.clock.now()
        self._book.forget_expired(now - self._keep_seconds)
        self._forgot_at = now
        for name in (self._signed.keys() | self._signing.keys()) - self._book.listings.keys():
            self._signed.pop(name, None)  # One of them alone: it is being signed, or could not be.
            self._signing.pop(name, None)
        self._rows.forget_expired(now)


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
