"""Whether the store that a process was pointed at is its issuer's: its trust document tells, by the pinned root."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from keyturn import entropy
from keyturn.clock import Clock
from keyturn.contract.errors import ConfigurationError, FeedUnavailable, ForgedSignature, TrustError, TrustExpired
from keyturn.contract.trust import Trust, open_trust
from keyturn.feed.log import Feed

_LONGEST_PAUSE_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Pinned:
    """What a process holds a trust document against."""

    issuer: str
    root: Mapping[str, Any]
    allow_dev: bool


def require_ours(compact: bytes, pinned: Pinned) -> Trust:
    """Return the document; raise ConfigurationError if it is not one that this process can live by, and say why.

    That it has not expired, the caller sees to.
    """
    try:
        trust = open_trust(compact, root=pinned.root, allow_dev=True)
    except ForgedSignature as error:
        raise ConfigurationError(
            "the store's trust document is not signed by this root", setting="trust.root",
            mend="name the root.jwk that was made with the rest, or the store that belongs to it",
        ) from error  # fmt: skip
    except TrustError as error:
        raise ConfigurationError(
            str(error), setting="trust.root", mend="upgrade, or use the store that fits"
        ) from error
    document = trust.document
    if document.dev and not pinned.allow_dev:
        raise ConfigurationError(
            "the store's trust document was made by the development stack, and is not for production",
            setting="trust.allow_dev", mend="provision with `keyturn init`, or set it on a developer's machine",
        )  # fmt: skip
    if document.issuer != pinned.issuer:
        raise ConfigurationError(
            f"the store belongs to issuer {document.issuer}, not {pinned.issuer}",
            setting="issuer.url", mend="name that issuer, byte for byte, or the store of ours",
        )  # fmt: skip
    return trust


async def until_ours(
    store: Feed, pinned: Pinned, clock: Clock, *, trouble: Callable[[str | None], None] = lambda _: None
) -> Trust:
    """Look for the store's trust document until there is one in force; raises ConfigurationError if it is not for us.

    Who pinned another root would otherwise wait for good, and nobody would know why. A store that cannot be reached
    yet, has no document yet, or one that has expired, is waited for, and `trouble` hears the reason.
    """
    while True:
        try:
            compact = await store.trust()
            trouble(None)
            if compact is not None:
                trust = require_ours(compact, pinned)
                trust.check_time(clock.now())
                return trust
        except (FeedUnavailable, TrustExpired) as error:
            trouble(str(error))
        await clock.sleep(entropy.jitter(_LONGEST_PAUSE_SECONDS / 4, _LONGEST_PAUSE_SECONDS))
