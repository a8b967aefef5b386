"""Families of refresh tokens: all that came of one grant, one after another; only the newest of them is good.

A refresh token is a family's secret and one of its own. A family is one sealed box, found by a keyed hash of its
secret: it says which token is the newest, and the box is only ever replaced by one script that compares it with what
was read. So a family takes the same room after ten thousand turns, no token stands in the store, and whoever presents
a used one names its family, however old it is.
"""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from itertools import islice
from typing import Any, Final, NamedTuple, cast

import msgspec
from redis.asyncio import Redis

from keyturn.contract.credentials import RANDOM_BYTES, CredentialKind, credential_kind, make_credential
from keyturn.contract.encoding import b64url, encode_json, unb64url
from keyturn.contract.errors import StoreUnavailable
from keyturn.contract.positions import Lane, Position
from keyturn.contract.selectors import grant_moment
from keyturn.feed.redis import head_key
from keyturn.process.logging import logger
from serving.endings import ENDINGS_KEY, MOST_ENDINGS
from serving.gathering import Gathering
from serving.problems import Busy
from serving.records import Positions, RecordKeys, Renew
from serving.sealing import Sealer
from serving.storing import listed, stored

PREFIX: Final = "keyturn:family:"
TOKEN_USE, REFRESH = "token_use", "refresh"
FAMILY_UNREADABLE: Final = "family_unreadable"
_PURPOSE: Final = b"keyturn refresh token family"
_FAMILY_BYTES: Final = 16  # Of a token's 32 random ones; the others are its own.
_MOST_READ_TOGETHER: Final = 256

# Keys: family, head of the revocations lane, endings. A family is replaced only where the lane still stands where the
# grant was judged, and the family is as it was read; the ending of a grant is written down in the same step.
_SWAP = """
local position = redis.call('HGET', KEYS[2], 'position')
if position ~= ARGV[1] then return {'behind', position or ''} end
if redis.call('GET', KEYS[1]) ~= ARGV[2] then return {'changed'} end
if ARGV[5] ~= '' then
  if redis.call('XLEN', KEYS[3]) >= tonumber(ARGV[6]) then return {'full'} end
  redis.call('XADD', KEYS[3], '*', 'ending', ARGV[5])
end
redis.call('SET', KEYS[1], ARGV[3], 'PXAT', ARGV[4])
return {'done'}
"""


class Family(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of a family; moments are Unix seconds."""

    claims: dict[str, Any]
    """Those of the grant."""
    ends_at: float
    current: str
    """The mark of the one token that is good."""
    made_at: float
    expires_at: float
    """Of that token: not used until then, it is not good any more."""
    previous: str = ""
    """The mark of the token that the current one was given for."""
    salt: str = ""
    """What the current one was made of, together with the previous one."""
    turned_at: float = 0.0
    """When that was, by the store's clock."""
    ended: bool = False

    def is_current(self, token: str) -> bool:
        """Say whether this token is the one that is good, as far as the family says."""
        return hmac.compare_digest(mark_of(token), self.current)

    def is_previous(self, token: str) -> bool:
        """Say whether the current token was given for this one."""
        return hmac.compare_digest(mark_of(token), self.previous)

    def token_claims(self, *, life_seconds: float) -> dict[str, Any]:
        """Return the claims of the token that is good; none of them is a `jti`: it is revoked by its grant.

        It ends with a grant that lasts for at most `life_seconds`.
        """
        expires_at = min(self.expires_at, end_of(self, life_seconds=life_seconds))
        times = {"iat": int(self.made_at), "exp": int(expires_at)}
        return {**self.claims, **times, TOKEN_USE: REFRESH}


_FAMILY: Final = msgspec.json.Decoder(Family)


@dataclass(frozen=True, slots=True)
class Held:
    """A family as it was read: what it says, its name, and its box, which the next one has to replace."""

    family: Family
    name: str
    box: bytes


class FamilyReading(NamedTuple):
    """A family, None where there is none; where the lanes stood once it had been read; the store's time (Unix s)."""

    held: Held | None
    positions: Positions
    store_now: float


class Swap(StrEnum):
    """What came of replacing a family."""

    DONE = "done"
    CHANGED = "changed"  # Somebody else was first.
    BEHIND = "behind"  # The lane stands elsewhere by now: the grant has to be judged again.
    FULL = "full"  # No ending is written down before some are dealt with.


class FamilyPage(NamedTuple):
    """Some of all families: where the next ones begin (0 at the end), how many names there were, and what opened."""

    following: int
    names: int
    families: list[tuple[str, Family]]


class Families:
    """Families on Redis, by their tokens; every method raises StoreUnavailable when the store cannot say."""

    def __init__(self, redis: Redis, keys: RecordKeys, *, renew: Renew = lambda: None) -> None:
        self._redis = redis
        self._sealer = Sealer(keys, purpose=_PURPOSE, renew=renew)
        self._reads = Gathering(self._read_all, most_together=_MOST_READ_TOGETHER)
        self._swap = redis.register_script(_SWAP)

    async def begin(self, token: str, family: Family, *, keep_seconds: float) -> None:
        """Keep a new family by its first token, for `keep_seconds` after its end."""
        self._sealer.look_for_keys()
        name = self._names(token)[0]
        with stored():
            made = await self._redis.set(name, self._sealed(name, family), nx=True, pxat=_end(family, keep_seconds))
        if not made:
            raise StoreUnavailable("a family stands under the name of a new one")

    async def read(self, token: str) -> FamilyReading:
        """Return a refresh token's family, whichever of its tokens this is, in one round trip that others may share."""
        reading = await self._read(token)
        return await self._read(token) if reading.held is None and self._sealer.look_for_keys() else reading

    async def swap(
        self, held: Held, family: Family, *, judged_at: Position | None, keep_seconds: float, ending: bytes = b""
    ) -> tuple[Swap, Mapping[Lane, bytes]]:
        """Replace a family that is as it was read, while the revocations lane stands where its grant was judged.

        An `ending`, sealed, is written down for revocation in the same step. Returns what came of it, and for BEHIND
        where the lane stands. Raises Busy where too many endings wait.
        """
        keys = [held.name, head_key(Lane.REVOCATIONS), ENDINGS_KEY]
        end = _end(family, keep_seconds)
        arguments: list[str | bytes | int] = [str(judged_at), held.box, self._sealed(held.name, family), end, ending]
        with stored():
            answer = await cast("Any", self._swap(keys=keys, args=[*arguments, MOST_ENDINGS]))
        outcome = Swap(answer[0].decode("ascii"))
        if outcome is Swap.FULL:
            raise Busy("too many grants wait for their end")
        return outcome, {Lane.REVOCATIONS: answer[1]} if outcome is Swap.BEHIND else {}

    async def page(self, cursor: int) -> FamilyPage:
        """Return some of all families, from a cursor on, as `RecordStore.page` does."""
        some = await listed(self._redis, PREFIX, cursor)
        opened = ((name, self._opened(name, box)) for name, box in some.boxes)
        return FamilyPage(some.following, some.names, [(name, one) for name, one in opened if one is not None])

    async def _read(self, token: str) -> FamilyReading:
        names = self._names(token)
        boxes, positions, store_now = await self._reads.ask(names)
        for name, box in zip(names, boxes, strict=True):
            if box is None:
                continue
            family = self._opened(name, box)
            if family is not None:
                return FamilyReading(Held(family, name, box), positions, store_now)
            logger("families").error(FAMILY_UNREADABLE)
        return FamilyReading(None, positions, store_now)

    async def _read_all(self, asked: Sequence[tuple[str, ...]]) -> list[tuple[list[bytes | None], Positions, float]]:
        # The positions are read last: what was revoked before a family was read lies behind them.
        with stored():
            pipeline = self._redis.pipeline(transaction=False)
            for names in asked:
                for name in names:
                    pipeline.get(name)
            pipeline.time()
            for lane in Lane:
                pipeline.hget(head_key(lane), "position")
            answers = await pipeline.execute()
        *boxes, (whole_seconds, microseconds), keys, revocations = answers
        positions = {Lane.KEYS: keys, Lane.REVOCATIONS: revocations}
        found, now = iter(boxes), whole_seconds + microseconds / 1e6
        return [(list(islice(found, len(names))), positions, now) for names in asked]

    def _names(self, token: str) -> tuple[str, ...]:
        return self._sealer.names(PREFIX, _random_of(token)[:_FAMILY_BYTES])

    def _sealed(self, name: str, family: Family) -> bytes:
        return self._sealer.seal(encode_json(family), beside=name.encode("ascii"))

    def _opened(self, name: str, box: bytes) -> Family | None:
        content = self._sealer.open(box, beside=name.encode("utf-8"))
        try:
            return None if content is None else _FAMILY.decode(content)
        except msgspec.DecodeError:  # Of another version, which had other things to say.
            return None


def end_of(family: Family, *, life_seconds: float) -> float:
    """Return when a grant ends (Unix seconds): as it was promised, and not later than grants made today would."""
    begun = grant_moment(family.claims.get("grant_id"))
    return family.ends_at if begun is None else min(family.ends_at, begun + life_seconds)


def mark_of(token: str) -> str:
    """Return how a family knows a token: its SHA-256, since a token has 256 random bits that nobody can search."""
    return b64url(sha256(b"keyturn refresh token\0" + token.encode("ascii")).digest())


def successor_of(token: str, salt: str) -> str:
    """Return the token that comes after one: of the same family, and the same one whenever it is made of that salt."""
    own = hmac.digest(unb64url(salt), token.encode("ascii"), sha256)[: RANDOM_BYTES - _FAMILY_BYTES]
    return make_credential(CredentialKind.REFRESH, _random_of(token)[:_FAMILY_BYTES] + own)


def is_refresh_token(token: str) -> bool:
    """Say whether this has the form of a refresh token; only such a one may be asked about here."""
    return credential_kind(token) is CredentialKind.REFRESH


def _random_of(token: str) -> bytes:
    return unb64url(token.removeprefix(CredentialKind.REFRESH))[:RANDOM_BYTES]


def _end(family: Family, keep_seconds: float) -> int:
    return int((family.ends_at + keep_seconds) * 1000)
