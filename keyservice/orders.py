"""What an operator's order says: read from a request, refused by name; and what an emergency leaves exposed."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from aiohttp import web

from keyservice.rotator import Order
from keyturn.contract.encoding import digest, encode_json
from keyturn.contract.errors import MalformedInput
from keyturn.contract.keys import Use
from keyturn.contract.rotation import RotationPolicy
from serving.forms import read_idempotency_key
from serving.receipts import read_wait

LONGEST_REASON = 200
FARTHEST_SECONDS = 366 * 86_400.0


def read_rotation(
    body: dict[str, Any], request: web.Request, policies: Mapping[Use, RotationPolicy], *, now: float
) -> tuple[str, Use, Order]:
    """Return algorithm, use and order of `{"use"?, "alg"?, "reason"?, "at"?}`; raises MalformedInput.

    `use` is `access` unless it is said, `at` a moment to come, in Unix seconds or as RFC 3339 has it.
    """
    _refuse_unknown(body, {"use", "alg", "reason", "at"})
    named = body.get("use", Use.ACCESS.value)
    use = next((one for one in policies if one == named), None)
    if use is None:
        raise MalformedInput(f"use is one of {', '.join(policies)}")
    algorithms = policies[use].algorithms
    alg = body.get("alg", algorithms[0])
    if alg not in algorithms:
        raise MalformedInput(f"alg is one of {', '.join(algorithms)} for keys of use {use}")
    not_before = _moment(body["at"], now) if "at" in body else None
    return alg, use, _order(body, request, not_before)


def read_emergency(body: dict[str, Any], request: web.Request) -> Order:
    """Return the order of `{"alg"?, "reason"?}`; raises MalformedInput."""
    _refuse_unknown(body, {"alg", "reason"})
    return _order(body, request, None)


def exposure(revoked_at: float, policy: RotationPolicy) -> dict[str, float]:
    """Return until when (Unix seconds) a verifier that heard nothing could still accept the revoked key.

    One that follows the feed stops by itself at E + S after its last word; one that pulls the JWKS, when its copy is
    older than C.
    """
    return {
        "push_until": revoked_at + policy.expired_seconds + policy.skew_seconds,
        "pull_until": revoked_at + policy.cache_seconds + policy.skew_seconds,
    }


def _order(body: dict[str, Any], request: web.Request, not_before: float | None) -> Order:
    reason = body.get("reason", "")
    if not isinstance(reason, str) or len(reason) > LONGEST_REASON:
        raise MalformedInput(f"reason is a string of at most {LONGEST_REASON} characters")
    report = read_wait(request).asked
    return Order(reason=reason, report=report, not_before=not_before, event_id=_event_id(body, request))


def _event_id(body: dict[str, Any], request: web.Request) -> str | None:
    """Return the event id of an `Idempotency-Key`, bound to path and body so that one key serves one order.

    Else another order under the same key would be answered as done, and not be carried out.
    """
    key = read_idempotency_key(request)
    return None if key is None else "order:" + digest(f"{request.path}\0{key}\0".encode() + encode_json(body))


def _moment(value: object, now: float) -> float:
    moment: object = value
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value).timestamp() if "T" in value or " " in value else None
            aware = datetime.fromisoformat(value).tzinfo is not None
        except ValueError:
            moment, aware = None, False
        if not aware:
            moment = None
    if isinstance(moment, bool) or not isinstance(moment, int | float) or not now < moment <= now + FARTHEST_SECONDS:
        raise MalformedInput("at is a moment within a year to come: Unix seconds, or RFC 3339 with its offset")
    return float(moment)


def _refuse_unknown(body: dict[str, Any], known: set[str]) -> None:
    if unknown := body.keys() - known:
        raise MalformedInput(f"unknown member {min(unknown)!r}; the body has {', '.join(sorted(known))}")
