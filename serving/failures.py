"""Slows failed authentication down, by client and by address; who authenticates is never slowed, whatever others do.

Secrets have 256 random bits, so nothing is gained by guessing them; and nothing by locking a client out, who would be
the one to suffer. What is limited is how fast failures are answered.
"""

import math
from collections import Counter, OrderedDict
from ipaddress import IPv6Address, ip_address
from typing import Final, NamedTuple

from keyturn.clock import Clock

MOST_TRACKED: Final = 4096  # Of addresses, and of clients; whoever was seen longest ago is forgotten.
HOLD_SECONDS: Final = 1.0
MOST_HELD: Final = 64
MOST_HELD_OF_ADDRESS: Final = 8


class Allowance(NamedTuple):
    """How many failures are answered at once, and how many more each second."""

    burst: float
    per_second: float


OF_ADDRESS: Final = Allowance(20, 1)
OF_CLIENT: Final = Allowance(100, 5)  # More than one address can use up: a flood from one slows nobody elsewhere.


class Allowances:
    """Token buckets by name, full when first seen; a bounded number of them."""

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        """Count the names that are known."""
        return len(self._left)

    def take(self, name: str, now: float) -> float:
        """Take one; return 0, or how many seconds it is until there is one again (and nothing is taken)."""
        burst, per_second = self._allowance
        left, since = self._left.pop(name, (burst, now))
        left = min(burst, left + max(0.0, now - since) * per_second)
        wait = 0.0 if left >= 1 else (1 - left) / per_second
        if len(self._left) >= MOST_TRACKED:
            self._left.popitem(last=False)
        self._left[name] = (left - 1 if wait == 0 else left), now
        return wait


class Failures:
    """Counts failures, and holds answers to too many of them back for a second: a few at a time, the rest at once."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._of_address, self._of_client = Allowances(OF_ADDRESS), Allowances(OF_CLIENT)
        self._held: Counter[str] = Counter()

    async def note(self, *, address: str | None, client_id: str) -> int:
        """Note a failed attempt; return 0, or (perhaps a second later) after how many seconds to come back.

        What one address fails too often does not count against the client that it names.
        """
        now, group = self._clock.boottime(), _group(address)
        wait = self._of_address.take(group, now) or self._of_client.take(client_id, now)
        if wait == 0:
            return 0
        if self._held.total() < MOST_HELD and self._held[group] < MOST_HELD_OF_ADDRESS:
            await self._hold(group)
        return max(1, math.ceil(wait))

    async def _hold(self, group: str) -> None:
        self._held[group] += 1
        try:
            await self._clock.sleep(HOLD_SECONDS)
        finally:
            self._held[group] -= 1
            if not self._held[group]:
                del self._held[group]


def _group(address: str | None) -> str:
    """Return what counts as one address: of IPv6 a /64, which is what one subscriber has."""
    try:
        parsed = ip_address((address or "").partition("%")[0])
    except ValueError:
        return ""  # A unix socket.
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(IPv6Address(int(parsed) >> 64 << 64))
    return str(parsed)
