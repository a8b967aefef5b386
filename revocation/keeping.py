"""How long a revocation is kept: until nothing that it names can still be accepted anywhere."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from keyturn.contract.errors import InvalidSelector
from keyturn.contract.issuers import ForeignIssuer
from keyturn.contract.keys import KeyRecord
from keyturn.contract.selectors import Selector, SelectorKind

_STEPS = 64


@dataclass(slots=True, kw_only=True)
class Keeping:
    """The figures: T where no key says more, the life of a grant, S, and G + request timeout + leeway in one.

    Other issuers, by `iss`, have their own. The life of a grant is what was promised last (`Promising`).
    """

    longest_token_seconds: float
    grant_seconds: float
    skew_seconds: float
    leeway_seconds: float
    others: Mapping[str, ForeignIssuer] = field(default_factory=dict)

    def after(self, expiry: float) -> float:
        """Return until when to keep the revocation of a token that expires then (Unix seconds)."""
        return expiry + 2 * self.skew_seconds + self.leeway_seconds

    def of_token(self, claims: Mapping[str, Any], keys: Iterable[KeyRecord], now: float) -> float:
        """Return until when to keep a token's revocation: by its own `exp`, or like that of a selector."""
        expiry = claims.get("exp")
        if isinstance(expiry, bool) or not isinstance(expiry, int | float):
            return self.of_selector(SelectorKind.JTI, keys, now)
        return self.after(float(expiry))

    def of_selector(self, kind: SelectorKind, keys: Iterable[KeyRecord], now: float) -> float:
        """Return until when to keep what may name a token that is being issued at this moment.

        A key records T when it is published, so that a shorter setting today does not forget yesterday's tokens.
        """
        return self.until(kind, now, longest_token_seconds=self.longest(keys))

    def until(self, kind: SelectorKind, now: float, *, longest_token_seconds: float) -> float:
        """Return until when to keep what names one token, or all that come of a grant for as long as it is good.

        The latter is rounded up, by a sixty-fourth at most: of days there would else be thousands of expiry buckets,
        and each look-up, snapshot and reader has to do with all of them.
        """
        if kind is SelectorKind.JTI:
            return self.after(now + longest_token_seconds)
        lasting = max(longest_token_seconds, self.grant_seconds)
        step = lasting / _STEPS
        return ceil(self.after(now + lasting) / step) * step

    def longest(self, keys: Iterable[KeyRecord]) -> float:
        """Return T: how long a token may live that any of our keys has signed or signs (seconds)."""
        return max((self.longest_token_seconds, *(key.token_seconds for key in keys)))

    def of_foreign(self, selector: Selector, now: float) -> float:
        """Return until when to keep what may name a token that another issuer is issuing at this moment.

        Raises InvalidSelector for an issuer that settings do not describe, since how long its tokens live is not known
        then, and for a grant: only our tokens name theirs.
        """
        issuer = self.others.get(selector.iss)
        if issuer is None:
            raise InvalidSelector("iss is an issuer that is not known here; describe it in [issuers.NAME]")
        if selector.kind is SelectorKind.GRANT:
            raise InvalidSelector("tokens of another issuer have no grant_id; name a jti, sid or sub")
        return self.after(now + issuer.token_seconds)
