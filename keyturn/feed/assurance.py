"""How much an appended event would survive: asked of the server right after the append, on the same connection."""

from collections import OrderedDict
from enum import IntEnum

from redis.asyncio import Redis
from redis.exceptions import RedisError

from keyturn.contract.errors import Unconfirmed
from keyturn.contract.positions import Lane, Position

REPLICA_MS = 500  # For a replica to say that it holds the event.
KNOWN_AWAY_MS = 20  # The same, while replicas have not answered: an append must not pay for a dead one each time.
DISK_MS = 1_500  # For a server that writes its log to disk once a second; below the 2 s of an answer.
WORDS_KEPT = 4096


class Durability(IntEnum):
    """What an event would survive, the least first; `word` is how receipts say it."""

    MEMORY = 0
    """Nothing is known to be safe from the server's crash."""
    LOCAL = 1
    """It is on the server's own disk: a crash of the server does not lose it, a failover may."""
    REPLICATED = 2
    """A replica held it, too, when the append returned."""

    @property
    def word(self) -> str:
        """Return it as settings and receipts have it."""
        return self.name.lower()


class Assurance:
    """What is asked of the server after each append, and what it said of the last few thousand events.

    WAIT and WAITAOF speak of what their own connection has written, so they follow the append on its connection. An
    append that was accepted stays accepted whatever they say: the answer is only how durable it is, unless
    `required` asks for more.
    """

    def __init__(self) -> None:
        """Ask nothing until told what the server is."""
        self.required = Durability.MEMORY
        self.usual = Durability.MEMORY  # What an acknowledged write is without asking.
        self.replicas = False  # Whether any is connected.
        self._away = False
        self._words: OrderedDict[tuple[Lane, tuple[int, int]], Durability] = OrderedDict()

    @property
    def asks(self) -> bool:
        """Say whether an append has to be followed by a question."""
        return self.replicas or self.usual < self.required

    def of(self, lane: Lane, place: tuple[int, int]) -> Durability | None:
        """Return how durable an event of this process was when its append returned, None if that is not known."""
        return self._words.get((lane, place))

    async def see_to(self, connection: Redis, lane: Lane, position: Position) -> None:
        """Find out how durable an event is that `connection` has just written, and all before it.

        Raises Unconfirmed if that is less than required; the event stands all the same.
        """
        durability = self.usual
        # One may be back that was not there when the server was last looked at.
        asked = self.replicas or self.required is Durability.REPLICATED
        if asked and await self._is_replicated(connection):
            durability = Durability.REPLICATED
        elif durability < self.required is Durability.LOCAL and await _is_on_disk(connection):
            durability = Durability.LOCAL
        self._words[lane, position.place] = durability
        if len(self._words) > WORDS_KEPT:
            self._words.popitem(last=False)
        if durability < self.required:
            raise Unconfirmed(lane=str(lane), place=position.place, wanted=self.required.word, found=durability.word)

    async def _is_replicated(self, connection: Redis) -> bool:
        hurried = self._away and self.required < Durability.REPLICATED
        try:
            held = await connection.execute_command("WAIT", 1, KNOWN_AWAY_MS if hurried else REPLICA_MS)  # type: ignore[no-untyped-call]
        except (RedisError, OSError):  # It was demoted or lost, or its access list is from before we asked this.
            held = 0
        self._away = held < 1
        return not self._away


async def _is_on_disk(connection: Redis) -> bool:
    try:
        here, _ = await connection.execute_command("WAITAOF", 1, 0, DISK_MS)  # type: ignore[no-untyped-call]
    except (RedisError, OSError):
        return False
    return bool(here >= 1)
