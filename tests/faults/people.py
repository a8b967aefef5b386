"""Those who use a fleet over HTTP: a client, a gateway and an operator, all of them noting what they were told."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from aiohttp import ClientSession, ClientTimeout, encode_basic_auth

from tests.faults.fleet import Fleet
from tests.faults.recorder import CLOCK, Answer, Held, Order, Recorder, Rotation, Seen
from tests.waiting import eventually

Got = TypeVar("Got")

ANSWER_SECONDS = 12.0
COME_AGAIN_SECONDS = 5.0  # A busy machine keeps a heartbeat waiting, and the issuer then says 503 for a moment.


class People:
    """Everybody, over keep-alive connections; what a service refuses is noted in `refused` with its Retry-After."""

    def __init__(self, fleet: Fleet, http: ClientSession) -> None:
        """Know a fleet."""
        self.fleet, self.recorder = fleet, Recorder()
        self.refused: list[tuple[int, str | None]] = []
        self._http, self._admin_token = http, ""

    async def sign_in(self) -> Held | None:
        """Get a token as the client does; None where the issuer says that it cannot now."""
        form, asked_at = {"grant_type": "client_credentials"}, CLOCK.boottime()
        told = await self.ask("authorization", "/token", form=form, who="client")
        if told is None:
            return None
        held = Held(told[1]["access_token"], asked_at, CLOCK.boottime())
        self.recorder.tokens.append(held)
        return held

    async def token(self) -> Held:
        """Get a token, which must be had."""
        return await self._had(self.sign_in)

    async def _had(self, ask: Callable[[], Awaitable[Got | None]]) -> Got:
        """Return what is given in the end: who is told to come again does so, as any client would."""
        got: list[Got] = []

        async def is_had() -> bool:
            got.extend(one for one in [await ask()] if one is not None)
            return bool(got)

        await eventually(is_had, within_seconds=COME_AGAIN_SECONDS, saying=lambda: self.refused[-1:])
        return got[0]

    async def check(self, held: Held, sidecar: str) -> Answer:
        """Ask a sidecar about a token as nginx does."""
        began = CLOCK.boottime()
        headers = {"Authorization": f"Bearer {held.text}"}
        async with self._http.get(f"{self.fleet.url(sidecar)}/nginx/default", headers=headers) as response:
            state = response.headers.get("X-Auth-State", "")
            if response.status == 503:
                assert "Retry-After" in response.headers
            answer = Answer(held, sidecar, began, CLOCK.boottime(), response.status, state)
        self.recorder.answers.append(answer)
        return answer

    async def statuses(self, held: Held) -> list[int]:
        """Ask every sidecar that runs."""
        return [(await self.check(held, name)).status for name in self.sidecars()]

    async def opaque(self) -> str:
        """Get an opaque token, which must be had."""
        form = {"grant_type": "client_credentials", "token_format": "opaque"}
        told = await self._had(lambda: self.ask("authorization", "/token", form=form, who="client"))
        return str(told[1]["access_token"])

    async def introspect(self, held: Held) -> bool | None:
        """Ask the introspection service; None where it cannot tell."""
        return await self.introspect_text(held.text)

    async def introspect_text(self, text: str) -> bool | None:
        """Ask about any token, which may be an opaque one."""
        told = await self.ask("introspection", "/introspect", form={"token": text}, who="resource")
        return None if told is None else bool(told[1]["active"])

    async def revoke(self, held: Held, *, wait: bool = True) -> int | None:
        """Order a token's revocation; return the status, None where the outcome is unknown."""
        held.order = held.order or Order(CLOCK.boottime())
        query = "?wait=all&timeout=5" if wait else ""
        told = await self.order("revocation", f"/revocations{query}", {"selector": {"jti": held.jti}})
        return _promised(held.order, told, wait=wait)

    async def revoke_key(self, kid: str) -> int | None:
        """Order a key's revocation, and with it that of all that it signed; return the status."""
        order = self.recorder.keys.setdefault(kid, Order(CLOCK.boottime()))
        told = await self.order("keyservice", f"/keys/{kid}/revoke?wait=all&timeout=5", {})
        return _promised(order, told, wait=True)

    async def rotate(self, name: str = "keyservice") -> int | None:
        """Order a rotation; return the status."""
        sent_at = CLOCK.boottime()
        told = await self.order(name, "/keys/rotate?wait=all&timeout=5", {})
        if told is not None and told[0] == 200:
            self.recorder.rotations.append(Rotation(sent_at, CLOCK.boottime(), told[1]["kid"]))
        return None if told is None else told[0]

    async def order(self, name: str, path: str, body: Mapping[str, Any]) -> tuple[int, Any] | None:
        """Send an operator's order; None where the service says that it cannot now.

        A store that came back empty has forgotten the operator's token, which is opaque: he signs in again.
        """
        told = await self._order(name, path, body)
        if told is None and self.refused[-1][0] == 401:
            self.refused.pop()
            self._admin_token = ""
            told = await self._order(name, path, body)
        return told

    async def _order(self, name: str, path: str, body: Mapping[str, Any]) -> tuple[int, Any] | None:
        if not self._admin_token:
            form = {"grant_type": "client_credentials"}
            told = await self.ask("authorization", "/token", form=form, who="admin")
            if told is None:
                return None
            self._admin_token = told[1]["access_token"]
        return await self.ask(name, path, json=body, headers={"Authorization": f"Bearer {self._admin_token}"})

    async def look(self, name: str, path: str) -> int:
        """Look at something as an operator; return the status."""
        headers = {"Authorization": f"Bearer {self._admin_token}"}
        async with self._http.get(self.fleet.url(name) + path, headers=headers) as response:
            await response.read()
            return response.status

    async def state(self, sidecar: str) -> dict[str, Any]:
        """Return what a sidecar says of itself."""
        began_at = CLOCK.boottime()
        async with self._http.get(f"{self.fleet.url(sidecar)}/state") as response:
            told: dict[str, Any] = await response.json()
        self.recorder.states.append(Seen(sidecar, began_at, CLOCK.boottime(), told["state"]))
        return told

    async def are(self, state: str) -> bool:
        """Say whether all sidecars are in a state."""
        return all([(await self.state(name))["state"] == state for name in self.sidecars()])

    async def metric(self, sidecar: str, name: str) -> float:
        """Return a figure without labels that a sidecar exports."""
        async with self._http.get(f"{self.fleet.url(sidecar)}/metrics") as response:
            lines = (await response.text()).splitlines()
        return next(float(line.split(" ")[1]) for line in lines if line.startswith(f"{name} "))

    async def well(self) -> bool:
        """Say whether everything works: a token can be had and all sidecars are fresh and pass it."""
        held = await self.sign_in()
        return held is not None and await self.are("fresh") and set(await self.statuses(held)) == {200}

    def sidecars(self) -> list[str]:
        """Name the sidecars that run."""
        return [name for name in self.fleet.processes if name.startswith("sidecar")]

    async def ask(
        self, name: str, path: str, *, who: str = "", headers: Mapping[str, str] | None = None, **body: Any
    ) -> tuple[int, Any] | None:
        """Post a form or JSON as a client or with headers; None, and a note, where it is refused."""
        credentials = {"Authorization": encode_basic_auth(who, self.fleet.secret(who))} if who else {}
        if "form" in body:
            body["data"] = body.pop("form")
        url = self.fleet.url(name) + path
        async with self._http.post(url, headers={**credentials, **(headers or {})}, **body) as response:
            if response.status >= 400:
                self.refused.append((response.status, response.headers.get("Retry-After")))
                return None
            return response.status, await response.json(content_type=None)


@asynccontextmanager
async def people_of(fleet: Fleet) -> AsyncIterator[People]:
    """Let people at a fleet, once everything works."""
    async with ClientSession(timeout=ClientTimeout(total=ANSWER_SECONDS)) as http:
        people = People(fleet, http)
        await eventually(people.well, within_seconds=20, saying=fleet.last_words)
        people.recorder = Recorder()
        people.refused.clear()
        yield people


def _promised(order: Order, told: tuple[int, Any] | None, *, wait: bool) -> int | None:
    """Note what an answer promises; an earlier promise stands."""
    if told is None:
        return None
    now = CLOCK.boottime()
    order.acknowledged_at = order.acknowledged_at or now
    if wait and told[0] == 200:
        order.adopted_at = order.adopted_at or now
    return told[0]
