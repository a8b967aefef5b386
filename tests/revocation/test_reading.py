"""How orders and lines of lists are read where the world has changed since the service started."""

from collections.abc import AsyncIterator

import pytest

from keyturn.contract.issuers import ForeignIssuer
from keyturn.contract.selectors import LONGEST_VALUE
from revocation.keeping import Keeping
from revocation.reading import OrderReader
from tests.building import FickleRedis, Standing, standing

PROVIDER = "https://login.example/"
KEEPING = Keeping(
    longest_token_seconds=300, grant_seconds=600, skew_seconds=2, leeway_seconds=60,
    others={PROVIDER: ForeignIssuer(name="login", url=PROVIDER, token_seconds=7200.0)},
)  # fmt: skip
DAY = 86_400.0


@pytest.fixture
async def stage() -> AsyncIterator[Standing]:
    """Begin a world in memory."""
    async with standing(FickleRedis()) as one:
        yield one


async def test_a_key_whose_tokens_live_longer_is_reckoned_with_from_when_it_is_published(stage: Standing) -> None:
    """Checklist 9, RFC 7009, 2: forgotten by the life of yesterday's tokens, one of today would live again."""
    reader, line = OrderReader(stage.parts, KEEPING), b'{"jti": "one"}'
    now = stage.world.clock.now()
    assert reader.line(line, before=now).until < now + DAY
    await stage.publish(stage.world.new_key(token_seconds=DAY))
    for entry in (reader.line(line, before=now), reader.order({"selector": {"jti": "one"}}).entry):
        assert entry.until >= now + DAY + 2 * KEEPING.skew_seconds + KEEPING.leeway_seconds


async def test_why_something_was_revoked_goes_with_it_whosever_tokens_it_names(stage: Standing) -> None:
    """Whoever reads the lane after an incident has to learn what was meant."""
    reader = OrderReader(stage.parts, KEEPING)
    for selector in ({"sub": "alice"}, {"sub": "alice", "iss": PROVIDER}):
        assert reader.order({"selector": selector, "reason": "left"}).entry.reason == "left"


async def test_a_name_of_the_greatest_length_is_one_in_either_way_of_reading(stage: Standing) -> None:
    """Issuers may use all of it: RFC 7519, 4.1.7 sets no limit to a `jti`, and ours is told in the reference."""
    reader, longest = OrderReader(stage.parts, KEEPING), "x" * LONGEST_VALUE
    entries = [
        reader.line(f'{{"jti": "{longest}"}}'.encode(), before=1.0),
        reader.order({"selector": {"sub": longest}}).entry,
    ]
    assert [entry.selector.value for entry in entries] == [longest] * 2
