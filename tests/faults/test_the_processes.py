"""A process dies or freezes: nobody takes its silence for consent."""

import asyncio
import json
import signal

import jwt
from aiohttp import ClientSession, ClientTimeout, UnixConnector

from keyturn import entropy
from keyturn.contract.assertions import sign_assertion
from keyturn.contract.encoding import encode_json
from keyturn.contract.envelope import StatementKey
from keyturn.contract.jwk import load_ed25519_private
from tests.faults.fleet import LEASE_SECONDS, Fleet, running_fleet
from tests.faults.people import People, people_of
from tests.faults.recorder import CLOCK
from tests.waiting import eventually

LONGEST_FREEZE_SECONDS = LEASE_SECONDS + 10
SIGNERS = 4


async def test_a_sidecar_that_is_killed_comes_back_knowing_what_was_revoked_meanwhile(people: People) -> None:
    """It answers nothing before it has read everything: a restart is no way to get a revoked token through."""
    fleet, live = people.fleet, await people.token()
    before, meanwhile = await people.token(), await people.token()
    assert await people.revoke(before) == 200
    assert await fleet.end("sidecar-2", signal.SIGKILL) == -signal.SIGKILL
    assert await people.revoke(meanwhile, wait=False) == 200
    assert await people.order("keyservice", "/keys/rotate?wait=all&timeout=1", {}), people.refused
    fleet.start("sidecar-2")
    await fleet.until_ready("sidecar-2")
    assert (await people.check(before, "sidecar-2")).status == 401
    assert (await people.check(meanwhile, "sidecar-2")).status == 401
    assert (await people.check(live, "sidecar-2")).status == 200
    assert (await people.check(await people.token(), "sidecar-2")).status == 200


async def test_a_receipt_names_a_sidecar_that_was_killed_as_a_laggard_while_it_could_still_serve(
    people: People,
) -> None:
    """It said no goodbye, so for all that is known it answers on: it must not be counted as having adopted."""
    fleet, held = people.fleet, await people.token()
    assert await fleet.end("sidecar-2", signal.SIGKILL) == -signal.SIGKILL
    told = await people.order("revocation", "/revocations?wait=all&timeout=1", {"selector": {"jti": held.jti}})
    assert told is not None
    status, receipt = told
    assert (status, receipt["laggards"], receipt["adopted"], receipt["live"]) == (202, ["sidecar-2"], 1, 2)
    fleet.start("sidecar-2")
    await fleet.until_ready("sidecar-2")


async def test_a_key_service_that_was_frozen_past_its_lease_signs_nothing_with_the_key_that_was_revoked() -> None:
    """What it was asked while it slept it must not answer on what it knew before; another signs meanwhile."""
    names = ("keyservice", "keyservice-2", "authorization", "revocation", "sidecar-1")
    async with running_fleet(*names) as fleet, people_of(fleet) as people:
        stolen = (await people.token()).kid
        fleet.freeze("keyservice")
        try:
            asked = [asyncio.create_task(sign(fleet, "keyservice")) for _ in range(SIGNERS)]
            frozen = CLOCK.boottime()
            told = await people.order("keyservice-2", f"/keys/{stolen}/revoke?wait=all&timeout=5", {})
            assert told is not None, people.refused
            assert told[0] == 200
            await eventually(lambda: CLOCK.boottime() > frozen + LEASE_SECONDS, within_seconds=LONGEST_FREEZE_SECONDS)
        finally:
            fleet.thaw("keyservice")
        answers = await asyncio.gather(*asked)
        assert stolen not in {kid for _, kid in answers}
        assert {status for status, _ in answers} <= {503, 200}
        assert 503 in {status for status, _ in answers}
        await eventually(people.well, within_seconds=10)
        assert (await people.token()).kid != stolen


async def sign(fleet: Fleet, name: str) -> tuple[int, str]:
    """Ask a key service for a signature as the authorization service does; return status and kid."""
    identity = json.loads((fleet.directory / "identities" / "authorization.jwk").read_text())
    key, now = StatementKey(load_ed25519_private(identity)), CLOCK.now()
    claims = {"sub": "client", "aud": "https://api.example", "exp": now + 60}
    body = encode_json({"tokens": [{"typ": "at+jwt", "claims": claims}]})
    assertion = sign_assertion(
        key, service="authorization", method="POST", path="/sign", body=body, now=now, jti=entropy.uuid7(now)
    )
    headers = {
        "Authorization": f"Keyturn-Assertion {assertion}",
        "X-Keyturn-Service": "authorization",
        "Content-Type": "application/json",
    }
    connector, timeout = UnixConnector(str(fleet.socket(name))), ClientTimeout(total=LONGEST_FREEZE_SECONDS + 5)
    async with (
        ClientSession(connector=connector, timeout=timeout) as http,
        http.post("http://signer/sign", data=body, headers=headers) as response,
    ):
        if response.status != 200:
            return response.status, ""
        [token] = (await response.json())["tokens"]
        return 200, str(jwt.get_unverified_header(token)["kid"])
