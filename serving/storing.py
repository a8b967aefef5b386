"""What services keep in the store beside the feed: every failure to read or write it is one error."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

from keyturn.contract.errors import StoreUnavailable
from keyturn.process.redis import is_server_failure, store_errors

_LONGEST_REASON = 200
_LISTED_TOGETHER = 256


@contextmanager
def stored() -> Iterator[None]:
    """Raise StoreUnavailable where the store failed, or holds what we have not written there.

    Who can write the store can put another type in the place of any key: then nothing can be said, as without a store.
    """
    try:
        with store_errors(StoreUnavailable):
            yield
    except RedisError as error:
        raise StoreUnavailable(f"{type(error).__name__}: {error}"[:_LONGEST_REASON]) from error


class Listed(NamedTuple):
    """Some of what is kept under a prefix: where the next ones begin (0 at the end), how many names, and the boxes."""

    following: int
    names: int
    boxes: list[tuple[str, bytes]]


async def listed(redis: Redis, prefix: str, cursor: int) -> Listed:
    """Return some of all strings whose names begin so, from a cursor on: 0 to begin with.

    What is there all the while is told once, or several times. It takes the server a few milliseconds. Raises
    StoreUnavailable.
    """
    with store_errors(StoreUnavailable):
        following, names = await redis.scan(cursor, match=prefix + "*", count=_LISTED_TOGETHER)
        pipeline = redis.pipeline(transaction=False)
        for name in names:
            pipeline.get(name)
        boxes = await pipeline.execute(raise_on_error=False) if names else []
        for box in boxes:
            if isinstance(box, RedisError) and is_server_failure(box):  # Of another type than ours is no failure.
                raise box
    found = [(name.decode("ascii", "replace"), box) for name, box in zip(names, boxes, strict=True)]
    return Listed(int(following), len(names), [(name, box) for name, box in found if isinstance(box, bytes)])
