"""`/openapi.json` of a sidecar: the routes that this listener has, and what each is for (OpenAPI 3.1)."""

from collections.abc import Iterable, Mapping
from typing import Any

from keyturn.sidecar import replies
from keyturn.sidecar.routing import Answer, Header, Route

_SUMMARIES = {
    "healthz": "Say whether the process lives",
    "readyz": "Say whether it can judge; 503 and the reason if not",
    "state": "Both sequences, state, staleness in ms, and the cache's figures",
    "metrics": "Prometheus metrics",
    "openapi.json": "This description",
    "jwks.json": "The public keys (RFC 7517)",
    "introspect": "RFC 7662, for the audience of policy `default`",
}
_GATE_ANSWERS = {
    "200": "allow, with identity headers",
    "401": "no token, or a bad one",
    "403": "insufficient_scope",
    "503": "nothing can be said now",
}


class Description:
    """Answers the description of some routes, rendered once."""

    def __init__(self, routes: Mapping[bytes, Route], prefixes: Iterable[bytes]) -> None:
        self._reply = replies.json_reply(200, describe(routes, prefixes), (("Cache-Control", "no-store"),))

    def answer(self, target: bytes, authorization: list[bytes], headers: list[Header], body: bytes) -> Answer:  # noqa: ARG002
        """Answer it."""
        return self._reply


def describe(routes: Mapping[bytes, Route], prefixes: Iterable[bytes]) -> dict[str, Any]:
    """Return the OpenAPI object of routes by whole target, and of gateways' prefixes."""
    paths = {path.decode("ascii"): _operations(path, route) for path, route in sorted(routes.items())}
    paths |= {f"{prefix.decode('ascii')}{{path}}": {"get": _gate(prefix)} for prefix in sorted(prefixes)}
    return {"openapi": "3.1.0", "info": {"title": "Keyturn sidecar", "version": "1"}, "paths": paths}


def _operations(path: bytes, route: Route) -> dict[str, Any]:
    summary = _SUMMARIES.get(path.decode("ascii").lstrip("/"))
    operation = {"summary": summary, "responses": {"200": {"description": "The answer"}}} if summary else _gate(path)
    methods = {"get"} if route.methods is None else {name.decode("ascii").lower() for name in route.methods}
    return dict.fromkeys(sorted(methods - {"head"}), operation)


def _gate(path: bytes) -> dict[str, Any]:
    _, dialect, policy, *_ = path.decode("ascii").split("/")
    responses = {status: {"description": text} for status, text in _GATE_ANSWERS.items()}
    return {"summary": f"Check the request's token under policy {policy}, for {dialect}", "responses": responses}
