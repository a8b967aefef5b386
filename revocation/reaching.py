"""What the service keeps in the store beside the feed: whatever the store answers, it is an answer or it is none."""

from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import RedisError

from keyturn.contract.errors import StoreUnavailable
from keyturn.process.redis import store_errors


@contextmanager
def reaching() -> Iterator[None]:
    """Raise StoreUnavailable where the store cannot say; also for another type than ours in our key's place."""
    try:
        with store_errors(StoreUnavailable):
            yield
    except RedisError as error:
        raise StoreUnavailable(f"the store holds something else in our place: {type(error).__name__}") from error
