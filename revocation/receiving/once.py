"""Remembers which events were carried out, so that one that comes again is recognised."""

from hashlib import sha256

from redis.asyncio import Redis

from keyturn.contract.encoding import b64url
from serving.storing import stored

PREFIX = "keyturn:received:"


class Received:
    """The `jti` of events by their issuer, in the store, each for a while; raises StoreUnavailable if it cannot say."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def has(self, iss: str, jti: str) -> bool:
        """Say whether an event was carried out before."""
        with stored():
            return await self._redis.get(_name(iss, jti)) is not None

    async def add(self, iss: str, jti: str, *, lasting_seconds: float) -> bool:
        """Remember an event; False if it was there already."""
        with stored():
            return bool(await self._redis.set(_name(iss, jti), b"1", px=int(lasting_seconds * 1000), nx=True))


def _name(iss: str, jti: str) -> str:
    text = f"{iss}\0{jti}".encode("utf-8", "surrogatepass")
    return PREFIX + b64url(sha256(text).digest())
