"""What Schemathesis cannot know of the routes: the present moment, and tokens that mean something."""

import json
import os
from typing import Any

import schemathesis

from keyturn.clock import SystemClock

TOKENS = "KEYTURN_TEST_TOKENS"  # The environment's name for tokens to ask about, separated by blanks.
_FUTURE = 1e11  # No moment from here on is one in Unix seconds.
_ORDINARY = 64  # Tokens up to this length are replaced, so that limits are tried by what was generated.


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Bring cutoffs that lie ahead back to now, which no schema can name, and ask about real tokens now and then."""
    body, now = case.body, SystemClock().now()
    before = case.query.get("before") if isinstance(case.query, dict) else None
    if isinstance(before, int | float) and now < before < _FUTURE:
        case.query = {**case.query, "before": now}
    if not isinstance(body, dict):
        return
    selector, token, tokens = body.get("selector"), body.get("token"), os.environ[TOKENS].split()
    if isinstance(selector, dict) and _is_number(selector.get("before")) and now < selector["before"] < _FUTURE:
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


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
