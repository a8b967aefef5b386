"""The main job as a person wants to see it: rotations and revocations under steady traffic, measured."""

import asyncio
import json
import tempfile
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import aiohttp
import jwt

from keyturn.clock import Clock, SystemClock
from keyturn.process.logging import configure_logging
from keyturn.process.settings import LogSettings
from stack.composition import Stack, running
from stack.devenv import read_dev_env
from stack.ledger import Held, Ledger, Life, percentile
from stack.plan import Orders
from stack.ports import free_port, is_taken
from stack.traffic import DemoFailed, Traffic

SIDECARS = 2
ROUNDS = 5  # Of one rotation and a batch of revocations each; one more comes after the restart.
REVOCATIONS_A_ROUND = 10
STEADY_CLIENTS = 4
TOKENS_AT_HAND = 12
DOWN_SECONDS = 6.0  # Past `stale`, which is 5 s here.
BETWEEN_SECONDS = 1.0  # Of steady traffic alone, after each event.
LONGEST_SECONDS = 120.0


async def demo(*, as_json: bool) -> None:
    """Run the demo; ends with exit status 1 if any answer was wrong."""
    clock = SystemClock()
    configure_logging(LogSettings(level="error"), process="demo")
    ledger = Ledger()
    with tempfile.TemporaryDirectory(prefix="keyturn-demo-") as directory:
        port, sidecar_port = _ports()
        orders = Orders(Path(directory), port=port, sidecar_port=sidecar_port, sidecars=SIDECARS)
        began = clock.boottime()
        async with (
            asyncio.timeout(LONGEST_SECONDS),
            running(orders, clock) as stack,
            aiohttp.ClientSession() as session,
        ):
            traffic = Traffic(read_dev_env(stack.env_file), ledger, clock, session)
            try:
                await _Show(stack, traffic, ledger, clock, began).run()
            finally:
                await traffic.close()
    _summarise(ledger, as_json=as_json)
    if ledger.false_rejects or ledger.false_accepts:
        raise SystemExit(1)


class _Show:
    """The order of events, each told in one line with what was measured."""

    def __init__(self, stack: Stack, traffic: Traffic, ledger: Ledger, clock: Clock, began: float) -> None:
        self._stack, self._traffic, self._ledger = stack, traffic, ledger
        self._clock, self._began = clock, began

    async def run(self) -> None:
        """Play it all, with steady traffic going on throughout."""
        self._say(f"ready: issuer {self._traffic.issuer}, {SIDECARS} sidecars, an embedded Valkey")
        for _ in range(TOKENS_AT_HAND):
            await self._traffic.sign_in()
        async with asyncio.TaskGroup() as group:
            steady = [group.create_task(self._traffic.steadily()) for _ in range(STEADY_CLIENTS)]
            await self._play()
            for task in steady:
                task.cancel()

    async def _play(self) -> None:
        rounds = [self._rotate, self._revoke_tokens] * ROUNDS
        for step in (
            *rounds,
            self._emergency,
            self._revoke_subject,
            self._kill_server,
            self._rotate,
            self._revoke_tokens,
        ):
            await step()
            await self._clock.sleep(BETWEEN_SECONDS)

    async def _rotate(self) -> None:
        old = (await self._traffic.sign_in()).kid
        began = self._clock.boottime()
        signed, receipt = await _both(
            self._traffic.until_signed_by_another(old), self._traffic.order("/keys/rotate", {"alg": "ES256"})
        )
        took = (signed - began) * 1000
        self._ledger.rotation_ms.append(took)
        self._say(
            f"rotation {old[:8]} → {receipt['kid'][:8]}: first token by the new key after {took:.1f} ms,"
            f" {receipt['adopted']}/{receipt['live']} sidecars; old tokens still pass"
        )

    async def _revoke_tokens(self) -> None:
        count, figures = REVOCATIONS_A_ROUND, []
        for _ in range(count):
            held = await self._traffic.sign_in()
            for sidecar in self._traffic.sidecars:
                await self._traffic.check(held, sidecar)
            claims = _claims(held)
            figures.append(await self._revoke([held], held, {"jti": claims["jti"]}))
        self._say(
            f"revoked {count} tokens: 401 at the last sidecar after"
            f" {percentile(figures, 0.5)} ms (median), {max(figures):.1f} ms (slowest)"
        )

    async def _revoke_subject(self) -> None:
        dying = self._ledger.live()
        took = await self._revoke(dying, dying[0], {"sub": _claims(dying[0])["sub"]})
        fresh = await self._traffic.sign_in()
        answers = [await self._traffic.check(fresh, sidecar) for sidecar in self._traffic.sidecars]
        self._say(
            f"revoked a subject with {len(dying)} tokens in {took:.1f} ms; a fresh sign-in right after: {answers}"
        )
        for _ in range(TOKENS_AT_HAND):
            await self._traffic.sign_in()

    async def _revoke(self, dying: list[Held], watched: Held, selector: dict[str, Any]) -> float:
        for held in dying:
            held.life = Life.DYING
        began = self._clock.boottime()
        refused, _ = await _both(
            self._traffic.until_refused(watched), self._traffic.order("/revocations", {"selector": selector})
        )
        for held in dying:
            held.life = Life.DEAD
        took = (refused - began) * 1000
        self._ledger.revocations += 1
        self._ledger.revocation_ms.append(took)
        return took

    async def _emergency(self) -> None:
        watched = await self._traffic.sign_in()
        dying = [held for held in self._ledger.live() if held.kid == watched.kid]
        for held in dying:
            held.life = Life.DYING
        began = self._clock.boottime()
        refused, _ = await _both(
            self._traffic.until_refused(watched),
            self._traffic.order(f"/keys/{watched.kid}/revoke", {"reason": "demo"}),
        )
        for held in dying:
            held.life = Life.DEAD
        fresh = await self._traffic.sign_in()
        self._ledger.emergencies += 1
        self._say(
            f"emergency: key {watched.kid[:8]} and {len(dying)} tokens refused everywhere after"
            f" {(refused - began) * 1000:.1f} ms; {fresh.kid[:8]} signs now"
        )

    async def _kill_server(self) -> None:
        server = self._stack.server
        if server is None:
            raise DemoFailed("the demo needs an embedded server to kill")
        verified = self._ledger.verified
        await server.kill()
        self._say("killed the server (SIGKILL); sidecars go on from memory")
        await self._clock.sleep(DOWN_SECONDS)
        answered = self._ledger.verified - verified
        await server.restart()
        back = self._clock.boottime()
        await self._traffic.sign_in()
        took = (self._clock.boottime() - back) * 1000
        self._say(
            f"restarted it: {answered} checks answered while it was down; tokens are issued again after {took:.0f} ms"
        )

    def _say(self, line: str) -> None:
        print(f"{self._clock.boottime() - self._began:6.2f} s  {line}", flush=True)


async def _both(measured: Awaitable[float], order: Awaitable[dict[str, Any]]) -> tuple[float, dict[str, Any]]:
    """Measure while an order is under way."""
    moment, receipt = await asyncio.gather(measured, order)
    return moment, receipt


def _summarise(ledger: Ledger, *, as_json: bool) -> None:
    for wrong in (*ledger.false_rejects[:5], *ledger.false_accepts[:5]):
        print(f"WRONG: {wrong}")
    summary = {
        "tokens_issued": ledger.tokens_issued,
        "verified": ledger.verified,
        "false_rejects": len(ledger.false_rejects),
        "false_accepts": len(ledger.false_accepts),
        "rotations": len(ledger.rotation_ms),
        "emergency_rotations": ledger.emergencies,
        "revocations": ledger.revocations,
        "revocation_ms": _figures(ledger.revocation_ms),
        "rotation_ms": _figures(ledger.rotation_ms),
        "sidecars": SIDECARS,
    }
    if as_json:
        print(json.dumps(summary), flush=True)
        return
    print()
    for name, value in summary.items():
        shown = ", ".join(f"{key} {figure}" for key, figure in value.items()) if isinstance(value, dict) else value
        print(f"{name.replace('_', ' '):>20}  {shown}")


def _figures(figures: list[float]) -> dict[str, float]:
    return {"p50": percentile(figures, 0.5), "p99": percentile(figures, 0.99)}


def _claims(held: Held) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(held.token, options={"verify_signature": False})
    return claims


def _ports() -> tuple[int, int]:
    """Return a free port for the issuer and the first of two neighbours for the sidecars."""
    while True:
        port, first = free_port(), free_port()
        if first != port and first + 1 not in (port, 65536) and not is_taken(first + 1):
            return port, first
