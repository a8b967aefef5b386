"""What is asked after an append, of a server that answers as a test says."""

from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, ResponseError

from keyturn.contract.errors import Unconfirmed
from keyturn.contract.positions import Lane, Position
from keyturn.feed.assurance import KNOWN_AWAY_MS, REPLICA_MS, WORDS_KEPT, Assurance, Durability

PLACE = Position(1, 1, "hash")


class Server:
    """Answers WAIT and WAITAOF from a list, and notes the questions."""

    def __init__(self, *answers: Any) -> None:
        """Know the answers."""
        self.answers, self.asked = list(answers), list[tuple[Any, ...]]()

    async def execute_command(self, *words: Any) -> Any:
        """Answer the next question."""
        self.asked.append(words)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def assurance(usual: Durability, required: Durability, *, replicas: bool) -> Assurance:
    """Return one that was told what the server is."""
    made = Assurance()
    made.usual, made.required, made.replicas = usual, required, replicas
    return made


async def see_to(made: Assurance, server: Server, position: Position = PLACE) -> Durability | None:
    """See to an event; return what its receipt says."""
    await made.see_to(server, Lane.KEYS, position)  # type: ignore[arg-type]
    return made.of(Lane.KEYS, position.place)


def test_nothing_is_asked_of_a_server_alone_of_which_no_more_is_required() -> None:
    """An append costs what it did before."""
    assert not assurance(Durability.LOCAL, Durability.LOCAL, replicas=False).asks
    assert assurance(Durability.LOCAL, Durability.MEMORY, replicas=True).asks
    assert assurance(Durability.LOCAL, Durability.REPLICATED, replicas=False).asks


@pytest.mark.parametrize(
    "answer", [0, RedisConnectionError("lost"), NoPermissionError("no wait"), ResponseError("WAIT cannot be used")]
)
async def test_an_accepted_append_stays_accepted_whatever_the_question_meets(answer: Any) -> None:
    """The question comes after the fact: it can only say less of it."""
    made = assurance(Durability.LOCAL, Durability.MEMORY, replicas=True)
    assert await see_to(made, Server(answer)) is Durability.LOCAL


async def test_a_replica_that_is_away_is_asked_shortly_until_it_is_back() -> None:
    """Else each event would take half a second until the server gives the replica up, a minute later."""
    made, server = assurance(Durability.LOCAL, Durability.MEMORY, replicas=True), Server(0, 0, 1, 1)
    words = [await see_to(made, server) for _ in range(4)]
    assert words == [Durability.LOCAL, Durability.LOCAL, Durability.REPLICATED, Durability.REPLICATED]
    assert [asked[2] for asked in server.asked] == [REPLICA_MS, KNOWN_AWAY_MS, KNOWN_AWAY_MS, REPLICA_MS]


async def test_a_required_replica_is_asked_for_in_full_each_time_even_one_that_was_not_seen_yet() -> None:
    """The server is looked at every five seconds, and a replica may be back since."""
    made, server = assurance(Durability.LOCAL, Durability.REPLICATED, replicas=False), Server(0, 1)
    with pytest.raises(Unconfirmed, match="local and not replicated"):
        await see_to(made, server)
    assert await see_to(made, server) is Durability.REPLICATED
    assert [asked[2] for asked in server.asked] == [REPLICA_MS, REPLICA_MS]


@pytest.mark.parametrize("answer", [[0, 0], NoPermissionError("no waitaof")])
async def test_a_disk_that_has_not_written_is_not_said_to_have(answer: Any) -> None:
    """WAITAOF answers with how many have, here and elsewhere."""
    made = assurance(Durability.MEMORY, Durability.LOCAL, replicas=False)
    with pytest.raises(Unconfirmed, match="memory and not local"):
        await see_to(made, Server(answer))
    assert await see_to(made, Server([1, 0])) is Durability.LOCAL


async def test_only_the_last_words_are_kept() -> None:
    """A service runs for months."""
    made = assurance(Durability.LOCAL, Durability.MEMORY, replicas=True)
    for sequence in range(WORDS_KEPT + 1):
        await see_to(made, Server(1), Position(1, sequence, "hash"))
    assert made.of(Lane.KEYS, (1, 0)) is None
    assert made.of(Lane.KEYS, (1, 1)) is Durability.REPLICATED
