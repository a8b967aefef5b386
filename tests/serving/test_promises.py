"""Revocation's word for how long it keeps what names a grant: nobody's grant lasts longer than that."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from keyturn.contract.encoding import encode_json
from keyturn.contract.errors import FeedUnavailable, StoreUnavailable
from serving.promises import LIFE_CAPPED, LOOK_SECONDS, PROMISE_KEY, GrantLife, Promise, Promises, renewed
from serving.sealing import Sealer
from tests.building import FickleRedis, new_record_keys
from tests.clocks import ManualClock

ISSUER, HOUR = "https://issuer.example", 3600.0


@dataclass
class Stand:
    """A store with a word in it, and who goes by that."""

    clock: ManualClock = field(default_factory=ManualClock)
    store: FickleRedis = field(default_factory=FickleRedis)

    def __post_init__(self) -> None:
        """Let grants last for an hour by the setting of who asks."""
        self.keys = new_record_keys()
        self.promises = Promises(self.store, self.keys)
        self.life = GrantLife(self.promises, self.clock, issuer=ISSUER, own_seconds=HOUR)

    async def give(self, seconds: float, *, at: float | None = None, iss: str = ISSUER) -> None:
        """Give a word, as revocation does."""
        await self.promises.write(Promise(iss=iss, seconds=seconds, at=self.clock.now() if at is None else at))

    async def put(self, box: bytes) -> None:
        """Write there as the store's owner may."""
        await cast("Any", self.store).hset(PROMISE_KEY, "promise", box)

    async def later(self) -> float:
        """Ask when it is time to look again."""
        self.clock.advance(LOOK_SECONDS)
        return await self.life.seconds()


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    """Begin with an empty store."""
    one = Stand()
    yield one
    await one.store.aclose()


def word(seconds: float, *, at: float, iss: str = ISSUER) -> Promise:
    """Make a word."""
    return Promise(iss=iss, seconds=seconds, at=at)


def test_a_longer_word_stands_until_nothing_lives_that_goes_by_it() -> None:
    """A life that is shortened and lengthened again must not bring back a grant whose revocation was forgotten."""
    own, longer = word(HOUR, at=10_000.0), word(3 * HOUR, at=0.0)
    assert renewed(own, longer) is longer
    assert renewed(word(HOUR, at=3 * HOUR - 0.5), longer) is longer
    over = word(HOUR, at=3 * HOUR)
    assert renewed(over, longer) is over
    for other in (None, word(60.0, at=10_000.0), word(HOUR, at=9_990.0), word(3 * HOUR, at=9_990.0, iss="https://x")):
        assert renewed(own, other) is own


async def test_a_grant_lasts_for_the_shorter_of_both(stand: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    """Invariant 21: a revocation is not forgotten while anything comes of what it names; and the difference is loud."""
    await stand.give(2 * HOUR)
    assert await stand.life.seconds() == HOUR
    assert LIFE_CAPPED not in capsys.readouterr().out
    await stand.give(HOUR / 2)
    assert await stand.later() == HOUR / 2
    assert await stand.later() == HOUR / 2
    assert capsys.readouterr().out.count(LIFE_CAPPED) == 1, "told once"
    await stand.give(2 * HOUR)
    assert await stand.later() == HOUR


async def test_the_store_is_asked_each_twenty_seconds_and_not_for_each_grant(stand: Stand) -> None:
    """Refresh must not cost another round trip; a life has five minutes at least, for which all is kept."""
    await stand.give(HOUR / 2)
    assert await stand.life.seconds() == HOUR / 2
    stand.store.away = True
    stand.clock.advance(LOOK_SECONDS - 0.5)
    assert await stand.life.seconds() == HOUR / 2
    stand.clock.advance(0.5)
    with pytest.raises(StoreUnavailable):
        await stand.life.seconds()
    stand.store.away = False
    assert await stand.life.seconds() == HOUR / 2


async def test_without_a_word_nothing_is_granted(stand: Stand) -> None:
    """Deny by default: also where what stands there is forged, another issuer's, or was said too long ago."""
    with pytest.raises(FeedUnavailable):
        await stand.life.seconds()
    await stand.give(HOUR, at=stand.clock.now() - HOUR)
    with pytest.raises(FeedUnavailable):
        await stand.life.seconds()
    await stand.give(HOUR, iss="https://other.example")
    with pytest.raises(FeedUnavailable):
        await stand.life.seconds()
    beside, good = PROMISE_KEY.encode(), word(HOUR, at=stand.clock.now())
    forger, other = Promises(stand.store, new_record_keys()), Sealer(stand.keys, purpose=b"keyturn endings")
    await forger.write(good)
    with pytest.raises(FeedUnavailable):
        await stand.life.seconds()
    await stand.put(other.seal(encode_json(good), beside=beside))
    with pytest.raises(FeedUnavailable):
        await stand.life.seconds()
    own = Sealer(stand.keys, purpose=b"keyturn promise to keep what names a grant")
    for content in (b"{}", b"7", b'{"iss":"x","seconds":"1","at":1}', b"\xff"):
        await stand.put(own.seal(content, beside=beside))
        with pytest.raises(FeedUnavailable):
            await stand.life.seconds()
    await stand.store.delete(PROMISE_KEY)
    await stand.store.set(PROMISE_KEY, "of another type")
    with pytest.raises(StoreUnavailable):
        await stand.life.seconds()


async def test_a_word_that_is_lost_holds_for_who_has_heard_it(stand: Stand) -> None:
    """Who can write the store can take it away, but ends no grant by that; and cannot lengthen one."""
    await stand.give(HOUR / 2)
    assert await stand.life.seconds() == HOUR / 2
    await stand.store.delete(PROMISE_KEY)
    assert await stand.later() == HOUR / 2
    await stand.give(HOUR, at=stand.clock.now() - 2 * HOUR)  # One of long ago, put back.
    assert await stand.later() == HOUR / 2
