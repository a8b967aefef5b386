"""How long a revocation is kept: until nothing that it names can still be accepted anywhere."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from keyturn.contract.keys import KeyRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """The figures: T where no key says more, S, and G + request timeout + leeway in one."""

    longest_token_seconds: float
    skew_seconds: float
    leeway_seconds: float

    def after(self, expiry: float) -> float:
        """Return until when to keep the revocation of a token that expires then (Unix seconds)."""
        return expiry + 2 * self.skew_seconds + self.leeway_seconds

    def of_token(self, claims: Mapping[str, Any], keys: Iterable[KeyRecord], now: float) -> float:
        """Return until when to keep a token's revocation: by its own `exp`, or like that of a selector."""
        expiry = claims.get("exp")
        if isinstance(expiry, bool) or not isinstance(expiry, int | float):
            return self.of_selector(keys, now)
        return self.after(float(expiry))

    def of_selector(self, keys: Iterable[KeyRecord], now: float) -> float:
        """Return until when to keep what may name a token that is being issued at this moment.

        A key records T when it is published, so that a shorter setting today does not forget yesterday's tokens.
        """
        longest = max((key.token_seconds for key in keys), default=0.0)
        return self.after(now + max(longest, self.longest_token_seconds))
