"""How each gateway wants to be answered: what differs between them, and nothing else."""

from dataclasses import dataclass
from typing import Self

from keyturn.process.values import Unfit
from keyturn.sidecar.routing import READ


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One kind of gateway; it is served at `/{name}/{policy}`."""

    name: str
    two_tokens: int = 400
    """The status of a request with more than one token."""
    methods: frozenset[bytes] | None = READ
    """What the gateway asks with; None where it passes the client's own method on."""
    appends_path: bool = False
    """Whether the gateway appends the client's path, so that `/{name}/{policy}/` is only a prefix."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the dialect of that name; raises Unfit."""
        known = DIALECTS.get(text)
        if not isinstance(known, cls):
            raise Unfit(f"{text!r} is not a dialect", mend=f"choose from {', '.join(sorted(DIALECTS))}")
        return known


# auth_request knows 2xx, 401 and 403; it makes a 500 of everything else.
NGINX = Dialect(name="nginx", two_tokens=401)

DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in (NGINX,)}
