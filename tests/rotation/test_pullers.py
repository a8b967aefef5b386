"""Clients that pull the JWKS, and sidecars that are pushed, through a hundred rotations: no good token is refused."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
import pytest
from jwt import PyJWKClient

from keyturn.cli.newclients import DEFAULT_AUDIENCE
from keyturn.clock import SystemClock
from tests.faults.fleet import Fleet
from tests.faults.people import People, people_of
from tests.faults.recorder import Held
from tests.interop.node_process import NodeProcess
from tests.interop.test_jose import node_service
from tests.waiting import eventually

ROTATIONS = 100
COOL_DOWN_SECONDS = 0.1
BETWEEN_SECONDS = 0.6
CLOCK = SystemClock()
# C is longer than the clients' cool-down. Eight standbys, published 5 s ahead, so that one is ready every 0.6 s.
SETTINGS = {
    "FRESHNESS__SKEW": "200ms", "FRESHNESS__STALE": "2s", "FRESHNESS__EXPIRED": "4s",
    "ROTATION__BARRIER": "both", "ROTATION__CACHE": "500ms", "ROTATION__STANDBYS": "8",
}  # fmt: skip
EVERYBODY = ("keyservice", "authorization", "revocation", "sidecar-1", "sidecar-2")


@dataclass
class Issuer:
    """What a client that pulls must know of an issuer."""

    fleet: Fleet

    async def metadata(self) -> dict[str, str]:
        """Return issuer and JWKS, which is all that is asked for here."""
        return {"issuer": self.fleet.issuer, "jwks_uri": f"{self.fleet.url('keyservice')}/.well-known/jwks.json"}


@dataclass
class Pullers:
    """A Node service with `jose`, a Python service with PyJWKClient, and two sidecars; all that they refused."""

    fleet: Fleet
    people: People
    jose: NodeProcess
    pyjwk: PyJWKClient
    checked: int = 0
    refused: list[str] = field(default_factory=list)
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def check(self, held: Held) -> None:
        """Let everybody verify a token that is good."""
        async with self._one_at_a_time:
            told = await self.jose.ask(token=held.text)
        self._note("jose", told.get("error"))
        self._note("PyJWKClient", await asyncio.to_thread(self._pyjwk, held.text))
        for status in await self.people.statuses(held):
            self._note("sidecar", None if status == 200 else status)

    def _pyjwk(self, token: str) -> str | None:
        try:
            key = self.pyjwk.get_signing_key_from_jwt(token).key
            jwt.decode(token, key, algorithms=["ES256"], audience=DEFAULT_AUDIENCE, issuer=self.fleet.issuer)
        except jwt.PyJWTError as error:
            return f"{type(error).__name__}: {error}"
        return None

    def _note(self, who: str, objection: Any) -> None:
        self.checked += 1
        if objection is not None:
            self.refused.append(f"{who}: {objection}")


@pytest.fixture
async def people(tmp_path: Path) -> AsyncIterator[People]:
    """Run a fleet whose C fits clients that pull."""
    async with Fleet(tmp_path / "keyturn", *EVERYBODY, settings=SETTINGS) as fleet, people_of(fleet) as people:
        yield people


async def rotated(people: People) -> None:
    """Rotate; where the store is late on a busy machine (503), ask again, as a client does."""
    await eventually(lambda: _is_200(people), within_seconds=20)


async def _is_200(people: People) -> bool:
    return await people.rotate() == 200


async def token_of(people: People) -> Held:
    """Get a token, asking again where the issuer cannot now."""
    held: list[Held] = []

    async def had() -> bool:
        one = await people.sign_in()
        if one is not None:
            held.append(one)
        return one is not None

    await eventually(had, within_seconds=20)
    return held[0]


async def test_a_hundred_rotations_and_two_at_the_clients_defaults_refuse_no_good_token(people: People) -> None:
    """Poll and cache are where rotations break elsewhere: a key that is published in time is never news."""
    await people.rotate()  # The first of a new issuer's standbys has to wait its time; from then on one is ready.
    fleet, tokens = people.fleet, [await people.token()]
    uri = (await Issuer(fleet).metadata())["jwks_uri"]
    quick = PyJWKClient(uri, cooldown_duration=COOL_DOWN_SECONDS)
    async with node_service(Issuer(fleet), cooldownMs=COOL_DOWN_SECONDS * 1000) as jose:  # type: ignore[arg-type]
        pullers = Pullers(fleet, people, jose, quick)

        async def load() -> None:
            turn = 0
            while True:
                turn += 1
                await pullers.check(tokens[-1 - turn % min(len(tokens), 12)])
                await CLOCK.sleep(0.02)

        async with asyncio.TaskGroup() as group:
            busy = group.create_task(load())
            for _ in range(ROTATIONS):
                await CLOCK.sleep(BETWEEN_SECONDS)
                await rotated(people)
                tokens.append(await token_of(people))
                await pullers.check(tokens[-1])
            busy.cancel()
        for held in tokens[:: ROTATIONS // 20]:
            await pullers.check(held)
    kids = {jwt.get_unverified_header(held.text)["kid"] for held in tokens}
    assert len(kids) == ROTATIONS + 1
    async with node_service(Issuer(fleet)) as jose:  # type: ignore[arg-type]
        at_defaults = Pullers(fleet, people, jose, PyJWKClient(uri))
        await at_defaults.check(tokens[-1])
        for _ in range(2):
            await rotated(people)
            await at_defaults.check(await token_of(people))
    assert pullers.refused == []
    assert at_defaults.refused == []
    assert pullers.checked > 4 * ROTATIONS
