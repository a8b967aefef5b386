"""What a receiver asks when it polls (RFC 8936, 2.4), and how long it may wait for an answer."""

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple

from keyturn.contract.errors import MalformedInput
from revocation.streams.bell import Bell, rung_within
from revocation.streams.stream import MOST_AT_A_TIME, Refusal, Stream
from revocation.streams.telling import Telling

LONGEST_WAIT_SECONDS = 8.0  # Below the services' request timeout.
LOOK_AGAIN_SECONDS = 1.0  # A doorbell may be lost; then this is how late it gets.
MOST_WAITING = 4  # Polls of one stream that wait at a time; one more is answered at once.
MOST_NAMED = 1024  # In one `ack` or `setErrs`.
DEFAULT_MOST = 32
_MEMBERS = frozenset({"maxEvents", "returnImmediately", "ack", "setErrs"})


class Question(NamedTuple):
    """What the receiver asks for, and what it says of what it was told before."""

    most: int
    at_once: bool
    taken: tuple[str, ...]
    refused: Mapping[str, Refusal]


class Offer(NamedTuple):
    """What it is told next, and whether there is more."""

    tellings: tuple[Telling, ...]
    more: bool


def read_question(members: Mapping[str, Any]) -> Question:
    """Read the body of a poll; unknown members are ignored, as RFC 8936 leaves room for them.

    Raises MalformedInput.
    """
    most, at_once = members.get("maxEvents", DEFAULT_MOST), members.get("returnImmediately", False)
    taken, refused = members.get("ack", []), members.get("setErrs", {})
    if isinstance(most, bool) or not isinstance(most, int) or most < 0:
        raise MalformedInput("maxEvents is a whole number, 0 or more")
    if not isinstance(at_once, bool):
        raise MalformedInput("returnImmediately is true or false")
    if not isinstance(taken, list) or len(taken) > MOST_NAMED or not all(isinstance(one, str) for one in taken):
        raise MalformedInput(f"ack is a list of at most {MOST_NAMED} jti")
    if not isinstance(refused, dict) or len(refused) > MOST_NAMED:
        raise MalformedInput(f"setErrs has at most {MOST_NAMED} members, each by its jti")
    return Question(
        min(most, MOST_AT_A_TIME), at_once, tuple(taken), {jti: _refusal(why) for jti, why in refused.items()}
    )


def _refusal(members: object) -> Refusal:
    err = members.get("err") if isinstance(members, dict) else None
    description = members.get("description", "") if isinstance(members, dict) else ""
    if not isinstance(err, str) or not err or not isinstance(description, str):
        raise MalformedInput("a setErrs member has err and description")
    return Refusal(err, description)


class Waiters:
    """Those whose poll waits for a revocation of one stream."""

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self.waiting = 0

    async def offer(self, stream: Stream, question: Question) -> Offer:
        """Return what a poll is answered with, once there is something, or the time is up.

        Raises StoreUnavailable or FeedUnavailable.
        """
        if question.most == 0:  # RFC 8936, 2.4: only what it says of others is meant.
            return Offer((), more=False)
        rung = self._bell.listen()
        offer = await _offer(stream, question.most)
        if offer.tellings or question.at_once or self.waiting >= MOST_WAITING:
            return offer
        self.waiting += 1
        try:
            async with asyncio.timeout(LONGEST_WAIT_SECONDS):
                while not offer.tellings:
                    await rung_within(rung, LOOK_AGAIN_SECONDS)
                    rung = self._bell.listen()
                    offer = await _offer(stream, question.most)
        except TimeoutError:
            pass
        finally:
            self.waiting -= 1
        return offer


async def _offer(stream: Stream, most: int) -> Offer:
    waiting = await stream.open()
    return Offer(tuple(waiting[:most]), more=len(waiting) > most)
