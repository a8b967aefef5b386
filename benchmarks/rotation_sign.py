"""Row SIGN: ES256 through the key service's signing listener, in its largest batches, beside raw `cryptography`."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from aiohttp import ClientSession, UnixConnector
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from benchmarks.load import LOAD_CPU, SERVER_CPU, MeasurementSpoiledError, pinned
from benchmarks.rounds import Row
from benchmarks.services import Services, cpu_seconds, running
from keyturn import entropy
from keyturn.cli.newclients import DEFAULT_AUDIENCE
from keyturn.clock import SystemClock
from keyturn.contract.assertions import sign_assertion
from keyturn.contract.encoding import decode_object, encode_json
from keyturn.contract.envelope import StatementKey
from keyturn.contract.jwk import load_ed25519_private
from serving.signing import MOST_TOGETHER

GOAL = 0.7
ROUNDS, SECONDS = 7, 1.5
BATCH, TOGETHER = MOST_TOGETHER, 3
SIGNING_INPUT_BYTES = 560  # Header and claims of a usual access token.


def measure(directory: Path) -> list[Row]:
    """Measure both in turn on the same CPU; the client is on the other."""
    with pinned(LOAD_CPU):
        return [asyncio.run(_measure(directory / "home"))]


async def _measure(home: Path) -> Row:
    async with AsyncExitStack() as stack:
        services = await stack.enter_async_context(running(home, "keyservice", "revocation", cpu=SERVER_CPU))
        http = await stack.enter_async_context(ClientSession(connector=UnixConnector(str(services.socket))))
        client = _Client(services, http)
        signer, ourselves = services.pids["keyservice"], os.getpid()
        await _sample(client.rate, signer, 1.0)
        raw, signed = [], []
        for number in range(1, ROUNDS + 1):
            raw.append(await _sample(_raw, ourselves, SECONDS))
            signed.append(await _sample(client.rate, signer, SECONDS))
            shown = f"raw {raw[-1].rate:,.0f}/s, through the listener {signed[-1].rate:,.0f}/s"
            print(f"  round {number} of {ROUNDS}: {shown}", file=sys.stderr, flush=True)
    # By the CPU that each has used: others on its CPU then cost it nothing.
    figure = median(mine.per_cpu_second / theirs.per_cpu_second for mine, theirs in zip(signed, raw, strict=True))
    facts: dict[str, float] = {}
    for name, samples in (("raw ES256 signatures", raw), (f"ES256 tokens in batches of {BATCH}", signed)):
        facts[f"{name}/s"] = round(median(one.rate for one in samples))
        facts[f"{name}/CPU s"] = round(median(one.per_cpu_second for one in samples))
    facts["signer CPU share"] = round(median(one.cpu_share for one in signed), 2)
    what = f"ES256 through the signing listener, batches of {BATCH} / raw cryptography"
    return Row(id="SIGN", what=what, goal=f">= {GOAL:.2f}", figure=round(figure, 3), holds=figure >= GOAL, facts=facts)


@dataclass(frozen=True, slots=True)
class _Sample:
    rate: float
    cpu_share: float

    @property
    def per_cpu_second(self) -> float:
        return self.rate / self.cpu_share


async def _sample(rate_of: Callable[[float], Awaitable[float]], pid: int, seconds: float) -> _Sample:
    clock = SystemClock()
    began, cpu = clock.boottime(), cpu_seconds(pid)
    rate = await rate_of(seconds)
    return _Sample(rate, (cpu_seconds(pid) - cpu) / (clock.boottime() - began))


async def _raw(seconds: float) -> float:
    """Return signatures a second of the library alone, on the server's CPU."""
    key, algorithm, clock = ec.generate_private_key(ec.SECP256R1()), ec.ECDSA(SHA256()), SystemClock()
    message = entropy.token_bytes(SIGNING_INPUT_BYTES)
    with pinned(SERVER_CPU):
        count, began = 0, clock.boottime()
        while clock.boottime() - began < seconds:
            for _ in range(BATCH):
                key.sign(message, algorithm)
            count += BATCH
        return count / (clock.boottime() - began)


class _Client:
    """The authorization service as far as the signer sees it: a few batches are always under way."""

    def __init__(self, services: Services, http: ClientSession) -> None:
        jwk = decode_object((services.directory / "identities" / "authorization.jwk").read_bytes())
        self._key, self._http, self._clock = StatementKey(load_ed25519_private(jwk)), http, SystemClock()
        self._body = encode_json({"tokens": [self._wanted(number) for number in range(BATCH)]})

    def _wanted(self, number: int) -> dict[str, Any]:
        now = self._clock.now()
        claims = {
            "sub": f"service-account-{number}", "client_id": f"client-{number}", "aud": DEFAULT_AUDIENCE,
            "scope": "read write orders:read orders:write", "exp": now + 3600, "jti": entropy.uuid7(now),
            "grant_id": entropy.uuid7(now),
        }  # fmt: skip
        return {"typ": "at+jwt", "claims": claims, "alg": "ES256"}

    async def rate(self, seconds: float) -> float:
        """Return tokens a second."""
        began = self._clock.boottime()
        until = began + seconds
        counts = await asyncio.gather(*(self._ask_until(until) for _ in range(TOGETHER)))
        return sum(counts) / (self._clock.boottime() - began)

    async def _ask_until(self, until: float) -> int:
        count = 0
        while self._clock.boottime() < until:
            await self._ask()
            count += BATCH
        return count

    async def _ask(self) -> None:
        now = self._clock.now()
        assertion = sign_assertion(
            self._key, service="authorization", method="POST", path="/sign", body=self._body, now=now,
            jti=entropy.uuid7(now),
        )  # fmt: skip
        headers = {
            "Authorization": f"Keyturn-Assertion {assertion}", "X-Keyturn-Service": "authorization",
            "Content-Type": "application/json",
        }  # fmt: skip
        async with self._http.post("http://signer/sign", data=self._body, headers=headers) as answer:
            told = await answer.read()
            if answer.status != 200 or told.count(b'"eyJ') != BATCH:  # noqa: PLR2004
                raise MeasurementSpoiledError(f"the signer answered {answer.status}")
