"""Wakes those who wait for something to tell: pushes and long polls."""

import asyncio


class Bell:
    """Rings whenever our replica has moved; who listens before he looks misses nothing."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wake all who listen."""
        self._rung.set()
        self._rung = asyncio.Event()

    def listen(self) -> asyncio.Event:
        """Return what is set by the next ring."""
        return self._rung


async def rung_within(rung: asyncio.Event, seconds: float) -> None:
    """Wait for a ring, or that long: a doorbell may be lost."""
    waiting = asyncio.ensure_future(rung.wait())
    try:
        await asyncio.wait({waiting}, timeout=seconds)
    finally:
        waiting.cancel()
