"""What Schemathesis cannot know of the routes: the present moment, and tokens that mean something."""

import json
import os
from collections.abc import MutableMapping
from typing import Any, cast

import schemathesis

from keyturn.clock import SystemClock

TOKENS = "KEYTURN_TEST_TOKENS"  # The environment's name for tokens to ask about, separated by blanks.
_FUTURE = 1e11  # No moment from here on is one in Unix seconds.
# They say who asks, as the header does already (RFC 6749, 2.3: in one way, not in two).
_OF_CALLERS = frozenset({"client_id", "client_secret", "client_assertion", "client_assertion_type"})
_ORDINARY = 64  # Tokens up to this length are replaced, so that limits are tried by what was generated.


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Bring cutoffs that lie ahead back to now, leave a second proof of who asks out, and ask about real tokens."""
    body, now = case.body, SystemClock().now()
    if isinstance(case.query, MutableMapping) and _is_ahead(case.query.get("before"), now):
        case.query["before"] = now
    if not isinstance(body, dict):
        return
    selector, token, tokens = body.get("selector"), body.get("token"), os.environ[TOKENS].split()
    if not _OF_CALLERS.isdisjoint(body):
        body = case.body = {name: value for name, value in body.items() if name not in _OF_CALLERS}
    if isinstance(selector, dict) and _is_ahead(selector.get("before"), now):
        case.body = {**body, "selector": {**selector, "before": now}}
    elif isinstance(token, str) and 0 < len(token) <= _ORDINARY and len(token) % 2 == 0:
        case.body = {**body, "token": tokens[len(token) // 2 % len(tokens)]}


@schemathesis.serializer("application/secevent+jwt")
def write_event(context: Any, value: Any) -> bytes:
    """Send a Security Event Token as it is."""
    return str(value).encode("utf-8", "surrogatepass")


@schemathesis.serializer("application/x-ndjson")
def lines(_context: Any, value: Any) -> bytes:
    """Write whatever was generated as one line."""
    return json.dumps(value).encode() + b"\n"


def _is_ahead(value: object, now: float) -> bool:
    """Say whether this is a moment to come, as a number or as a query writes one."""
    try:
        return not isinstance(value, bool) and now < float(cast("Any", value)) < _FUTURE
    except (TypeError, ValueError):
        return False
