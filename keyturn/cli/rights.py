"""What each user of the store must be able to do and must not, and questions that find out without doing harm."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, ResponseError

from keyturn.contract.positions import Lane
from keyturn.feed.redis import PRESENCE, SEALED_KEY, head_key

Question: TypeAlias = tuple[str, ...]

# The server looks at the access list before it looks at a command's options. So each of these is refused by the list,
# or comes to nothing whatever it holds: no stream is made, no value that runs out at once is stored.
_NOBODY = "doctor"
_READ_FEED: Question = ("HGET", head_key(Lane.KEYS), "position")
_READ_SEALED: Question = ("HGET", SEALED_KEY, _NOBODY)
_READ_RECORD: Question = ("GET", f"keyturn:record:{_NOBODY}")
_WRITE_RECORD: Question = ("SET", f"keyturn:record:{_NOBODY}", "", "EX", "0")
_LIST_RECORDS: Question = ("SCAN", "0", "COUNT", "1")
_KEEP_CODE: Question = ("SET", f"keyturn:code:{_NOBODY}", "", "EX", "0")
_SPEND_ASSERTION: Question = ("SET", f"keyturn:assertion:{_NOBODY}", "", "EX", "0")
_PLACE_TOKEN: Question = ("XADD", f"keyturn:statuslists:{_NOBODY}", "NOMKSTREAM", "*", "list", "")
_READ_PLACES: Question = ("XRANGE", "keyturn:statuslists:rows", "-", "+", "COUNT", "1")
_READ_FAMILY: Question = ("GET", f"keyturn:family:{_NOBODY}")
_WRITE_FAMILY: Question = ("SET", f"keyturn:family:{_NOBODY}", "", "EX", "0")
_WRITE_ENDING: Question = ("XADD", "keyturn:endings", "NOMKSTREAM", "0-0", "ending", "")  # No entry may have that id.
_READ_ENDINGS: Question = ("XREAD", "COUNT", "1", "STREAMS", "keyturn:endings", "0")
_SEE_QUEUE: Question = ("EXISTS", f"arq:{_NOBODY}")


def _write(lane: Lane) -> Question:
    return ("XADD", f"keyturn:{lane}:{_NOBODY}", "NOMKSTREAM", "*", "event", "")


def _report(verifier: str) -> Question:
    return ("SET", PRESENCE + verifier, "", "EX", "0")


@dataclass(frozen=True, slots=True)
class Right:
    """Something that a user must be able to do, or must not."""

    words: str
    question: Question
    must: bool


_FEED = ("read the feed", _READ_FEED)
_KEYS, _REVOCATIONS = ((f"write lane {lane}", _write(lane)) for lane in Lane)
_SEALED = ("read sealed keys", _READ_SEALED)
_ASSERTIONS = ("note that a client's assertion was used", _SPEND_ASSERTION)
_PLACES = ("write which token stands in a status list", _PLACE_TOKEN)
_READ_RECORDS = ("read token records", _READ_RECORD)
_CODES = ("keep authorization codes", _KEEP_CODE)
_FAMILIES = ("read families of refresh tokens", _READ_FAMILY)
_TURNS = ("write families of refresh tokens", _WRITE_FAMILY)
_ENDS = ("write down which grants have to end", _WRITE_ENDING)
_OTHERS_PRESENCE = ("report as another verifier", _report(f"not-{_NOBODY}"))

_RIGHTS: dict[str, tuple[tuple[tuple[str, Question], ...], tuple[tuple[str, Question], ...]]] = {
    "authorization": (
        (
            _FEED,
            _ASSERTIONS,
            _READ_RECORDS,
            ("write token records", _WRITE_RECORD),
            _PLACES,
            _CODES,
            _FAMILIES,
            _TURNS,
            _ENDS,
        ),
        (_KEYS, _REVOCATIONS, _SEALED),
    ),
    "keyservice": ((_FEED, _KEYS, _SEALED), (_REVOCATIONS, _OTHERS_PRESENCE)),
    "worker": ((_FEED, _KEYS, ("see its queue", _SEE_QUEUE)), (_REVOCATIONS, _OTHERS_PRESENCE)),
    "introspection": (
        (_FEED, _ASSERTIONS, _READ_RECORDS, _FAMILIES),
        (_KEYS, _REVOCATIONS, _SEALED, ("write token records", _WRITE_RECORD), _CODES, _TURNS, _ENDS),
    ),
    "revocation": (
        (
            _FEED,
            _REVOCATIONS,
            _ASSERTIONS,
            _READ_RECORDS,
            ("list token records", _LIST_RECORDS),
            ("read which token stands in a status list", _READ_PLACES),
            _FAMILIES,
            ("read which grants have to end", _READ_ENDINGS),
        ),
        (_KEYS, _SEALED, _OTHERS_PRESENCE, _PLACES, _CODES, _TURNS, _ENDS),
    ),
}


def rights_of(user: str) -> Iterator[Right]:
    """Yield what a user must be able to do and must not; who is no service is a verifier."""
    own = ("report its presence", _report(user))
    must, must_not = _RIGHTS.get(user, ((_FEED, own), (_KEYS, _REVOCATIONS, _SEALED, _OTHERS_PRESENCE)))
    for words, question in must:
        yield Right(words, question, must=True)
    for words, question in must_not:
        yield Right(words, question, must=False)


async def may(redis: Redis, question: Question) -> bool:
    """Say whether the access list allows a command; raises what a server that cannot be reached raises."""
    try:
        await cast("Any", redis).execute_command(*question)
    except NoPermissionError:
        return False
    except ResponseError:
        return True  # It got past the list, and came to nothing.
    return True
