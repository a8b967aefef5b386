"""One application for all services: its health, its limits, its headers, its log."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from io import StringIO

import pytest
import structlog
from aiohttp import ClientSession, web
from fakeredis import FakeAsyncRedis

from keyturn.contract.errors import ConfigurationError, SignerMissing, StoreUnavailable
from keyturn.process.logging import configure_logging
from keyturn.process.metrics import Metrics
from keyturn.process.settings import LogSettings
from serving.forms import read_form
from serving.problems import OAuthError, Style, json_answer
from serving.routing import add_route
from serving.service import serve
from tests.building import Standing, client_of, standing
from tests.waiting import eventually


class Sample:
    """A service with a route for each way to fail."""

    name = "sample"

    def __init__(self) -> None:
        self.reason: str | None = None
        self.echoes = 0

    def add_routes(self, app: web.Application) -> None:
        """Add one route for each."""
        for path, handler, style in (
            ("/echo", self.echo, Style.OAUTH),
            ("/store", self.store, Style.OAUTH),
            ("/crash", self.crash, Style.OAUTH),
            ("/admin", self.crash, Style.PROBLEM),
            ("/down", self.store, Style.PROBLEM),
            ("/unsigned", self.unsigned, Style.OAUTH),
        ):
            add_route(app, "POST", path, handler, style=style, operation={"summary": path})
        add_route(app, "GET", "/torn/{how}", self.torn, style=Style.PROBLEM, operation={}, within_seconds=0.5)
        add_route(app, "POST", "/slow", self.slow, style=Style.OAUTH, operation={}, within_seconds=0.05)

    async def run(self) -> None:
        """Do nothing for ever."""
        await asyncio.Event().wait()

    def unready(self) -> str | None:
        """Say what the test wants said."""
        return self.reason

    async def echo(self, request: web.Request) -> web.Response:
        """Return the form."""
        self.echoes += 1
        return json_answer(await read_form(request))

    async def store(self, _request: web.Request) -> web.Response:
        """Miss the store."""
        raise StoreUnavailable("10.0.0.7 refused")

    async def crash(self, _request: web.Request) -> web.Response:
        """Fail in a way that nobody foresaw."""
        raise RuntimeError("kt_cs_not_for_your_eyes")

    async def unsigned(self, _request: web.Request) -> web.Response:
        """Have no signer."""
        raise SignerMissing(typ="at+jwt", service="sample")

    async def torn(self, request: web.Request) -> web.StreamResponse:
        """Begin an answer, and fail."""
        response = web.StreamResponse()
        await response.prepare(request)
        if request.match_info["how"] != "before":
            await response.write(b"one line\n")
        match request.match_info["how"]:
            case "store" | "before":
                raise StoreUnavailable("10.0.0.7 refused")
            case "crash":
                raise RuntimeError("kt_cs_not_for_your_eyes")
            case "status":
                raise web.HTTPNotFound
        await asyncio.Event().wait()
        return response

    async def slow(self, _request: web.Request) -> web.Response:
        """Never answer."""
        await asyncio.Event().wait()
        raise OAuthError("invalid_request")


@pytest.fixture
async def stage() -> AsyncIterator[Standing]:
    """Begin a world on a fake store."""
    async with standing(FakeAsyncRedis(), deaf=True) as one:
        yield one


@pytest.fixture
def log() -> Iterator[StringIO]:
    """Log as processes do, into memory."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = StringIO()
    configure_logging(LogSettings(format="json"), process="sample", stream=stream)
    yield stream
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


@pytest.fixture
def sample() -> Sample:
    """Return the service."""
    return Sample()


@pytest.fixture
async def client(stage: Standing, sample: Sample) -> AsyncIterator[ClientSession]:
    """Serve it."""
    async with served(sample, stage) as session:
        yield session


@asynccontextmanager
async def served(sample: Sample, stage: Standing, listen: str = "127.0.0.1:0") -> AsyncIterator[ClientSession]:
    """Serve as a process does, follower included."""
    addresses: list[str] = []
    log, parts = stage.parts.log, replace(stage.parts, metrics=Metrics(process="tests"))  # As each process has its own.
    task = asyncio.create_task(serve([sample], parts=[parts], listen=listen, log=log, ready=addresses.append))
    try:
        await eventually(lambda: addresses or task.done())
        if task.done():
            await task
        async with client_of(addresses[0]) as session:
            yield session
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_process_tells_its_health_metrics_and_routes(client: ClientSession) -> None:
    """Probes and scrapers find the four routes on each process."""
    async with client.get("/healthz") as answer:
        assert answer.status == 200
    async with client.get("/readyz") as answer:
        assert (answer.status, await answer.json()) == (200, {"status": "ready"})
    async with client.get("/metrics") as answer:
        told = (await answer.text()).splitlines()
        helps = [line.split()[2] for line in told if line.startswith("# HELP")]
        assert {"keyturn_build_info", "keyturn_http_request_seconds"} <= set(helps)
        assert len(helps) == len(set(helps))
    async with client.get("/openapi.json") as answer:
        paths = (await answer.json())["paths"]
        assert paths.keys() >= {"/echo", "/healthz", "/readyz", "/metrics", "/openapi.json"}
        assert paths["/echo"]["post"]["responses"]


async def test_a_service_that_cannot_serve_truthfully_is_unready_with_its_reason(
    client: ClientSession, sample: Sample
) -> None:
    """A load balancer takes it out, and an operator reads why."""
    sample.reason = "the feed has been silent for too long"
    async with client.get("/readyz") as answer:
        assert answer.status == 503
        assert await answer.json() == {"status": "unready", "reasons": {"sample": sample.reason}}
        assert answer.headers["Retry-After"] == "1"


@pytest.mark.parametrize("how", ["store", "crash", "status", "time", "before"])
async def test_an_answer_that_was_begun_is_cut_off_and_never_ended_nor_begun_anew(
    client: ClientSession, log: StringIO, how: str
) -> None:
    """RFC 9112, 8: without the last chunk no client takes it for whole; a second head would be a part of its body."""
    base = client._base_url
    assert base is not None
    reader, writer = await asyncio.open_connection(base.host, base.port)
    writer.write(f"GET /torn/{how} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK") or how == "before"
    assert body == (b"" if how == "before" else b"9\r\none line\n\r\n")
    (line,) = [json.loads(one) for one in log.getvalue().splitlines() if '"request"' in one]
    assert line["error_code"] == {"crash": "RuntimeError", "status": "HTTPNotFound", "time": "request_timeout"}.get(
        how, "store_unavailable"
    )
    assert ("unexpected_error" in log.getvalue()) == (how == "crash")


async def test_errors_speak_the_language_of_their_route_and_give_nothing_away(client: ClientSession) -> None:
    """OAuth clients read `error`; operators read a problem; neither reads what went wrong inside."""
    async with client.post("/store") as answer:
        assert (answer.status, await answer.json()) == (503, {"error": "temporarily_unavailable"})
        assert answer.headers["Retry-After"] == "1"
    async with client.post("/down") as answer:
        assert answer.content_type == "application/problem+json"
        assert await answer.json() == {
            "type": "about:blank", "title": "Service Unavailable", "status": 503, "code": "store_unavailable",
        }  # fmt: skip
    async with client.post("/crash") as answer:
        assert (answer.status, await answer.json()) == (500, {"error": "server_error"})
    async with client.post("/admin") as answer:
        assert (await answer.json())["code"] == "server_error"
    async with client.post("/slow") as answer:
        assert (answer.status, await answer.json()) == (503, {"error": "temporarily_unavailable"})


async def test_a_wrong_method_path_type_or_size_is_refused_as_http_says(client: ClientSession) -> None:
    """Checklist, every endpoint; RFC 9110, 15.5: 405 with Allow, 404, 415, 413."""
    async with client.get("/echo") as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "POST")
    async with client.post("/nowhere") as answer:
        assert answer.status == 404
    async with client.post("/echo", json={}) as answer:
        assert answer.status == 415
    async with client.post("/echo", data={"a": "x" * 70_000}) as answer:
        assert answer.status == 413


async def test_a_compressed_body_is_refused_unopened(client: ClientSession) -> None:
    """RFC 9110, 15.5.16: a few bytes that grow to a gigabyte would pass each limit on what is sent."""
    lying = {"Content-Encoding": "gzip", "Content-Type": "application/x-www-form-urlencoded"}
    for sent in ({"data": {"a": "b"}, "compress": "deflate"}, {"data": b"a=b", "headers": lying}):
        async with client.post("/echo", **sent) as answer:
            assert (answer.status, answer.headers["Accept-Encoding"]) == (415, "identity")
    async with client.post("/echo", data={"a": "b"}, headers={"Content-Encoding": "Identity"}) as answer:
        assert answer.status == 200


async def test_who_goes_away_in_the_middle_of_a_body_rings_no_alarm(
    client: ClientSession, sample: Sample, log: StringIO
) -> None:
    """`unexpected_error` and 500 are for us to mend, and not for strangers to ring."""
    base = client._base_url
    assert base is not None
    _, writer = await asyncio.open_connection(base.host, base.port)
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    writer.write(head + b"Content-Length: 9\r\n\r\na=b")
    await eventually(lambda: sample.echoes)
    writer.close()
    await eventually(log.getvalue)
    (line,) = [json.loads(one) for one in log.getvalue().splitlines()]
    assert (line["event"], line["status"], line["error_code"]) == ("request", 400, "ConnectionResetError")


async def test_headers_that_are_too_large_or_too_many_get_431(client: ClientSession) -> None:
    """A limit on everything: 8 KiB a line, 64 headers; and the answer repeats nothing of the request."""
    for headers in ({"X-Large": "x" * 9000}, {f"X-{n}": "x" for n in range(80)}):
        async with client.post("/echo", data={"a": "b"}, headers=headers) as answer:
            assert answer.status == 431
            assert "Server" not in answer.headers
            assert "xxx" not in await answer.text()


async def test_no_answer_is_cached_or_names_the_server(client: ClientSession) -> None:
    """`no-store` is the default on errors too, and versions are nobody's business."""
    for path in ("/echo", "/store", "/crash", "/nowhere", "/healthz"):
        async with client.post(path, data={"a": "b"}) as answer:
            assert answer.headers["Cache-Control"] == "no-store"
            assert "Server" not in answer.headers
            assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_each_request_is_one_log_line_without_query_body_or_secret(client: ClientSession, log: StringIO) -> None:
    """A log that is copied to ten places must hold nothing worth stealing."""
    async with client.post("/echo?token=kt_at_1234", data={"client_secret": "kt_cs_5678"}):
        pass
    async with client.post("/kt_at_path", data={"client_secret": "kt_cs_5678"}):
        pass
    async with client.post("/crash"):
        pass
    told = log.getvalue()
    lines = [json.loads(line) for line in told.splitlines()]
    assert [line["path"] for line in lines if line["event"] == "request"] == ["/echo", "?", "/crash"]
    assert "RuntimeError" in told
    assert not any(secret in told for secret in ("1234", "5678", "kt_at_path", "not_for_your_eyes"))


async def test_what_was_foreseen_is_logged_with_its_reason_and_is_no_unexpected_error(
    client: ClientSession, log: StringIO
) -> None:
    """Any caller can ask for what no signer makes here: the log names the settings, and no alarm rings."""
    async with client.post("/unsigned") as answer:
        assert answer.status == 501
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["unavailable", "request"]
    assert "sample.signer" in lines[0]["reason"]


async def test_each_request_is_counted_by_its_route_and_probes_write_no_line(
    client: ClientSession, log: StringIO
) -> None:
    """A label that a stranger chooses would fill the metrics; a line for each probe would fill the log."""
    for path in ("/healthz", "/readyz", "/metrics"):
        async with client.get(path) as answer:
            assert answer.status == 200
    for kind in ("application/x-www-form-urlencoded", "application/json"):
        async with client.post("/echo", data=b"a=b", headers={"Content-Type": kind}) as answer:
            await answer.read()
    async with client.delete("/kt_at_path") as answer:
        assert answer.status == 404
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    told = [(one["method"], one["path"], one["status"]) for one in lines if one["event"] == "request"]
    assert told == [("POST", "/echo", 200), ("POST", "/echo", 415), ("?", "?", 404)]
    assert all(0 < one["ms"] < 10_000 for one in lines if one["event"] == "request")
    async with client.get("/metrics") as answer:
        shown = await answer.text()
    for path, status in (("/echo", 200), ("/echo", 415), ("?", 404), ("/metrics", 200)):
        assert f'keyturn_http_request_seconds_count{{path="{path}",status="{status}"}} 1.0' in shown


async def test_a_busy_port_is_a_configuration_error(stage: Standing, client: ClientSession) -> None:
    """The second process on a port says so and ends with 2, instead of a stack trace."""
    port = client._base_url.port if client._base_url else 0
    with pytest.raises(ExceptionGroup) as caught:
        async with served(Sample(), stage, listen=f"127.0.0.1:{port}"):
            pass
    assert caught.group_contains(ConfigurationError, match="choose another")


def test_json_answers_are_compact_and_ordered() -> None:
    """Equal content gives equal bytes, which tests of indistinguishable answers rely on."""
    assert json_answer({"b": 1, "a": 2}).body == b'{"a":2,"b":1}'
    assert json.loads(str(json_answer({"a": "é"}).text)) == {"a": "é"}
