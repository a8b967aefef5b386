"""The private keys that this process may sign with, opened from the store when they are published."""

import asyncio
from collections import OrderedDict
from contextlib import suppress
from typing import NamedTuple

from keyservice.sealing import KeySealer
from keyservice.wrapping import SealedKeyUnreadable
from keyturn.contract.events import KeysEvent, SignedEvent
from keyturn.contract.jwk import PrivateKey, public_jwk, thumbprint
from keyturn.contract.keys import KeyRecord, Phase, Published, Use
from keyturn.contract.rotation import Transition
from keyturn.feed.log import Beside, Feed
from keyturn.feed.recovery import Remembered
from keyturn.verifier.replica import Replica
from keyturn.verifier.statefiles import StateDirectory

MOST_BOXES = 256  # Sealed forms that are kept; far more than a key set has keys that may sign.
_SIGNS = frozenset({Phase.PUBLISHED, Phase.ACTIVE})


class Resealed(NamedTuple):
    """What sealing anew came to: the KEK that seals now, how many keys it took, and who still waits."""

    kek: str
    resealed: int
    left: tuple[str, ...]  # Kids that do not open; their seal is as it was.


class Restored(NamedTuple):
    """Kids whose sealed form was put back into the store, and those whose it should not have held any more."""

    put_back: tuple[str, ...]
    erased: tuple[str, ...]


class Keyring:
    """Opened private keys by kid; never more than the key set's published and active ones.

    Their sealed forms are kept too, in memory and in `files`, for a store that has lost them.
    """

    def __init__(self, sealer: KeySealer, feed: Feed, replica: Replica, *, files: StateDirectory | None = None) -> None:
        self._sealer, self._feed, self._replica, self._files = sealer, feed, replica, files
        self._opened: dict[str, PrivateKey] = {}
        self._boxes: OrderedDict[str, bytes] = OrderedDict(files.sealed() if files is not None else ())
        self._filed, self._filing = dict(self._boxes), asyncio.Lock()

    async def seal(self, kid: str, use: Use, key: PrivateKey) -> bytes:
        """Seal a new key; it is opened here like any other once it stands in the feed."""
        sealed = await self._sealer.seal(kid, use, key)
        self._keep(kid, sealed)
        await self._file()
        return sealed

    def beside(self, signed: SignedEvent) -> Remembered:
        """Return what the append of an event wrote and erased besides; not whole without a key that may sign yet."""
        changes = signed.event.changes if isinstance(signed.event, KeysEvent) else ()
        published = [change.kid for change in changes if isinstance(change, Published)]
        sealed = {kid: self._boxes[kid] for kid in published if kid in self._boxes}
        wanted = self._wanted()
        whole = all(kid in sealed or kid not in wanted for kid in published)
        return Remembered(Beside(sealed=sealed, erased=Transition(changes=changes).ends()), whole)

    def get(self, kid: str) -> PrivateKey | None:
        """Return an opened key."""
        return self._opened.get(kid)

    async def refresh(self) -> list[str]:
        """Open what the key set newly holds, and drop what may not sign any more; return kids that do not open.

        Raises FeedUnavailable or WrapperUnavailable if that cannot be said.
        """
        wanted = self._wanted()
        for kid in self._opened.keys() - wanted.keys():
            del self._opened[kid]
        self._forget_ended()
        missing = wanted.keys() - self._opened.keys()
        if not missing:
            await self._file()
            return []
        boxes, unreadable = await self._feed.sealed_keys(), []
        # The active ones first: with a KEK far away each takes a round trip.
        for kid in sorted(missing, key=lambda one: wanted[one].phase is not Phase.ACTIVE):
            for box in (boxes.get(kid, b""), self._boxes.get(kid, b"")):
                private = await self._open(wanted[kid], box)
                if private is not None:
                    self._opened[kid] = private
                    self._keep(kid, box)
                    break
            else:
                unreadable.append(kid)
        await self._file()
        return unreadable

    async def restore(self) -> Restored:
        """Put back what the store has lost of keys that may sign, and erase what it holds of keys that have ended.

        A failover, a backup or a thief may have left it so. Raises FeedUnavailable or WrapperUnavailable.
        """
        stored, wanted = await self._feed.sealed_keys(), self._wanted()
        self._forget_ended()
        put_back, erased = [], []
        for kid, record in wanted.items():
            box, held = self._boxes.get(kid, b""), stored.get(kid, b"")
            if box in (b"", held):
                continue
            if held and await self._open(record, held) is not None:
                self._keep(kid, held)  # Sealed anew by another process.
            elif self._sealer.wrapper.is_foreign(held):
                continue  # By a newer KEK, as another key service has it: ours may be about to be dropped.
            elif await self._feed.replace_sealed(kid, held=held, by=box):
                put_back.append(kid)
        for kid, held in stored.items():
            if self._has_ended(kid) and await self._feed.replace_sealed(kid, held=held, by=b""):
                erased.append(kid)
        await self._file()
        return Restored(tuple(put_back), tuple(erased))

    async def reseal(self) -> Resealed:
        """Seal every key anew by the newest KEK; a key that is erased meanwhile stays erased.

        Signing goes on all the while, by keys that are open. Raises FeedUnavailable or WrapperUnavailable, after
        which asking again goes on where this stopped.
        """
        wanted, count, left = self._wanted(), 0, []
        for kid, sealed in (await self._feed.sealed_keys()).items():
            if kid not in wanted:
                continue
            try:
                fresh = await self._sealer.reseal(kid, wanted[kid].use, sealed)
            except SealedKeyUnreadable:
                left.append(kid)
                continue
            if fresh is not None and await self._feed.replace_sealed(kid, held=sealed, by=fresh):
                self._keep(kid, fresh)
                count += 1
        await self._file()
        return Resealed(await self._sealer.wrapper.current(), count, tuple(left))

    def _keep(self, kid: str, sealed: bytes) -> None:
        self._boxes[kid] = sealed
        self._boxes.move_to_end(kid)
        if len(self._boxes) > MOST_BOXES:
            self._boxes.popitem(last=False)

    async def _file(self) -> None:
        """Put the sealed forms on the disk; where that cannot be, the state directory's own trouble tells of it."""
        async with self._filing:
            if self._files is None or self._boxes == self._filed:
                return
            boxes = dict(self._boxes)
            with suppress(OSError):
                await asyncio.to_thread(self._files.keep_sealed, boxes)
                self._filed = boxes

    def _forget_ended(self) -> None:
        for kid in [one for one in self._boxes if self._has_ended(one)]:
            del self._boxes[kid]

    def _has_ended(self, kid: str) -> bool:
        record = self._replica.keys.get(kid)
        return record is not None and record.phase not in _SIGNS

    def _wanted(self) -> dict[str, KeyRecord]:
        return {key.kid: key for key in self._replica.keys if key.phase in _SIGNS}

    async def _open(self, record: KeyRecord, sealed: bytes) -> PrivateKey | None:
        try:
            private = await self._sealer.open(record.kid, record.use, sealed)
        except SealedKeyUnreadable:
            return None
        genuine = thumbprint(public_jwk(private.public_key())) == thumbprint(record.jwk)
        return private if genuine else None
