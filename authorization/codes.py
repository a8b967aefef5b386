"""Authorization codes (RFC 6749, 4.1.2): one for each finished sign-in, consumed once, remembered after that."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple, cast

import msgspec
from redis.asyncio import Redis

from authorization.grants import Grant
from authorization.logins import Login
from keyturn import entropy
from keyturn.contract.credentials import RANDOM_BYTES, CredentialKind, credential_kind, make_credential
from keyturn.contract.positions import Lane, Position
from keyturn.feed.redis import head_key
from serving.endings import ENDINGS_KEY, MOST_ENDINGS
from serving.problems import Busy
from serving.records import Positions, RecordStore
from serving.storing import stored

PREFIX: Final = "keyturn:code:"
USED_PREFIX: Final = "keyturn:used-code:"
CODE_SECONDS: Final = 60.0
_USED_LONGER_MS: Final = 60_000  # Than the code's record: who finds that one finds that it was used.

# What a sign-in page said becomes a code, or nothing, once. Keys: the code, then all names that it may stand under.
_FINISH = """
if redis.call('DEL', unpack(KEYS, 2)) == 0 then return 0 end
if ARGV[1] ~= '' then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
return 1
"""
# Where a code comes again, all that came of it has to end, which is written down in the same step, and once. Nothing is
# consumed while the lane stands elsewhere than where the grant was judged. Keys: code, its mark, the lane, endings.
_CONSUME = """
if redis.call('EXISTS', KEYS[1]) == 0 then return {'gone'} end
local used = redis.call('GET', KEYS[2])
if used == 'once' then
  if redis.call('XLEN', KEYS[4]) >= tonumber(ARGV[6]) then return {'full'} end
  redis.call('XADD', KEYS[4], '*', 'ending', ARGV[5])
  redis.call('SET', KEYS[2], 'again', 'KEEPTTL')
  return {'reused'}
end
if used then return {'used'} end
if ARGV[2] == '0' then return {'expired'} end
local position = redis.call('HGET', KEYS[3], 'position')
if position ~= ARGV[1] then return {'behind', position or ''} end
if ARGV[2] == '1' then return {'good'} end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('SET', KEYS[2], 'once', 'PX', ARGV[4])
return {'consumed'}
"""


class Code(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a code stands for, and whom it is bound to."""

    client_id: str
    redirect_uri: str
    code_challenge: str
    grant: Grant
    until: float


class Held(NamedTuple):
    """A code as it was read: what it says, None where nothing does; its name; where the lanes stood then."""

    code: Code | None
    name: str
    positions: Positions


class Step(StrEnum):
    """What the store says to who would consume a code."""

    GONE = "gone"
    REUSED = "reused"  # For the first time: what came of it is written down to end.
    USED = "used"
    FULL = "full"  # No ending is written down before some are dealt with.
    EXPIRED = "expired"
    BEHIND = "behind"  # The lane stands elsewhere by now: the grant has to be judged again.
    GOOD = "good"
    CONSUMED = "consumed"


class Codes:
    """Codes on Redis; every method raises StoreUnavailable when the store cannot say."""

    def __init__(self, redis: Redis, records: RecordStore) -> None:
        """Keep codes in `records`, which are under our prefix."""
        self._records = records
        self._finish, self._consume = redis.register_script(_FINISH), redis.register_script(_CONSUME)

    async def make(self, login: Login, grant: Grant, *, now: float, instead_of: tuple[str, ...]) -> str | None:
        """Return a new code for a sign-in, in place of the record of its outcome; None if somebody was first."""
        code = make_credential(CredentialKind.CODE, entropy.token_bytes(RANDOM_BYTES))
        until = now + CODE_SECONDS
        content = Code(
            client_id=login.client_id, redirect_uri=login.redirect_uri, code_challenge=login.code_challenge,
            grant=grant, until=until,
        )  # fmt: skip
        sealed = self._records.sealed(code, msgspec.to_builtins(content))
        arguments: list[bytes | int] = [sealed.box, self._records.lasting_ms(until)]
        with stored():
            done = await cast("Any", self._finish(keys=[sealed.name, *instead_of], args=arguments))
        return code if done == 1 else None

    async def end(self, *, names: tuple[str, ...]) -> bool:
        """Take the record of an outcome that no code comes of away; False if somebody was first."""
        with stored():
            done = await cast("Any", self._finish(keys=[names[0], *names], args=["", 0]))
        return bool(done == 1)

    async def read(self, code: str) -> Held:
        """Return a code, used or not; that it is still good, `step` tells."""
        if credential_kind(code) is not CredentialKind.CODE:
            return Held(None, "", {})
        found = await self._records.find(code)
        try:
            content = None if found.record is None else msgspec.convert(found.record, type=Code)
        except msgspec.ValidationError:
            content = None
        return Held(content, found.name, found.positions)

    async def consume(
        self, held: Held, *, now: float, judged_at: Position | None, ending: bytes, keep_until: float | None
    ) -> tuple[Step, Mapping[Lane, bytes]]:
        """Consume a code that is good, while the revocations lane stands where its grant was judged.

        That it was used is remembered until `keep_until` (Unix seconds); without that it is only looked at, and GOOD is
        one that would be consumed. A code that comes again has an `ending` (sealed) written down. Returns what came of
        it, and for BEHIND where the lane stands. Raises Busy where too many endings wait.
        """
        in_time = held.code is not None and now < held.code.until
        keep_ms = 0 if keep_until is None else self._records.lasting_ms(keep_until)
        wanted = 0 if not in_time else 1 if keep_until is None else 2
        keys = [held.name, USED_PREFIX + held.name.removeprefix(PREFIX), head_key(Lane.REVOCATIONS), ENDINGS_KEY]
        arguments = [str(judged_at), wanted, keep_ms, keep_ms + _USED_LONGER_MS, ending, MOST_ENDINGS]
        with stored():
            answer = await cast("Any", self._consume)(keys=keys, args=arguments)
        step = Step(answer[0].decode("ascii"))
        if step is Step.FULL:
            raise Busy("too many grants wait for their end")
        return step, {Lane.REVOCATIONS: answer[1]} if step is Step.BEHIND else {}
