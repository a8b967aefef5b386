"""What services keep in the store beside the feed: every failure to read or write it is one error."""

from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import RedisError

from keyturn.contract.errors import StoreUnavailable
from keyturn.process.redis import store_errors

_LONGEST_REASON = 200


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
