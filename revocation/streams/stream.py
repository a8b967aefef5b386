"""One stream: what it has still to tell, in order and at least once, whatever restarts meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from prometheus_client import Counter

from keyturn.contract.errors import FeedUnavailable, MalformedInput, SignerUnavailable, SigningRefused, StoreUnavailable
from keyturn.contract.positions import Position
from keyturn.contract.selectors import SelectorKind
from revocation.streams.letters import SEALED, DeadLetters
from revocation.streams.outbox import LANE, Gap, Outbox
from revocation.streams.progress import Progress, after, at, encode_progress, open_tellings, parse_progress
from revocation.streams.settings import StreamSettings
from revocation.streams.store import StreamStore
from revocation.streams.telling import SET_TYPE, Page, Telling, claims_of
from serving.parts import Parts
from serving.sealing import Sealer

STREAM_BEGUN: Final = "stream_begun"
STREAM_GAP: Final = "stream_gap"
STREAM_REFUSED: Final = "stream_refused"
STREAM_PROGRESS_LOST: Final = "stream_progress_lost"
MOST_AT_A_TIME = 100  # Security Event Tokens in one answer to a poll.
LONGEST_WORD = 200  # Characters kept of what a receiver says of one that it refuses.
MOST_HELD = 20_000  # Events that the feed keeps for a receiver that is behind.
_MOST_RACES = 8
_ALL_KINDS = frozenset(SelectorKind)
Sign = Callable[[str, Mapping[str, Any]], Awaitable[str]]


class Refusal(NamedTuple):
    """What a receiver says of a token that it will never take (RFC 8935, 2.3; RFC 8936, 2.4)."""

    err: str
    description: str = ""


class Signed(NamedTuple):
    """A token that is ready to be sent."""

    telling: Telling
    token: str


@dataclass(frozen=True, slots=True)
class Figures:
    """What is counted of streams."""

    told: Counter
    refused: Counter
    lost: Counter


class _Held(NamedTuple):
    raw: bytes
    progress: Progress
    pages: tuple[Page, ...]


class Stream:
    """What one receiver is told; every replica of the service may ask, and the store knows how far it is."""

    def __init__(
        self, name: str, settings: StreamSettings, parts: Parts, *, sign: Sign, sealer: Sealer, figures: Figures
    ) -> None:
        self.name, self.settings, self.store = name, settings, StreamStore(parts.redis, name)
        self._dead = DeadLetters(self.store, sealer, stream=name)
        self._parts, self._sign, self._figures = parts, sign, figures
        self._outbox = Outbox(parts.feed, parts.replica, frozenset(settings.selectors) or _ALL_KINDS)
        self._alone = asyncio.Lock()
        self._last: Progress | None = None

    async def open(self) -> list[Telling]:
        """Return all that is to be told next, in order: up to 1,024, none if the receiver has been told all.

        What an operator wants to be told again comes first, beside those. Raises StoreUnavailable or FeedUnavailable
        where that cannot be said.
        """
        async with self._alone:
            held = await self._held()
            return [*(await self._dead.again()).tellings, *open_tellings(held.progress, held.pages)]

    async def send_again(self, jtis: Collection[str] | None) -> list[str]:
        """Have refused tokens told again, by `jti`, or the oldest of all; return which are. Raises StoreUnavailable."""
        async with self._alone:
            return await self._dead.send(jtis)

    async def letters(self) -> list[dict[str, Any]]:
        """Return the dead letters that are kept, the newest first; raises StoreUnavailable."""
        kept = await self.store.raw_letters()
        return [{name: value for name, value in letter.items() if name != SEALED} for _, letter in kept]

    async def signed(self, tellings: Sequence[Telling]) -> list[Signed]:
        """Return the signed tokens of these; raises SignerUnavailable."""
        audience = self.settings.audience
        try:
            tokens = await asyncio.gather(
                *(self._sign(SET_TYPE, claims_of(one, audience=audience)) for one in tellings)
            )
        except SigningRefused as error:  # Ours to mend, by the root: no receiver can do anything about it.
            raise SignerUnavailable(f"the root does not let us sign security events: {error}") from error
        return [Signed(one, token) for one, token in zip(tellings, tokens, strict=True)]

    async def settle(self, told: Collection[str], refused: Mapping[str, Refusal] | None = None) -> None:
        """Keep which of the open ones, by `jti`, the receiver has taken, and which it refuses for good.

        Others are none of its business. Raises StoreUnavailable or FeedUnavailable: they will be told again.
        """
        refused = refused or {}
        async with self._alone:
            await self._settle_again(told, refused)
            for _ in range(_MOST_RACES):
                held = await self._held()
                known = {one.jti: one for one in open_tellings(held.progress, held.pages)}
                given_up = [(known[jti], why) for jti, why in refused.items() if jti in known]
                taken = known.keys() & set(told)
                if not taken and not given_up:
                    return
                done = after(held.progress, held.pages, {*taken, *(one.jti for one, _ in given_up)})
                if await self._keep(held.raw, done, [self._letter(one, why) for one, why in given_up]):
                    self._count(len(taken), given_up)
                    return
        raise StoreUnavailable("other replicas are always faster")

    async def _settle_again(self, told: Collection[str], refused: Mapping[str, Refusal]) -> None:
        for _ in range(_MOST_RACES):
            held = await self._dead.again()
            given_up = [(held.by_jti[jti][0], why) for jti, why in refused.items() if jti in held.by_jti]
            gone = held.by_jti.keys() & {*told, *refused}
            if not gone:
                return
            if await self._dead.settle(held, gone, [self._letter(one, why) for one, why in given_up]):
                self._count(len(gone) - len(given_up), given_up)
                return
        raise StoreUnavailable("other replicas are always faster")

    def _count(self, taken: int, given_up: Sequence[tuple[Telling, Refusal]]) -> None:
        self._figures.told.labels(self.name).inc(taken)
        for one, why in given_up:
            self._figures.refused.labels(self.name).inc()
            self._parts.log.error(
                STREAM_REFUSED, stream=self.name, set=one.jti, err=why.err[:LONGEST_WORD],
                description=why.description[:LONGEST_WORD],
            )  # fmt: skip

    async def needs(self, position: Position, seconds: float) -> bool:
        """Say whether the receiver has still to be told events up to a position that has stood for so long.

        The position is one of the running epoch, of which a receiver that is in an older one has been told nothing.
        Raises FeedUnavailable where the store cannot say: nothing is trimmed then.
        """
        try:
            progress = _parse(await self.store.progress())
        except StoreUnavailable as error:
            raise FeedUnavailable(str(error)) from error
        _, newest = self._parts.replica.place(LANE)
        if progress is None or seconds > self.settings.hold:
            return False
        return position.place > progress.place and newest - position.sequence < MOST_HELD

    async def behind(self) -> tuple[Progress, int]:
        """Return how far it is, and how many revocations, up to 1,024, are to be told next."""
        async with self._alone:
            held = await self._held()
            again = await self._dead.again()
            return held.progress, len(again.by_jti) + len(open_tellings(held.progress, held.pages))

    async def _held(self) -> _Held:
        """Return what the store knows, past all that need not be told, with at least one to tell if there is any."""
        self._parts.require_replica()
        for _ in range(_MOST_RACES * 32):
            raw = await self.store.progress()
            progress = _parse(raw)
            if progress is None:
                await self._begin(raw)
                continue
            self._last = progress
            reading = await self._outbox.read(progress)
            onward = reading.onward or after(progress, reading.pages, ())
            if onward.place == progress.place and onward.hash == progress.hash:
                return _Held(raw, progress, reading.pages)
            letters = [] if reading.gap is None else [self._letter_of(reading.gap)]
            if await self._keep(raw, onward, letters) and reading.gap is not None:
                self._tell(reading.gap)
        raise StoreUnavailable("the stream moves on faster than it can be read")

    async def _begin(self, raw: bytes) -> None:
        """Begin where the lane stands.

        One whose progress the store has lost goes on from where we knew it to be; where we do not know it and
        something else stands there, it tells again all that is stored.
        """
        position = self._parts.replica.position(LANE)
        if position is None:
            raise FeedUnavailable("lane revocations has not been read yet")
        lost = bool(raw) or self._last is not None
        begun = self._last or (Progress(position.epoch, 0, "") if raw else at(position))
        if not await self._keep(raw, begun):
            return
        where = {"stream": self.name, "epoch": begun.epoch, "sequence": begun.sequence}
        if lost:
            self._parts.log.error(STREAM_PROGRESS_LOST, **where)
        else:
            self._parts.log.info(STREAM_BEGUN, **where)

    async def _keep(self, held: bytes, progress: Progress, letters: Sequence[dict[str, Any]] = ()) -> bool:
        return await self.store.settle(held, encode_progress(progress), letters)

    def _letter(self, telling: Telling, why: Refusal) -> dict[str, Any]:
        return {
            "kind": "refused", "at": self._parts.clock.now(), "jti": telling.jti, "err": why.err[:LONGEST_WORD],
            "description": why.description[:LONGEST_WORD], **self._dead.sealed(telling),
        }  # fmt: skip

    def _letter_of(self, gap: Gap) -> dict[str, Any]:
        return {"kind": "gap", "at": self._parts.clock.now(), **gap._asdict()}

    def _tell(self, gap: Gap) -> None:
        self._figures.lost.labels(self.name).inc()
        self._parts.log.error(STREAM_GAP, stream=self.name, **gap._asdict())


def _parse(raw: bytes) -> Progress | None:
    try:
        return parse_progress(raw) if raw else None
    except MalformedInput:
        return None
