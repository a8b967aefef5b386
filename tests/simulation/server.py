"""The one store as a simulated server: the memory feed, which may stop, freeze, lose its newest writes or all."""

import asyncio
import copy
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from keyturn.contract.errors import FeedUnavailable
from keyturn.contract.events import SignedEvent
from keyturn.feed.memory import MemoryFeed
from tests.simulation.history import History

IMAGES_KEPT = 64  # Writes that a failover may lose, or a restore undo.
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

    def __init__(self, history: History, landed: Callable[[SignedEvent], None], *, keeps_images: bool) -> None:
        """Begin empty and running."""
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

    def take(self, event: SignedEvent) -> None:
        """Tell that an event has landed."""
        self._landed(event)

    def stop(self) -> None:
        """Answer nobody, and lose every subscription; what was written stays."""
        self.up = False
        self.store.cut()

    def start(self, *, as_it_was: int = 0) -> None:
        """Run again, as another run; without the newest `as_it_was` writes, of which nobody is told."""
        if as_it_was and self._images:
            back = min(as_it_was, len(self._images))
            image = self._images[-back]
            for _ in range(back):
                self._images.pop()
            self._become(image)
        self._run_anew()

    def start_empty(self) -> None:
        """Run again without anything."""
        empty = MemoryFeed()
        self._images.clear()
        self._become({name: value for name, value in vars(empty).items() if name not in _SUBSCRIPTIONS})
        self._run_anew()

    def thaw(self) -> None:
        """Carry out what has waited."""
        self.frozen = False
        while self._waiting and not self.frozen:
            self._waiting.popleft()()

    def _run_anew(self) -> None:
        self._runs += 1
        self.store.run = f"run-{self._runs}"
        self.up = True
        self.store.cut()

    def _image(self) -> dict[str, Any]:
        return copy.deepcopy({name: value for name, value in vars(self.store).items() if name not in _SUBSCRIPTIONS})

    def _become(self, image: dict[str, Any]) -> None:
        vars(self.store).update(image)


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
