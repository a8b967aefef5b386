"""Reading another issuer's keys: from a file, over HTTP, and by its metadata."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from keyturn.clock import SystemClock
from keyturn.contract.encoding import encode_json
from keyturn.verifier.keysources import (
    FILE_SECONDS,
    LARGEST_SET_BYTES,
    FileSource,
    HttpSource,
    KeysTold,
    SourceFailed,
    age_told,
    jwks_uri,
    metadata_urls,
)
from keyturn.verifier.pulling import ANSWER_SECONDS, pull
from serving.listening import listening
from tests.stores.encrypted import Authority

SET = b'{"keys":[{"kid":"a"}]}'
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def provider(routes: Mapping[str, Handler | bytes]) -> AsyncIterator[str]:
    """Serve handlers or bodies by path, and return the origin."""
    async with listening(application(routes), "127.0.0.1:0") as address:
        yield f"http://{address}"


@asynccontextmanager
async def encrypted(routes: Mapping[str, Handler | bytes], context: ssl.SSLContext) -> AsyncIterator[str]:
    """Serve them over TLS."""
    runner = web.AppRunner(application(routes))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        (address,) = runner.addresses
        yield f"https://127.0.0.1:{address[1]}"
    finally:
        await runner.cleanup()


def application(routes: Mapping[str, Handler | bytes]) -> web.Application:
    """Return an application of handlers or bodies by path."""
    app = web.Application()

    def fixed(body: bytes) -> Handler:
        async def answer(_: web.Request) -> web.Response:
            return web.Response(body=body, headers={"Cache-Control": "public, max-age=600"})

        return answer

    for path, route in routes.items():
        handler = fixed(route) if isinstance(route, bytes) else route
        app.router.add_get(path, handler)
    return app


async def read(issuer: str, url: str | None = None) -> KeysTold | str:
    """Return what is told, or why nothing is."""
    try:
        return await HttpSource(issuer, SystemClock(), url=url).read()
    except SourceFailed as error:
        return str(error)


async def test_a_url_is_read_with_its_age() -> None:
    """The provider says how long its keys are good (RFC 9111, 5.2.2.1)."""
    async with provider({"/keys": SET}) as origin:
        assert await read("https://login.example", f"{origin}/keys?p=1") == KeysTold(SET, 600)


@pytest.mark.parametrize("tenant", ["", "/", "/tenant", "/tenant/"])
@pytest.mark.parametrize("kind", ["openid", "oauth"])
async def test_the_keys_are_found_by_the_issuers_metadata(kind: str, tenant: str) -> None:
    """OpenID Connect Discovery 4.1 appends, RFC 8414 3.1 inserts; a slash at the end of `iss` belongs to neither."""
    issuer = ""

    async def metadata(_: web.Request) -> web.Response:
        return web.json_response({"issuer": issuer, "jwks_uri": f"{origin}/keys"})

    path = tenant.removesuffix("/")
    places = {
        "openid": f"{path}/.well-known/openid-configuration",
        "oauth": f"/.well-known/oauth-authorization-server{path}",
    }
    async with provider({places[kind]: metadata, "/keys": SET}) as origin:
        issuer = f"{origin}{tenant}"
        assert await read(issuer) == KeysTold(SET, 600)
        issuer = "https://evil.example"
        assert "another issuer" in str(await read(f"{origin}{tenant}"))


def test_metadata_stands_where_both_specifications_put_it() -> None:
    """With real shapes of issuers."""
    assert metadata_urls("https://t.auth.example/")[0] == "https://t.auth.example/.well-known/openid-configuration"
    assert metadata_urls("https://a.example/x/v2.0") == (
        "https://a.example/x/v2.0/.well-known/openid-configuration",
        "https://a.example/.well-known/oauth-authorization-server/x/v2.0",
    )


@pytest.mark.parametrize(
    "url",
    [None, "", 7, "http://keys.example/k", "ftp://keys.example/k", "https://", "https://u:p@keys.example/k",
     "https://keys.example:0/k", "https://keys.example:99999/k", "file:///etc/passwd", "https://[::1", "/keys"],
)  # fmt: skip
def test_metadata_leads_nowhere_unsafe(url: object) -> None:
    """Whoever could rewrite keys on the way would sign as the issuer."""
    with pytest.raises(SourceFailed):
        jwks_uri(encode_json({"issuer": "https://a.example", "jwks_uri": url}), issuer="https://a.example")


async def test_a_redirect_is_not_followed() -> None:
    """Not even to the same host: an open redirect there must not choose our keys."""

    async def elsewhere(_: web.Request) -> web.Response:
        raise web.HTTPFound("/keys")

    async with provider({"/moved": elsewhere, "/keys": SET}) as origin:
        assert "status 302" in str(await read("https://login.example", f"{origin}/moved"))


async def test_only_who_has_the_certificate_of_that_host_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS is all that vouches for the keys: an unknown authority, or another host's certificate, ends it."""
    authority = Authority(tmp_path)
    for certified, trusted, believed in (
        ("127.0.0.1", False, False),
        ("127.0.0.2", True, False),
        ("127.0.0.1", True, True),
    ):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*authority.certify(certified))
        with monkeypatch.context() as patch:
            if trusted:
                patch.setenv("SSL_CERT_FILE", str(authority.ca_file))
            async with encrypted({"/keys": SET}, context) as origin:
                told = await read("https://login.example", f"{origin}/keys")
        assert (told == KeysTold(SET, 600)) is believed, told
        assert believed or "CERTIFICATE_VERIFY_FAILED" in str(told)


async def test_too_much_is_not_read() -> None:
    """A limit on everything that comes from others."""
    async with provider({"/keys": b" " * (LARGEST_SET_BYTES + 1)}) as origin:
        assert "more than" in str(await read("https://login.example", f"{origin}/keys"))


async def test_who_is_not_there_or_drips_is_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte may come in time and the answer never."""
    clock = SystemClock()

    async def dripping(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await clock.sleep(0.02)

    monkeypatch.setattr("keyturn.verifier.keysources.LONGEST_SECONDS", 0.1)
    async with provider({"/keys": dripping}) as origin:
        assert isinstance(await read("https://login.example", f"{origin}/keys"), str)
    assert "could not be asked" in str(await read("https://login.example", f"{origin}/keys"))


async def test_a_thread_does_not_outlive_the_moment_when_its_answer_is_late() -> None:
    """Threads are few: one that a slow server could hold for ever would be one less for all."""
    asked = 0

    def overdue() -> bool:
        nonlocal asked
        asked += 1
        return True

    async with provider({"/keys": SET}) as origin:
        answer = await pull(urlsplit(origin), "/keys", most_bytes=1000, overdue=overdue, longest_seconds=60)
    assert (answer, asked) == (None, 1)


def test_a_process_that_ends_does_not_wait_for_an_issuer_that_is_silent() -> None:
    """An orchestrator that restarts it must not have to kill it: the thread that waits is woken."""
    clock, began = SystemClock(), 0.0

    async def leave() -> None:
        nonlocal began
        asked, ended = asyncio.Event(), asyncio.Event()

        async def silent(_: web.Request) -> web.Response:
            asked.set()
            await ended.wait()
            return web.Response()

        async with provider({"/keys": silent}) as origin:
            reading = asyncio.create_task(read("https://login.example", f"{origin}/keys"))
            await asked.wait()
            began = clock.boottime()
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await asyncio.get_running_loop().shutdown_default_executor()
            ended.set()

    asyncio.run(leave())
    assert clock.boottime() - began < ANSWER_SECONDS / 2


async def test_a_file_is_read_anew_each_time(tmp_path: Path) -> None:
    """For issuers that cannot be reached from here; whoever changes the file need not restart anything."""
    source = FileSource(tmp_path / "jwks.json")
    with pytest.raises(SourceFailed, match="cannot be read"):
        await source.read()
    for content in (SET, b'{"keys":[]}'):
        (tmp_path / "jwks.json").write_bytes(content)
        assert await source.read() == KeysTold(content, FILE_SECONDS)
    (tmp_path / "jwks.json").write_bytes(b" " * (LARGEST_SET_BYTES + 1))
    with pytest.raises(SourceFailed, match="larger"):
        await source.read()


@pytest.mark.parametrize(
    ("control", "past", "age"),
    [
        ("", "0", 300), ("public, max-age=600, must-revalidate", "0", 600), ("max-age=0", "0", 60),
        ("max-age=86400", "0", 3600), ("no-store", "0", 60), ("no-cache", "0", 60), ('max-age="600"', "0", 600),
        ("No-Cache, Max-Age=600", "0", 60), ("s-max-age=9, max-age=600", "100", 500), ("max-age=600", "x", 600),
        ("max-age=99999999999999999999", "0", 300), ("max-age=-1", "0", 300), ("max-age=600", "9" * 30, 600),
    ],
)  # fmt: skip
def test_how_long_keys_are_good_is_bounded(control: str, past: str, age: float) -> None:
    """A withdrawn key must be missed within the hour, and a provider that forbids caching is not asked all the time."""
    assert age_told({"cache-control": control, "age": past}) == age
