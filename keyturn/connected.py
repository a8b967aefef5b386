"""The verifier as a Python library: connects, follows the feed in the background, and checks tokens in memory."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from keyturn.clock import Clock, SystemClock
from keyturn.contract.errors import ConfigurationError, FeedUnavailable, MalformedInput
from keyturn.contract.issuers import ForeignIssuer
from keyturn.contract.jwk import load_public
from keyturn.contract.tokens import as_bytes
from keyturn.feed.redis import RedisFeed
from keyturn.process.addresses import check_sentinels, check_store_url, name_in
from keyturn.process.issuers import check_issuers
from keyturn.process.redis import connect
from keyturn.process.sentinels import ASK_SECONDS, Guide
from keyturn.process.settings import is_loopback
from keyturn.verifier.follower import Follower, unnoted
from keyturn.verifier.freshness import Freshness, State
from keyturn.verifier.issuers import IssuerKeys
from keyturn.verifier.keysources import source_of
from keyturn.verifier.policy import Policy
from keyturn.verifier.replica import Replica
from keyturn.verifier.verifier import TokenVerifier

READY_WITHIN_SECONDS = 10.0
ISSUERS_WITHIN_SECONDS = 3.0  # For the first look at other issuers' keys; then it goes on in the background.
_NAME = "keyturn-verifier"


class Verifier:
    """Checks access tokens of one issuer against one policy; made by `connect`."""

    def __init__(self, verifier: TokenVerifier, policy: Policy, clock: Clock) -> None:
        self._verifier, self._policy, self._clock = verifier, policy, clock

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        redis_url: str,
        *,
        issuer: str,
        root: Path | str | Mapping[str, Any],
        audience: str = "",
        policy: Policy | None = None,
        freshness: Freshness | None = None,
        allow_dev: bool | None = None,
        sentinels: Sequence[str] = (),
        ca_file: Path | None = None,
        issuers: Sequence[ForeignIssuer] = (),
        ready_within_seconds: float = READY_WITHIN_SECONDS,
        note: Callable[..., None] = unnoted,
    ) -> AsyncIterator["Verifier"]:
        """Follow an issuer's feed for as long as the block lasts; entered once both lanes have been read.

        `root` is the pinned root's public JWK, or the path of its file. Give an `audience` or a whole `policy`. A
        development stack's trust document (`allow_dev`) is accepted by default only for an http issuer on loopback,
        which nothing but a development stack can be. `note(event, **facts)` hears what an operator should know.

        With `sentinels`, each HOST:PORT, the URL's host is the name by which they know the primary, without a port.
        `ca_file` holds the authorities of a `rediss://` URL. Tokens of `issuers` pass where a policy names them; one
        whose keys cannot be read does not hold up the others.

        Raises ConfigurationError for a root, issuer, policy or way to the store that cannot work, and FeedUnavailable
        if the feed could not be read within `ready_within_seconds`.
        """
        pinned = _root(root)
        check_issuers(issuers, own=issuer)
        policy = policy or Policy(audience=audience)
        clock, dev = SystemClock(), _only_for_development(issuer) if allow_dev is None else allow_dev
        guide = None if not sentinels else _guide(redis_url, sentinels, ca_file, clock)
        redis = connect(redis_url, client_name=_NAME, ca_file=ca_file, guide=guide)
        pubsub = connect(redis_url, client_name=_NAME, ca_file=ca_file, guide=guide, subscribing=True)
        replica = Replica(issuer=issuer, freshness=freshness or Freshness())
        follower = Follower(RedisFeed(redis, pubsub=pubsub), replica, clock, root=pinned, allow_dev=dev, note=note)
        following = asyncio.create_task(follower.run())
        try:
            try:
                async with asyncio.timeout(ready_within_seconds):
                    await follower.ready()
            except TimeoutError:
                raise FeedUnavailable(
                    f"the feed of {issuer} could not be read within {ready_within_seconds:g} s;"
                    " pass `note=print` to hear why"
                ) from None
            async with _keys_kept(issuers, clock, note) as keys:
                yield cls(TokenVerifier(replica, clock, issuers=keys), policy, clock)
        finally:
            following.cancel()
            await asyncio.wait({following})
            await redis.aclose()
            await pubsub.aclose()
            if guide is not None:
                await guide.close()

    @property
    def state(self) -> State:
        """Return how fresh the replica is."""
        replica = self._verifier.replica
        return replica.state(self._clock.now(), self._clock.boottime())

    def verify(self, token: str | bytes, policy: Policy | None = None) -> dict[str, Any]:
        """Return the claims of an active access token; reads nothing but memory.

        Raises InvalidToken (its `reason` is a stable word) for every other token, and ReplicaExpired where the feed
        has been silent for so long that nothing can be said: answer 503 then, not 401. IssuerKeysUnavailable is one of
        these: the keys of a token's issuer could not be read.
        """
        # A copy: whoever changes it must not change what the cache holds.
        return dict(self._verifier.claims(as_bytes(token), policy or self._policy))


@asynccontextmanager
async def _keys_kept(
    issuers: Sequence[ForeignIssuer], clock: Clock, note: Callable[..., None]
) -> AsyncIterator[list[IssuerKeys]]:
    """Keep the keys of other issuers current while the block lasts; entered once each was asked, or is slow."""
    kept = [IssuerKeys(one, source_of(one, clock), clock, note=note) for one in issuers]
    tasks = [asyncio.create_task(keys.run()) for keys in kept]
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(ISSUERS_WITHIN_SECONDS):
                await asyncio.gather(*(keys.renew() for keys in kept))
        yield kept
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _root(root: Path | str | Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        jwk = root if isinstance(root, Mapping) else json.loads(Path(root).read_bytes())
        members = {name: jwk[name] for name in ("kty", "crv", "x")}
        load_public(members, "EdDSA")
    except (OSError, ValueError, KeyError, TypeError, MalformedInput) as error:
        raise ConfigurationError(
            "this is not the public JWK of a root", setting="root", mend="pass the root.jwk that `keyturn init` made"
        ) from error
    return members


def _guide(redis_url: str, sentinels: Sequence[str], ca_file: Path | None, clock: Clock) -> Guide:
    """Ask these sentinels about the primary that the URL names; what else stands in it is for the store alone."""
    scheme, separator, rest = redis_url.partition("://")
    place = rest.rpartition("@")[2]
    bare = f"{scheme}{separator}{place}"
    check_store_url(bare, setting="redis_url", named=True)
    asked = [
        connect(
            f"{scheme}://{address}", client_name=_NAME, ca_file=ca_file, most_connections=1, answer_seconds=ASK_SECONDS
        )
        for address in check_sentinels(sentinels)
    ]
    return Guide(asked, name_in(bare), clock)


def _only_for_development(issuer: str) -> bool:
    parts = urlsplit(issuer)
    return parts.scheme == "http" and is_loopback(parts.hostname)
