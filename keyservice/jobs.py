"""The key service's scheduled work: see what is due, and do it."""

from typing import Any

from keyservice.rotator import Rotator

ROTATOR = "rotator"


async def rotate_what_is_due(ctx: dict[str, Any]) -> int:
    """Ask the rules until nothing is due; return how many events that took. Safe to run twice, or by two workers."""
    rotator: Rotator = ctx[ROTATOR]
    return await rotator.tick()
