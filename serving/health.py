"""The routes that each process has once: /healthz, /readyz, /metrics and /openapi.json."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Protocol

from aiohttp import web

from keyturn.process.metrics import CONTENT_TYPE
from serving.forms import JSON_TYPE
from serving.openapi import EVERYBODY, PROBLEM_TYPE, Schema, answer, describe, record, text
from serving.parts import Parts
from serving.problems import RETRY_AFTER_SECONDS, Style, json_answer
from serving.routing import add_route

_UNREADY: Final = record(
    {"status": {"const": "unready"}, "reasons": {"type": "object", "additionalProperties": text(2000)}}
)
_ABOUT: Final[Mapping[str, Schema]] = {
    "/healthz": {
        "summary": "Say whether the process lives",
        "responses": {"200": answer("It does", record({"status": {"const": "live"}}))},
    },
    "/readyz": {
        "summary": "Say whether it can serve truthfully",
        "responses": {
            "200": answer("It can", record({"status": {"const": "ready"}})),
            "503": {
                "description": "It cannot, by the word of these services; or it takes too long to say",
                "content": {
                    JSON_TYPE: {"schema": _UNREADY},
                    PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}},
                },
            },
        },
    },
    "/metrics": {
        "summary": "Prometheus metrics",
        "responses": {"200": answer("All of this process", {"type": "string"}, kind="text/plain")},
    },
    "/openapi.json": {
        "summary": "This description",
        "responses": {"200": answer("OpenAPI 3.1", {"type": "object"})},
    },
}


class Answering(Protocol):
    """What health asks of a service."""

    @property
    def name(self) -> str:
        """Return the service's name."""
        ...

    def unready(self) -> str | None:
        """Return the reason why it cannot serve truthfully now, None if it can."""
        ...


def add_health(app: web.Application, services: Sequence[Answering], parts: Sequence[Parts]) -> None:
    """Add the four routes, for all services of this application together."""
    registries = tuple(dict.fromkeys(one.metrics for one in parts))

    async def healthz(_request: web.Request) -> web.Response:
        return json_answer({"status": "live"})

    async def readyz(_request: web.Request) -> web.Response:
        reasons = dict(_reasons(services))
        if reasons:
            headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
            return json_answer({"status": "unready", "reasons": reasons}, status=503, headers=headers)
        return json_answer({"status": "ready"})

    async def metrics(_request: web.Request) -> web.Response:
        text = b"".join(registry.render() for registry in registries)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})

    async def openapi(_request: web.Request) -> web.Response:
        return json_answer(describe(app, [service.name for service in services]))

    for path, handler in (
        ("/healthz", healthz), ("/readyz", readyz), ("/metrics", metrics), ("/openapi.json", openapi),
    ):  # fmt: skip
        about = {"tags": ["process"], "security": EVERYBODY, **_ABOUT[path]}
        add_route(app, "GET", path, handler, style=Style.PROBLEM, operation=about)


def _reasons(services: Sequence[Answering]) -> Iterator[tuple[str, str]]:
    for service in services:
        reason = service.unready()
        if reason is not None:
            yield service.name, reason
