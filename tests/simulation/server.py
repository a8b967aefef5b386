"""The one store as a simulated server: the memory feed, which may stop, freeze, lose its newest writes or all."""

import asyncio
import copy
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from keyturn.contract.errors import FeedUnavailable
from keyturn.contract.events import SignedEvent, SignedSnapshot
from keyturn.contract.snapshots import NO_CHUNKS, Chunks
from keyturn.feed.memory import MemoryFeed
from tests.simulation.history import History

IMAGES_KEPT = 32  # Writes that a failover may lose.
_SUBSCRIPTIONS = frozenset({"_bells", "_watchers"})
_WRITES = frozenset({"append", "open_epoch", "keep_snapshot", "mend_snapshot", "trim"})


class _InOrder(dict[Any, None]):
    """A set that is looped over in the order of joining, where a plain one goes by addresses in memory."""

    def add(self, one: Any) -> None:
        self[one] = None

    def discard(self, one: Any) -> None:
        self.pop(one, None)


class Server:
    """Answers one request at a time; `landed` hears of each event that it took, `writes` counts all of them."""

    def __init__(
        self, history: History, landed: Callable[[SignedEvent | SignedSnapshot, Chunks], None], *, keeps_images: bool
    ) -> None:
        """Begin empty and running; without images nothing can be lost."""
        self.store = MemoryFeed()
        for name in _SUBSCRIPTIONS:
            setattr(self.store, name, _InOrder())
        self.up, self.frozen = True, False
        self._history, self._landed, self._runs = history, landed, 1
        self._waiting: deque[Callable[[], None]] = deque()
        self._images: deque[dict[str, Any]] = deque(maxlen=IMAGES_KEPT)
        self._keeps_images = keeps_images

    def when_it_runs(self, request: Callable[[], None]) -> bool:
        """Carry a request out, now or once the server is thawed; say whether that was now."""
        if self.frozen:
            self._waiting.append(request)
            return False
        request()
        return True

    def perform(self, who: str, name: str, do: Callable[[MemoryFeed], Coroutine[Any, Any, Any]]) -> Any:
        """Return what the memory feed returns; raises what it raises."""
        if not self.up:
            raise FeedUnavailable("the server is down")
        before = self._image() if self._keeps_images and name in _WRITES else None
        result = _at_once(do(self.store))
        self._history.note(who, f"{name} → {_plain(result)}", routine=True)
        if before is not None:
            self._images.append(before)
        return result

    def take(self, signed: SignedEvent | SignedSnapshot, chunks: Chunks = NO_CHUNKS) -> None:
        """Tell that an event, or the snapshot that opens an epoch, has landed."""
        self._landed(signed, chunks)

    def stop(self) -> None:
        """Answer nobody, and lose every subscription; what was written stays."""
        self.up = False
        self.store.cut()

    def start(self) -> None:
        """Run again, as another run."""
        self._runs += 1
        self.store.run = f"run-{self._runs}"
        self.up = True
        self.store.cut()

    def lose(self, count: int) -> int:
        """Forget the newest writes, as a failover to a replica that lags does; return how many that were."""
        lost = min(count, len(self._images))
        for _ in range(lost):
            vars(self.store).update(self._images.pop())
        return lost

    def thaw(self) -> None:
        """Carry out what has waited."""
        self.frozen = False
        while self._waiting and not self.frozen:
            self._waiting.popleft()()

    def _image(self) -> dict[str, Any]:
        return copy.deepcopy({name: value for name, value in vars(self.store).items() if name not in _SUBSCRIPTIONS})


def _at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never waits, as all of the memory feed's."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("the memory feed never waits")


def _plain(result: object) -> str:
    """Tell an answer in few words, and the same ones in each run."""
    if isinstance(result, bool | None):
        return str(result)
    return type(result).__name__ if not isinstance(result, list | dict) else f"{len(result)} of them"


def answer(future: "asyncio.Future[Any]", result: Any = None, error: Exception | None = None) -> None:
    """Let a client have its answer, if it still waits."""
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
