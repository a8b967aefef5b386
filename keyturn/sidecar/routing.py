"""Routes on raw bytes: a request target is compared, never decoded and never normalised."""

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

Header: TypeAlias = tuple[bytes, bytes]
"""A header field, name and value as they came; `values_of` finds one by its name."""

Answer: TypeAlias = bytes | Coroutine[Any, Any, bytes]
"""A whole reply (`replies.py`), or a coroutine that makes one where it has to wait for something."""

Handler: TypeAlias = Callable[[bytes, list[bytes], list[Header], bytes], Answer]
"""Takes the raw target, every `Authorization` value, all header fields and the body."""

READ = frozenset({b"GET", b"HEAD"})
FORM = frozenset({b"POST"})

_PREFIX_SEGMENTS = 3


def values_of(headers: list[Header], name: bytes) -> list[bytes]:
    """Return the values of all fields of that name, which is given in lower case."""
    return [value for its_name, value in headers if its_name.lower() == name]


@dataclass(frozen=True, slots=True)
class Route:
    """A handler and the methods that it answers; without a set of methods it answers every one."""

    handler: Handler
    methods: frozenset[bytes] | None = READ


class Routes:
    """All routes of a listener.

    `exact` maps whole targets (without a query, which is ignored). `prefixes` maps `/dialect/policy/` for gateways
    that append the client's own path: only the first two segments count, and `..` behind them is just bytes.
    """

    __slots__ = ("_exact", "_prefixes", "swift")

    def __init__(self, exact: Mapping[bytes, Route], prefixes: Mapping[bytes, Route] | None = None) -> None:
        self._exact = dict(exact)
        self._prefixes = dict(prefixes or {})
        self.swift: dict[bytes, Handler] = {
            target: route.handler
            for target, route in self._exact.items()
            if route.methods is None or b"GET" in route.methods
        }

    def find(self, target: bytes) -> Route | None:
        """Return the route of a raw target, or None."""
        path = target.partition(b"?")[0]
        if (route := self._exact.get(path)) is not None:
            return route
        segments = path.split(b"/", _PREFIX_SEGMENTS)
        if len(segments) <= _PREFIX_SEGMENTS:
            return None
        return self._prefixes.get(b"/".join(segments[:_PREFIX_SEGMENTS]) + b"/")
