"""`[feed]`: what publishers do with the feed beside publishing it."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from keyturn.process.settings import Section


@dataclass(frozen=True, kw_only=True, slots=True)
class FeedSettings(Section):
    """`[feed]`."""

    SECTION: ClassVar[str] = "feed"
    archive: Path | None = None
    """A directory for events that the store is about to forget; None: they are forgotten."""
