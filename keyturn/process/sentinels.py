"""Where the primary is, or a replica to read from, as Sentinel tells it: a failover moves every connection."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from keyturn import entropy
from keyturn.clock import Clock
from keyturn.process.connections import Address, Guided

ASK_SECONDS = 0.5  # For all sentinels together, which are asked at the same time.
ANSWER_LASTS_SECONDS = 0.2  # So that connections made together ask once.
LOOK_AGAIN_SECONDS = 2.0  # How old an answer may be while commands are sent.
_DOWN = frozenset({"s_down", "o_down", "disconnected"})


@dataclass(frozen=True, slots=True)
class Told:
    """What one sentinel says: where the primary is since which failover, and which replicas follow it well."""

    primary: Address
    epoch: int
    replicas: tuple[Address, ...] = ()


def believed(answers: Sequence[Told]) -> Told | None:
    """Return the answer to go by: that of the latest failover, which a sentinel that was cut off has not heard of."""
    return max(answers, key=lambda told: told.epoch, default=None)


def chosen_replica(told: Told, held: Address | None, avoided: Address | None, share: float) -> Address:
    """Return where to read: the replica that is held if it is well, else one of the others, else the primary.

    `share`, from 0 to 1, picks among them, so that followers spread.
    """
    good = [one for one in told.replicas if one != avoided]
    if held in good:
        return held
    return good[min(int(share * len(good)), len(good) - 1)] if good else told.primary


def read_answer(primary: Address, facts: Mapping[str, str], replicas: Sequence[Mapping[str, str]]) -> Told:
    """Read what SENTINEL MASTER and SENTINEL REPLICAS say beside a primary's address.

    The address comes from GET-MASTER-ADDR-BY-NAME: in the midst of a failover MASTER still names the old one. Raises
    KeyError or ValueError for what is no such answer.
    """
    well = [
        row
        for row in replicas
        if not _DOWN & set(row["flags"].split(",")) and row.get("master-link-status", "ok") == "ok"
    ]
    addresses = sorted((row["ip"], int(row["port"])) for row in well)
    return Told(primary, int(facts["config-epoch"]), tuple(one for one in addresses if one != primary))


class Guide:
    """Leads a process's connections to the primary that the sentinels name, or to one of its replicas.

    Each new connection asks, and each command sees to it that somebody has asked within the last 2 s. When the
    answer changes, connections to anywhere else are broken off: nobody is to write to, or hear, a server of the past.
    """

    def __init__(self, sentinels: Sequence[Redis], name: str, clock: Clock, *, replicas: bool = False) -> None:
        """Ask these sentinels about the primary that they know by this name."""
        self._sentinels, self._name, self._clock, self._replicas = sentinels, name, clock, replicas
        self._held: Address | None = None
        self._avoided: Address | None = None
        self._asked_at = self._tried_at = float("-inf")
        self._flight: asyncio.Task[Address] | None = None
        self._standing: WeakSet[Guided] = WeakSet()

    async def address(self) -> Address:
        """Say where to connect now; raises redis' ConnectionError if no sentinel can tell."""
        if self._held is not None and self._clock.boottime() - self._asked_at < ANSWER_LASTS_SECONDS:
            return self._held
        return await asyncio.shield(self._ask())

    def look_again(self) -> None:
        """See to it, in the background, that the answer is not older than 2 s."""
        if self._clock.boottime() - max(self._asked_at, self._tried_at) >= LOOK_AGAIN_SECONDS:
            self._ask()

    def arrived(self, connection: Guided) -> None:
        """Remember a connection; one that was on its way when the answer changed is given up at once."""
        self._standing.add(connection)
        if connection.address != self._held:
            connection.give_up()

    def failed(self, address: Address) -> None:
        """Ask anew before the next connection, and take another replica then if there is one."""
        self._asked_at = float("-inf")
        self._avoided = address

    async def close(self) -> None:
        """Ask no more."""
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.gather(self._flight, return_exceptions=True)
        for sentinel in self._sentinels:
            await sentinel.aclose()

    def _ask(self) -> "asyncio.Task[Address]":
        """Return the one question that is under way."""
        if self._flight is None or self._flight.done():
            self._flight = asyncio.ensure_future(self._find())
            self._flight.add_done_callback(_heard)
        return self._flight

    async def _find(self) -> Address:
        asked_at = self._tried_at = self._clock.boottime()
        told = believed(await self._answers())
        if told is None:
            raise RedisConnectionError(f"no sentinel that answers knows a primary by the name {self._name}")
        found = told.primary
        if self._replicas:
            found = chosen_replica(told, self._held, self._avoided, entropy.jitter(0.0, 1.0))
        self._asked_at, self._avoided = asked_at, None
        if found != self._held:
            self._held = found
            for connection in list(self._standing):
                if connection.address != found:
                    connection.give_up()
        return found

    async def _answers(self) -> list[Told]:
        asking = [asyncio.ensure_future(self._answer(sentinel)) for sentinel in self._sentinels]
        try:
            done, _ = await asyncio.wait(asking, timeout=ASK_SECONDS)
            return [one.result() for one in done if one.exception() is None]
        finally:
            for one in asking:
                one.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

    async def _answer(self, sentinel: Redis) -> Told:
        """Ask one sentinel; whatever is wrong with it or its answer makes it one that does not answer."""
        try:
            asked = sentinel.pipeline(transaction=False)
            for about in ("GET-MASTER-ADDR-BY-NAME", "MASTER", "REPLICAS"):
                asked.execute_command("SENTINEL", about, self._name)
            (host, port), primary, replicas = await asked.execute()
            facts, rows = _pairs(primary), [_pairs(row) for row in replicas]
            return read_answer((host.decode(), int(port)), facts, rows)
        except (RedisError, OSError, LookupError, ValueError, TypeError, AttributeError) as error:
            raise RedisConnectionError(f"a sentinel did not answer: {type(error).__name__}") from error


def _pairs(flat: Any) -> dict[str, str]:
    words = [word.decode("utf-8", "replace") for word in flat]
    return dict(zip(words[::2], words[1::2], strict=True))


def _heard(task: "asyncio.Task[Address]") -> None:
    """Take note of a failure that perhaps nobody waits for."""
    if not task.cancelled():
        task.exception()
