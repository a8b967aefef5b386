"""Each process's own way to the server: calls that take time or get lost, and a doorbell that forgets and repeats."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from keyturn.contract.errors import FeedUnavailable, KeyturnError
from keyturn.contract.events import SignedEvent, SignedSnapshot
from keyturn.contract.snapshots import NO_CHUNKS
from keyturn.feed.log import Rung
from keyturn.feed.memory import MemoryFeed, _Subscription
from tests.rotation.dice import Dice
from tests.simulation.loop import outside
from tests.simulation.server import Server, answer

CALL_SECONDS = 1.0  # After so long a client gives up; what it asked for may be done all the same.
_USUAL_SECONDS = (0.0002, 0.004)
_SLOW_SECONDS = (0.05, 0.7)
_LATE_SECONDS = 1.5  # By so much a repeated or overtaken word may come later.
_WORDS_KEPT = 256
_CONFIRMING = frozenset({"beat", "confirm"})
_T = TypeVar("_T")


@dataclass
class Weather:
    """What the way is like now."""

    requests_lost: bool = False  # Nothing gets to the server,
    answers_lost: bool = False  # nothing comes from it.
    deaf: bool = False  # The doorbell alone is not heard.
    replaying: bool = False  # Instead of each word an old one is heard.
    slow: bool = False  # Long and varying delays: words overtake each other.
    lossy: bool = False  # Some calls and words are lost, some words come twice.


class Wire(_Subscription[_T]):
    """A subscription as the server sees it: what it puts in here travels."""

    def __init__(self, channel: "Channel") -> None:
        """Begin; the first word says that the subscription stands."""
        super().__init__()
        self.channel = channel
        self._open = True

    def put(self, word: _T) -> None:
        """Send a word on its way."""
        self.channel.carry(word, super().put)

    def lose(self) -> None:
        """Let the reader hear soon that nothing more will come."""
        if self._open:
            self._open = False
            outside(self.channel.loop, self.channel.delay(), super().lose)


class Channel:
    """One process's connection; stands in the place of the feed and of the presence board.

    Each method of the memory feed travels: a request takes a while and may be lost, and so does its answer, after
    which the client knows nothing. A dead channel's calls fail without any effect.
    """

    def __init__(self, server: Server, dice: Dice, loop: asyncio.AbstractEventLoop, *, name: str) -> None:
        """Begin in good weather."""
        self.loop, self.weather, self.dead, self._name = loop, Weather(), False, name
        self.crash: Callable[[], None] | None = None  # Called once, at the next call: before or after its effect.
        self._server, self._dice, self._arrival = server, dice, 0.0
        self._words: list[Any] = []
        self._wires: dict[Wire[Any], None] = {}
        self.accepted = float("-inf")  # When the server last took a write at our position, and we heard of it.

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        """Return what asks the server for that method of the feed."""
        method: Callable[..., Coroutine[Any, Any, Any]] = getattr(MemoryFeed, name)
        return partial(self._ask, name, method)

    async def _ask(self, name: str, method: Any, *arguments: Any, **named: Any) -> Any:
        return await self.call(name, lambda store: method(store, *arguments, **named))

    async def append(self, event: SignedEvent, **named: Any) -> None:
        """Add an event; whoever keeps the books hears of it when it lands, not when we do."""

        async def land(store: MemoryFeed) -> None:
            await MemoryFeed.append(store, event, **named)
            self._server.take(event)

        await self.call("append", land)

    async def open_epoch(self, snapshot: SignedSnapshot, **named: Any) -> bool:
        """Begin an epoch; whoever keeps the books hears of it when that is done."""

        async def begin(store: MemoryFeed) -> bool:
            begun = await MemoryFeed.open_epoch(store, snapshot, **named)
            if begun:
                self._server.take(snapshot, named.get("chunks", NO_CHUNKS))
            return begun

        return bool(await self.call("open_epoch", begin))

    async def call(self, name: str, do: Callable[[MemoryFeed], Coroutine[Any, Any, Any]]) -> Any:
        """Ask the server; raises what it raises, and FeedUnavailable if no answer comes."""
        if self.dead:
            raise FeedUnavailable("this process is no more")
        answered = self.loop.create_future()
        lost = self.weather.lossy and self._dice.chance(8)
        crash, self.crash = self.crash, None
        after = crash is not None and self._dice.chance(2)
        if crash is not None and not after:
            outside(self.loop, 0.0, crash)
        arrive = partial(self._arrive, name, do, answered, crash if after else None)
        if self.weather.requests_lost or lost or (crash is not None and not after):
            self._give_up(answered)
        else:
            outside(self.loop, self.delay(), arrive)
        return await answered

    def delay(self) -> float:
        """Throw for how long something travels."""
        return self._dice.between(*(_SLOW_SECONDS if self.weather.slow else _USUAL_SECONDS))

    def carry(self, word: Any, deliver: Callable[[Any], None]) -> None:
        """Bring a word of the doorbell to the process: in order, once, and soon, unless the weather is bad."""
        weather = self.weather
        self._words = [*self._words[-_WORDS_KEPT:], word] if isinstance(word, Rung) else self._words
        if weather.answers_lost or weather.deaf or (weather.lossy and self._dice.chance(4)):
            return
        if weather.replaying:
            word = self._dice.one_of(self._words) if self._words else word
        seconds = self.delay()
        if not weather.slow:
            self._arrival = max(self._arrival, self.loop.time() + seconds)
            seconds = self._arrival - self.loop.time()
        outside(self.loop, seconds, deliver, word)
        if weather.lossy and self._dice.chance(4):
            outside(self.loop, seconds + self._dice.between(0.0, _LATE_SECONDS), deliver, word)

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[_Subscription[Rung]]:
        """Subscribe to both lanes."""
        async with self._subscribed("_bells") as wire:
            yield wire

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[_Subscription[tuple[str, bytes]]]:
        """Subscribe to reports."""
        async with self._subscribed("_watchers") as wire:
            yield wire

    @asynccontextmanager
    async def _subscribed(self, kind: str) -> AsyncIterator[Any]:
        wire: Wire[Any] = Wire(self)

        async def add(store: MemoryFeed) -> None:
            getattr(store, kind).add(wire)

        self._wires[wire] = None
        try:
            await self.call("listen" if kind == "_bells" else "watch", add)
            yield wire
        finally:
            del self._wires[wire]
            getattr(self._server.store, kind).discard(wire)

    def hang_up(self) -> None:
        """Lose the subscriptions that stand."""
        for wire in list(self._wires):
            wire.lose()

    def _arrive(
        self, name: str, do: Callable[[MemoryFeed], Coroutine[Any, Any, Any]], answered: "asyncio.Future[Any]",
        crash: Callable[[], None] | None,
    ) -> None:  # fmt: skip
        def serve() -> None:
            result, error = None, None
            try:
                result = self._server.perform(self._name, name, do)
            except KeyturnError as refused:
                error = refused
            if crash is not None:
                crash()
            elif self.weather.answers_lost or (self.weather.lossy and self._dice.chance(8)):
                self._give_up(answered)
            else:
                if error is None and (name == "append" or (name in _CONFIRMING and result)):
                    self.accepted = self.loop.time()
                outside(self.loop, self.delay(), answer, answered, result, error)

        if not self._server.when_it_runs(serve):
            self._give_up(answered)

    def _give_up(self, answered: "asyncio.Future[Any]") -> None:
        """Tell the client after a while that there is no answer; sometimes at once, where the connection breaks."""
        seconds = self.delay() if self._dice.chance(3) else CALL_SECONDS
        outside(self.loop, seconds, answer, answered, None, FeedUnavailable("no answer"))
