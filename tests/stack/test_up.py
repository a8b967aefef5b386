"""`make up`: one line when it is ready, a file to use it by, a clean end, and everything still there the next time."""

import re
import signal
import stat
from pathlib import Path

import pytest
from aiohttp import ClientSession, ClientTimeout, encode_basic_auth

from keyturn.process.values import Secret
from stack.plan import FEWEST_IDENTITIES
from stack.ports import free_port
from stack.server import EmbeddedServer
from tests.process.alive import is_there
from tests.stack.upping import Place, children_of, command_line, end, ended, free_neighbours, refused, stack, up
from tests.waiting import eventually

NAMES = [
    "KEYTURN_ISSUER", "KEYTURN_SIDECAR_URL", "KEYTURN_SIDECAR_URLS", "KEYTURN_REDIS_URL", "KEYTURN_ROOT",
    "KEYTURN_APP_ID", "KEYTURN_CLIENT_ID", "KEYTURN_CLIENT_SECRET", "KEYTURN_RESOURCE_ID", "KEYTURN_RESOURCE_SECRET",
    "KEYTURN_ADMIN_ID", "KEYTURN_ADMIN_SECRET", "KEYTURN_SIGNIN_ID", "KEYTURN_SIGNIN_SECRET",
]  # fmt: skip


class Person:
    """Somebody with a dev.env and curl."""

    def __init__(self, place: Place, http: ClientSession) -> None:
        """Read dev.env."""
        self._env, self._http = place.env, http

    async def token(self, who: str = "CLIENT") -> str:
        """Get a token by client credentials."""
        told = await self._post("/token", who, {"grant_type": "client_credentials"})
        return str(told["access_token"])

    async def check(self, token: str) -> int:
        """Ask the first sidecar."""
        headers = {"Authorization": f"Bearer {token}"}
        async with self._http.get(f"{self._env['KEYTURN_SIDECAR_URL']}/nginx/default", headers=headers) as response:
            return response.status

    async def revoke(self, token: str) -> None:
        """Revoke a token as its client, everywhere."""
        await self._post("/revoke?wait=all", "CLIENT", {"token": token})

    async def kids(self) -> set[str]:
        """Return the published keys."""
        async with self._http.get(f"{self._env['KEYTURN_ISSUER']}/.well-known/jwks.json") as response:
            return {key["kid"] for key in (await response.json(content_type=None))["keys"]}

    async def _post(self, path: str, who: str, form: dict[str, str]) -> dict[str, str]:
        login = encode_basic_auth(self._env[f"KEYTURN_{who}_ID"], self._env[f"KEYTURN_{who}_SECRET"])
        url = self._env["KEYTURN_ISSUER"] + path
        async with self._http.post(url, data=form, headers={"Authorization": login}) as response:
            told: dict[str, str] = await response.json(content_type=None)
            assert response.status == 200, told
            return told


async def test_it_says_when_it_is_ready_and_ends_cleanly_with_what_it_held_kept(tmp_path: Path) -> None:
    """Keys and revocations outlive it: a token from yesterday works, and a revoked one does not come back."""
    place = Place.under(tmp_path / "dir")
    async with ClientSession(timeout=ClientTimeout(total=10)) as http:
        async with up(place, "--sidecars", "2") as (process, line):
            person, children = Person(place, http), children_of(process.pid)
            env = place.env
            assert line.startswith("ready")
            assert env["KEYTURN_ISSUER"] in line
            assert all(url in line for url in env["KEYTURN_SIDECAR_URLS"].split(","))
            assert len(children) == 3  # Two sidecars and the store.
            good, bad, kids = await person.token(), await person.token(), await person.kids()
            await person.revoke(bad)
            assert [await person.check(good), await person.check(bad)] == [200, 401]
            assert await end(process, signal.SIGINT) == 0
        await eventually(lambda: not any(is_there(child) for child in children))
        async with up(place, "--sidecars", "1") as (process, _):
            person, children = Person(place, http), children_of(process.pid)
            assert [await person.check(good), await person.check(bad)] == [200, 401]
            assert await person.kids() == kids
            status, log = await ended(process, signal.SIGTERM)
            assert (status, "task_restarted" in log) == (0, False), log
        await eventually(lambda: not any(is_there(child) for child in children))
    assert not (place.directory / "dev.env.new").exists()


async def test_dev_env_is_private_plain_and_complete(tmp_path: Path) -> None:
    """Other tools read it line by line: names of the interface, absolute paths, no quotes."""
    place = Place.under(tmp_path / "dir")
    async with up(place, "--sidecars", "2"):
        file = place.directory / "dev.env"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert [line.partition("=")[0] for line in file.read_text().splitlines()] == NAMES
        assert all(re.fullmatch(r"[A-Z_]+=[^\s'\"]+", line) for line in file.read_text().splitlines())
        env = place.env
        assert env["KEYTURN_ROOT"] == str(place.directory / "root.jwk")
        assert place.directory.is_absolute()
        assert env["KEYTURN_ISSUER"] == f"http://127.0.0.1:{place.port}"
        assert env["KEYTURN_SIDECAR_URLS"].split(",") == [
            f"http://127.0.0.1:{place.sidecar_port + index}" for index in range(2)
        ]
        assert env["KEYTURN_SIDECAR_URL"] == env["KEYTURN_SIDECAR_URLS"].split(",")[0]
        await _refusals_beside(place, tmp_path)


async def _refusals_beside(place: Place, tmp_path: Path) -> None:
    """Try what cannot work while a stack runs: each is one line and status 2, and the stack goes on."""
    elsewhere = Place.under(place.directory)
    assert f"another stack runs in {place.directory}" in await refused(*elsewhere.arguments())
    busy = Place(tmp_path / "busy", place.port, free_port())
    assert f"port {place.port} is taken (--port: " in await refused(*busy.arguments())
    busy = Place(tmp_path / "busy", free_port(), place.sidecar_port)
    assert f"port {place.sidecar_port} is taken (--sidecar-port: " in await refused(*busy.arguments())
    async with ClientSession(timeout=ClientTimeout(total=10)) as http:
        person = Person(place, http)
        assert await person.check(await person.token()) == 200


async def test_a_directory_that_was_made_for_another_issuer_is_refused(tmp_path: Path) -> None:
    """Its tokens carry the old issuer's name, and every verifier would refuse the new one's."""
    place = Place.under(tmp_path / "dir")
    async with up(place):
        pass
    other = Place(place.directory, free_port(), place.sidecar_port)
    said = await refused(*other.arguments())
    assert f"was made for issuer http://127.0.0.1:{place.port} (--port: " in said
    many = FEWEST_IDENTITIES + 1
    more = Place(place.directory, place.port, free_neighbours(many))
    said = await refused(*more.arguments("--sidecars", str(many)))
    assert f"has no identity for sidecar-{many} (--sidecars: " in said


@pytest.mark.parametrize(
    "arguments",
    [("up", "--port", "0"), ("up", "--port", "x"), ("up", "--sidecars", "-1"), ("up", "--prot", "1"), ("down",), ()],
)
async def test_wrong_usage_is_status_2(arguments: tuple[str, ...]) -> None:
    """As every command has it."""
    process_words = await _usage(*arguments)
    assert "usage: python -m stack" in process_words


async def _usage(*arguments: str) -> str:
    process = await stack(*arguments)
    _, said = await process.communicate()
    assert process.returncode == 2
    return said.decode()


async def test_it_runs_on_a_server_that_runs_already(tmp_path: Path) -> None:
    """Then it starts none of its own, and leaves that one alone at the end; its password stays out of argv."""
    password = "sesame-of-a-stranger"
    acl = tmp_path / "users.acl"
    acl.write_text(f"user default on >{password} ~* &* +@all\n")
    async with EmbeddedServer(
        tmp_path / "server", aclfile=acl, user="default", password=Secret(password.encode())
    ) as server:
        url = f"redis://default:{password}@127.0.0.1:{server.port}/0"
        place = Place.under(tmp_path / "dir")
        async with up(place, "--redis-url", url) as (process, _), ClientSession() as http:
            assert place.env["KEYTURN_REDIS_URL"] == url
            assert len(children_of(process.pid)) == 1
            assert password not in "".join(map(command_line, children_of(process.pid)))
            person = Person(place, http)
            token = await person.token()
            assert await person.check(token) == 200
            await person.revoke(token)
            assert await person.check(token) == 401
            assert await end(process) == 0
        assert server.running
        stranger = Place.under(tmp_path / "stranger")
        said = await refused(*stranger.arguments("--redis-url", url))
        assert "not signed by this root (trust.root: " in said
