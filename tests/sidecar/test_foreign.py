"""A sidecar that takes tokens of another issuer: over HTTP, from a file of keys, and with that issuer away."""

import asyncio
import json
import re
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from keyturn.contract.positions import Lane
from keyturn.contract.selectors import Entry, Selector, SelectorKind
from keyturn.process.issuers import read_issuers
from keyturn.process.settings import Settings
from keyturn.sidecar.latecomers import MOST_WAITING_ABROAD
from keyturn.sidecar.settings import read_policies
from keyturn.verifier.issuers import COOL_DOWN_SECONDS
from keyturn.verifier.keysources import FILE_SECONDS, KeysTold
from keyturn.verifier.policy import Policy
from tests.sidecar.beside import NAME, Beside, sidecar_of
from tests.verifier.abroad import URL, Abroad
from tests.waiting import eventually
from tests.world import AUDIENCE, ISSUER, World, new_statement_key

GUIDE = Path(__file__).parents[2] / "docs/how-to/protect-tokens-of-your-provider.md"
POLICIES = {
    "default": Policy(audience=AUDIENCE, issuers=frozenset({ISSUER, URL})),
    "ours": Policy(audience=AUDIENCE, name="ours"),
}


@dataclass
class Desk:
    """A sidecar, another issuer, and the file by which its keys come."""

    beside: Beside
    abroad: Abroad
    file: Path

    async def status(self, token: bytes, policy: str = "default") -> int:
        """Return what a gateway hears."""
        return (await self.beside.check(token, policy)).status


def _write(file: Path, abroad: Abroad) -> None:
    file.write_bytes(abroad.jwks)


@asynccontextmanager
async def desk_at(file: Path) -> AsyncIterator[Desk]:
    """Run a sidecar that is ready, whose other issuer tells one key in a file."""
    world = World(verifiers={NAME: new_statement_key()})
    await world.begin()
    abroad = Abroad(world.clock, jwks=file)
    _write(file, abroad)
    async with sidecar_of(world, policies=POLICIES, issuers=(abroad.issuer,)) as beside:
        await beside.sidecar.follower.ready()
        await beside.publish(*world.first_key())
        await beside.beat()
        await eventually(lambda: beside.sidecar.issuers[0].trouble is None)
        yield Desk(beside, abroad, file)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """Run it for one test."""
    async with desk_at(tmp_path / "jwks.json") as one:
        yield one


async def test_a_gateway_lets_it_pass_with_the_headers_of_any_token(desk: Desk) -> None:
    """The API behind it reads one set of headers, whoever issued the token."""
    reply = await desk.beside.check(desk.abroad.mint())
    shown = {name: reply.headers[f"x-auth-{name}"] for name in ("subject", "client", "scope", "issuer", "token-id")}
    assert (reply.status, shown) == (
        200, {"subject": "alice", "client": "shop", "scope": "read", "issuer": URL, "token-id": ""},
    )  # fmt: skip
    assert await desk.status(desk.abroad.mint(), "ours") == 401
    assert await desk.status(desk.beside.world.mint()) == 200


async def test_the_sidecar_introspects_it(desk: Desk) -> None:
    """For a library beside it that asks by RFC 7662."""
    told = json.loads((await desk.beside.introspect(b"token=" + desk.abroad.mint())).body)
    assert (told["active"], told["iss"], told["client_id"], told["scope"]) == (True, URL, "shop", "read")
    stranger = Abroad(desk.beside.clock)
    assert (await desk.beside.introspect(b"token=" + stranger.mint())).body == b'{"active":false}'


async def test_a_pushed_revocation_ends_it_at_once(desk: Desk) -> None:
    """The provider's own tokens die here faster than the provider could end them."""
    token = desk.abroad.mint()
    assert await desk.status(token) == 200
    now = desk.beside.clock.now()
    selector = Selector(iss=URL, kind=SelectorKind.SUBJECT, value="alice", before=now)
    publisher = await desk.beside.publisher(Lane.REVOCATIONS)
    await publisher.append([Entry(selector=selector, until=now + 7200)])
    await desk.beside.settled()
    assert await desk.status(token) == 401
    desk.beside.clock.advance(1)
    await desk.beside.beat()
    assert await desk.status(desk.abroad.mint()) == 200


async def test_a_new_key_is_found_while_its_first_token_waits(desk: Desk) -> None:
    """The provider rotated, and its new tokens must not be refused meanwhile."""
    desk.abroad.rotate()
    _write(desk.file, desk.abroad)
    desk.beside.clock.advance(COOL_DOWN_SECONDS)
    await desk.beside.beat()
    assert await asyncio.gather(*(desk.status(desk.abroad.mint()) for _ in range(3))) == [200] * 3
    assert await desk.status(desk.abroad.mint(header={"kid": "invented"})) == 401


async def test_an_issuer_that_is_away_is_named_and_holds_up_nobody_else(desk: Desk) -> None:
    """/readyz says so and stays 200; its tokens are judged by the keys that are held, until those are too old."""
    token = desk.abroad.mint(exp=int(desk.beside.clock.now()) + 3600)
    assert await desk.beside.facts("/readyz") == {"status": "ready"}
    desk.file.unlink()
    desk.beside.clock.advance(FILE_SECONDS + 1)
    await desk.beside.beat()
    keys = desk.beside.sidecar.issuers[0]
    await eventually(lambda: keys.trouble is not None)
    warned = await desk.beside.facts("/readyz")
    assert warned["status"] == "ready"
    assert "cannot be read" in warned["warnings"]["issuer workforce"]
    assert await desk.status(token) == 200
    keys.usable_until = desk.beside.clock.boottime()
    reply = await desk.beside.check(token)
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert await desk.status(desk.beside.world.mint()) == 200
    facts = (await desk.beside.facts())["issuers"]["workforce"]
    assert (facts["keys"], facts["usable"]) == (1, False)
    metrics = (await desk.beside.ask("/metrics")).body.decode()
    assert 'keyturn_issuer_keys{issuer="workforce"} 1.0' in metrics
    assert 'keyturn_issuer_reads_failed_total{issuer="workforce"} ' in metrics


@pytest.fixture
async def hanging(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Let the other issuer answer only once this is set, and the last answer be older than the cool-down."""
    answers = asyncio.Event()

    async def read() -> KeysTold:
        await answers.wait()
        return await desk.abroad.read()

    monkeypatch.setattr(desk.beside.sidecar.issuers[0]._source, "read", read)
    desk.beside.clock.advance(COOL_DOWN_SECONDS)
    await desk.beside.beat()
    return answers


async def test_invented_keys_of_a_slow_issuer_do_not_take_the_places_of_ours(
    desk: Desk, hanging: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger who writes the provider's name into tokens must not fill our own queue."""
    monkeypatch.setattr("keyturn.sidecar.latecomers.PATIENCE_SECONDS", 60.0)
    (queue,) = desk.beside.sidecar.latecomers.queues[1:]
    strangers = [desk.abroad.mint(header={"kid": f"invented-{number}"}) for number in range(MOST_WAITING_ABROAD)]
    waiting = asyncio.gather(*(desk.status(token) for token in strangers))
    await eventually(lambda: queue.waiting == MOST_WAITING_ABROAD)
    assert await desk.status(desk.abroad.mint(header={"kid": "one more"})) == 503
    assert desk.beside.sidecar.latecomers.ours.waiting == 0
    assert [await desk.status(one) for one in (desk.beside.world.mint(), desk.abroad.mint())] == [200, 200]
    hanging.set()
    assert (set(await waiting), desk.abroad.asked) == ({401}, 1)


async def test_nobody_waits_for_ever_for_a_slow_issuer(
    desk: Desk, hanging: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway would give up first, and say something else than 503; the look itself goes on."""
    monkeypatch.setattr("keyturn.sidecar.latecomers.PATIENCE_SECONDS", 0.02)
    stranger = desk.abroad.mint(header={"kid": "invented"})
    assert await desk.status(stranger) == 503
    hanging.set()
    await eventually(lambda: desk.beside.sidecar.issuers[0]._flight is None)
    assert (await desk.status(stranger), desk.abroad.asked) == (401, 1)


def test_a_policy_names_issuers_by_their_sections(tmp_path: Path) -> None:
    """And `own` for ours; a name that nobody described is a typing error."""
    abroad = {"workforce": Abroad(World().clock).issuer}
    for issuers, expected in ((None, {ISSUER}), (["own", "workforce"], {ISSUER, URL}), (["workforce"], {URL})):
        section = {"audience": AUDIENCE} | ({} if issuers is None else {"issuers": issuers})
        settings = Settings({"policy": {"default": section}}, {}, beside=tmp_path)
        assert read_policies(settings, ISSUER, abroad)["default"].issuers == frozenset(expected)
    for issuers in ([], ["work"], [URL]):
        settings = Settings({"policy": {"default": {"audience": AUDIENCE, "issuers": issuers}}}, {}, beside=tmp_path)
        with pytest.raises(Exception, match=r"policy\.default\.issuers"):
            read_policies(settings, ISSUER, abroad)


def test_the_settings_of_the_guide_can_be_read(tmp_path: Path) -> None:
    """What people copy has to work."""
    (shown,) = re.findall(r"```toml\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    settings = Settings(tomllib.loads(shown), {}, beside=tmp_path)
    issuers = read_issuers(settings, own=ISSUER)
    assert issuers["workforce"].url == URL
    assert read_policies(settings, ISSUER, issuers)["default"].issuers == frozenset({ISSUER, URL})
