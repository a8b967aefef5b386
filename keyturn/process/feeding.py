"""`[feed]`: what publishers do with the feed beside publishing it."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

from keyturn.contract.errors import ConfigurationError
from keyturn.process.settings import Section, is_loopback


@dataclass(frozen=True, kw_only=True, slots=True)
class FeedSettings(Section):
    """`[feed]`."""

    SECTION: ClassVar[str] = "feed"
    archive: Path | None = None
    """A directory for events that the store is about to forget; None: they are forgotten."""
    snapshots: str | None = None
    """The origin of a key service, or a cache before it, that a sidecar reads snapshots from; None: from the store."""

    def __post_init__(self) -> None:
        """Refuse what is no origin, and one that travels in the clear: whoever answers slowly could hold a start up."""
        if self.snapshots is None:
            return
        try:
            parts = urlsplit(self.snapshots)
            secure = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))
            well = secure and bool(parts.hostname) and parts.port != 0
        except ValueError:
            well = False
        if not well or set(self.snapshots) & set("?#@ ") or self.snapshots.endswith("/"):
            raise ConfigurationError(
                "this is not an origin", setting="feed.snapshots",
                mend="write the issuer's https URL without a trailing slash (http on loopback only)",
            )  # fmt: skip
