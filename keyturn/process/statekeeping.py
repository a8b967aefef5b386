"""Where a process keeps what it believes of the feed, as `[state]` says."""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from keyturn.clock import Clock
from keyturn.contract.errors import ConfigurationError
from keyturn.feed.log import Feed
from keyturn.process.belonging import Pinned
from keyturn.process.metrics import Metrics
from keyturn.process.settings import Section, Settings
from keyturn.verifier.follower import Follower
from keyturn.verifier.keeping import Keeper
from keyturn.verifier.statefiles import StateDirectory


@dataclass(frozen=True, kw_only=True, slots=True)
class StateSettings(Section):
    """`[state]`: where a process keeps what it believes of the feed."""

    SECTION: ClassVar[str] = "state"
    directory: Path | None = None
    """Each process has a directory of its own in it, by its user's name; None where nothing is kept."""


def keep_state(
    stack: AsyncExitStack, settings: Settings, user: str, follower: Follower, feed: Feed, *, pinned: Pinned,
    clock: Clock, note: Callable[..., None],
) -> Keeper | None:  # fmt: skip
    """Begin with what that user's state directory holds, and return what keeps it current; None where none is named.

    Raises ConfigurationError where the directory cannot be had.
    """
    directory = settings.section(StateSettings).directory
    if directory is None:
        return None
    files = stack.enter_context(StateDirectory(directory / user))
    keeper = Keeper(files, follower.replica, feed, clock, note=note)
    try:
        keeper.restore(root=pinned.root, allow_dev=pinned.allow_dev)
    except OSError as error:
        raise ConfigurationError(
            f"{error.filename or files.path} cannot be read: {error.strerror}", setting="state.directory",
            mend="give the process its own directory back, or move what is in the way; then it reads the feed",
        ) from error  # fmt: skip
    return keeper


def export_keeping(metrics: Metrics, keepers: Callable[[], Sequence[Keeper | None]]) -> None:
    """Export whether a process's state directory is behind what it believes."""
    metrics.read_gauge(
        "keyturn_state_directory_behind", "1 while the state directory lacks what is believed; 0 where none is kept.",
        lambda: float(any(keeper is not None and keeper.trouble is not None for keeper in keepers())),
    )  # fmt: skip
