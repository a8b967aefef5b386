"""When the last of many followers in a process holds an event, and what they read from the streams for it."""

from collections import Counter

from keyturn.clock import SystemClock
from keyturn.contract.positions import Lane
from keyturn.feed.redis import RedisFeed
from keyturn.verifier.follower import Follower
from keyturn.verifier.freshness import State

WAVE = 25
"""Followers that start at the same time: they share a CPU, and each must be answered before its patience ends."""


class CountingFeed(RedisFeed):
    """The feed, and how many events all that use it in this process have read from its streams."""

    entries = 0

    async def events(self, lane: Lane, *, epoch: int, after: int) -> list[bytes]:
        """Read events, and count them."""
        found = await super().events(lane, epoch=epoch, after=after)
        CountingFeed.entries += len(found)
        return found


class Adoption:
    """Tells, in one line each, when the last of so many followers holds an event of the revocations lane.

    A line is `SEQUENCE SECONDS ENTRIES FRESH`: which event, when (boot-time clock), how many events they have read
    from the streams so far, and how many of them are fresh.
    """

    def __init__(self, followers: int) -> None:
        self._followers: list[Follower] = []
        self._most = followers
        self._holders: Counter[int] = Counter()
        self._clock = SystemClock()

    def watch(self, follower: Follower) -> None:
        """Listen to the steps of a follower; what it holds by now counts as told."""
        self._followers.append(follower)
        held = follower.replica.place(Lane.REVOCATIONS)[1]

        def look() -> None:
            nonlocal held
            place = follower.replica.place(Lane.REVOCATIONS)[1]
            for sequence in range(held + 1, place + 1):
                self._holders[sequence] += 1
                if self._holders[sequence] == self._most:
                    del self._holders[sequence]
                    self._tell(sequence)
            held = max(held, place)

        follower.on_change.append(look)

    def _tell(self, sequence: int) -> None:
        now, boottime = self._clock.now(), self._clock.boottime()
        fresh = sum(one.replica.state(now, boottime) is State.FRESH for one in self._followers)
        print(sequence, boottime, CountingFeed.entries, fresh, flush=True)
