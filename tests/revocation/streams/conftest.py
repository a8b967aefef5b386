"""Streams of a revocation service, one of which a test polls."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from tests.revocation.streams.receiving import Post, post_on


@pytest.fixture
async def post(valkey: Redis, valkey_url: str) -> AsyncIterator[Post]:
    """Run the streams for one test; the stream `one` has begun."""
    async with post_on(valkey, valkey_url) as one:
        assert await one.subjects() == []
        yield one
