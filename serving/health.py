"""The routes that each process has once: /healthz, /readyz, /metrics and /openapi.json."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from aiohttp import web

from keyturn.process.metrics import CONTENT_TYPE
from serving.parts import Parts
from serving.problems import RETRY_AFTER_SECONDS, Style, json_answer
from serving.routing import OPERATIONS, add_route

OPENAPI = "3.1.0"


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
        return json_answer(describe(app, services))

    for path, handler, summary in (
        ("/healthz", healthz, "Say whether the process lives"),
        ("/readyz", readyz, "Say whether it can serve truthfully; 503 and the reasons if not"),
        ("/metrics", metrics, "Prometheus metrics"),
        ("/openapi.json", openapi, "This description"),
    ):
        add_route(app, "GET", path, handler, style=Style.PROBLEM, operation={"summary": summary, "tags": ["process"]})


def describe(app: web.Application, services: Sequence[Answering]) -> dict[str, Any]:
    """Return the OpenAPI description of all routes of an application."""
    answers = {"responses": {"default": {"description": "An error: RFC 6749 JSON, or an RFC 9457 problem"}}}
    paths = {
        path: {method: {**answers, **operation} for method, operation in operations.items()}
        for path, operations in app[OPERATIONS].items()
    }
    title = "Keyturn: " + ", ".join(service.name for service in services)
    return {"openapi": OPENAPI, "info": {"title": title, "version": "1"}, "paths": paths}


def _reasons(services: Sequence[Answering]) -> Iterator[tuple[str, str]]:
    for service in services:
        reason = service.unready()
        if reason is not None:
            yield service.name, reason
