"""Sends one stream's Security Event Tokens to its receiver (RFC 8935): one after the other, until each is taken."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto
from typing import Final, NamedTuple

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector, hdrs

from keyturn import entropy
from keyturn.contract.encoding import decode_object
from keyturn.contract.errors import KeyturnError, MalformedInput, StoreUnavailable
from revocation.streams.addresses import PublicResolver
from revocation.streams.bell import Bell, rung_within
from revocation.streams.stream import LONGEST_WORD, Refusal, Signed, Stream
from serving.parts import Parts

STREAM_STALLED: Final = "stream_stalled"
STREAM_FLOWS: Final = "stream_flows"
ANSWER_SECONDS = 10.0
LARGEST_ANSWER_BYTES = 4096
MOST_SIGNED = 32  # Signed together, and sent one after the other.
TURN_SECONDS = 30.0  # A replica of the service that was silent for so long has lost its turn to push.
LEAVE_SECONDS = 1.0
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 300.0
LOOK_AGAIN_SECONDS = 1.0
_TAKEN, _BAD_REQUEST = 202, 400
# What is wrong with us or with our keys, and may be mended: the token itself is not at fault.
_MENDABLE = frozenset({"invalid_key", "authentication_failed", "access_denied"})


class Fate(Enum):
    """What became of a token that was sent."""

    TAKEN = auto()
    REFUSED = auto()
    LATER = auto()


class Outcome(NamedTuple):
    """A token's fate, and the receiver's word for it."""

    fate: Fate
    word: Refusal = Refusal("")


def judge(status: int, kind: str, body: bytes) -> Outcome:
    """Return what a receiver's answer means (RFC 8935, 2.2 and 2.3): only 202 is taken, only its own 400 is for good.

    What it says of our keys or of who we are is tried again: that can be mended, and the revocation must not be lost.
    """
    if status == _TAKEN:
        return Outcome(Fate.TAKEN)
    later = Outcome(Fate.LATER, Refusal(f"status_{status}"))
    if status != _BAD_REQUEST or kind != "application/json":
        return later
    try:
        members = decode_object(body)
    except MalformedInput:
        return later
    err, description = members.get("err"), members.get("description", "")
    if not isinstance(err, str) or not err or not isinstance(description, str):
        return later
    word = Refusal(err, description)
    return Outcome(Fate.LATER if err in _MENDABLE else Fate.REFUSED, word)


def pause_after(failures: int, jitter: Callable[[float, float], float] = entropy.jitter) -> float:
    """Return how long to wait after so many failures in a row: twice as long each time, half of it by chance."""
    longest = min(FIRST_PAUSE_SECONDS * 2 ** min(failures - 1, 30), LONGEST_PAUSE_SECONDS)
    return jitter(longest / 2, longest)


async def _start_of(answer: ClientResponse) -> bytes:
    body = bytearray()
    while len(body) < LARGEST_ANSWER_BYTES and (part := await answer.content.read(LARGEST_ANSWER_BYTES)):
        body += part
    return bytes(body[:LARGEST_ANSWER_BYTES])


class Courier:
    """Pushes one stream, while it is this replica's turn."""

    def __init__(self, stream: Stream, url: str, parts: Parts, *, bell: Bell) -> None:
        self.name = stream.name
        self._stream, self._url, self._parts, self._clock = stream, url, parts, parts.clock
        self._turn = entropy.uuid7(parts.clock.now())
        self._failures, self._bell = 0, bell

    async def run(self) -> None:
        """Push until cancelled."""
        resolver = None if self._stream.settings.private_addresses else PublicResolver()
        session = ClientSession(
            connector=TCPConnector(limit=1, resolver=resolver), cookie_jar=DummyCookieJar(), trust_env=False,
            timeout=ClientTimeout(total=ANSWER_SECONDS), auto_decompress=False,
        )  # fmt: skip
        async with session:
            try:
                while True:
                    rung = self._bell.listen()
                    pause = await self._round(session)
                    if pause is None:
                        await rung_within(rung, LOOK_AGAIN_SECONDS)
                    else:
                        await self._clock.sleep(pause)
            finally:
                await self._leave()

    async def _leave(self) -> None:
        """Let another replica go on at once; if the store does not hear it now, it goes on once our turn is over."""
        with suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS):
                await self._stream.store.leave_turn(self._turn)

    async def _round(self, session: ClientSession) -> float | None:
        """Push what there is, and return how long to wait before the next time; None: until there is more."""
        try:
            if not await self._stream.store.take_turn(self._turn, lasting_seconds=TURN_SECONDS):
                return LOOK_AGAIN_SECONDS
            waiting = await self._stream.open()
            if not waiting:
                return None
            trouble = await self._push(session, await self._stream.signed(waiting[:MOST_SIGNED]))
        except KeyturnError as error:  # The store, the feed or the signer is away.
            trouble = Refusal(error.code)
        if trouble is None:
            return 0.0
        return self._stall(trouble)

    async def _push(self, session: ClientSession, signed: list[Signed]) -> Refusal | None:
        """Send them in order; keep what became of those that were, and return why the first other one was not."""
        taken: list[str] = []
        refused: dict[str, Refusal] = {}
        trouble = None
        began = self._clock.boottime()
        for one in signed:
            if self._clock.boottime() - began > TURN_SECONDS - ANSWER_SECONDS - 1:
                break  # The turn would be over before the answer.
            fate, word = await self._send(session, one.token)
            if fate is Fate.LATER:
                trouble = word
                break
            if fate is Fate.TAKEN:
                taken.append(one.telling.jti)
            else:
                refused[one.telling.jti] = word
        if taken or refused:
            await self._stream.settle(taken, refused)
            self._flow()
        return trouble

    async def _send(self, session: ClientSession, token: str) -> Outcome:
        headers = {hdrs.CONTENT_TYPE: "application/secevent+jwt", hdrs.ACCEPT: "application/json"}
        authorization = self._stream.settings.authorization
        if authorization is not None:
            headers[hdrs.AUTHORIZATION] = f"Bearer {authorization.reveal_text()}"
        try:
            async with session.post(self._url, data=token.encode(), headers=headers, allow_redirects=False) as answer:
                return judge(answer.status, answer.content_type, await _start_of(answer))
        except (ClientError, OSError, ValueError) as error:  # A TimeoutError is an OSError.
            return Outcome(Fate.LATER, Refusal(type(error).__name__))

    def _stall(self, trouble: Refusal) -> float:
        self._failures += 1
        if self._failures == 1:
            self._parts.log.warning(
                STREAM_STALLED, stream=self._stream.name, reason=trouble.err[:LONGEST_WORD],
                description=trouble.description[:LONGEST_WORD],
            )  # fmt: skip
        return pause_after(self._failures)

    def _flow(self) -> None:
        if self._failures:
            self._parts.log.info(STREAM_FLOWS, stream=self._stream.name, failures=self._failures)
        self._failures = 0
