"""The key service over HTTP: the key set for everyone, and its care for operators."""

from typing import Any

import msgspec
from aiohttp import web

from keyservice.description import (
    FEED,
    IMPORT,
    JWKS,
    JWKS_TYPE,
    KEYS,
    LINES_TYPE,
    RESEAL,
    REVOKE_KEY,
    ROTATE,
    TRUST,
    VERIFIERS,
)
from keyservice.importing import Import, read_import
from keyservice.orders import exposure, read_emergency, read_rotation
from keyservice.parts import RotationParts
from keyservice.rotator import Outcome
from keyturn.contract.errors import FeedUnavailable, MalformedInput, ReplicaExpired
from keyturn.contract.jwks import Jwks, render_jwks
from keyturn.contract.keys import KeyRecord, KeySet, Use
from keyturn.contract.positions import Lane
from keyturn.contract.rotation import jwks_max_age
from keyturn.feed.lines import HIGHEST_SEQUENCE, numbered, render_line
from serving.authentication import require_admin
from serving.forms import read_json
from serving.openapi import Schema
from serving.parts import Parts
from serving.problems import NotFound, Style, answer_status, json_answer
from serving.receipts import Vouching, Wait, read_wait, receipt_of
from serving.records import RecordStore
from serving.routing import Handler, add_route

EPOCH_HEADER = "Keyturn-Epoch"  # The running epoch of the lane, beside the events of the one that was asked for.
ACTIVATION_SECONDS = 1.0  # How long an order without `wait` looks for its activation before it answers 202.


class KeyRoutes:
    """Handlers over the rotator and the replica."""

    def __init__(self, parts: Parts, rotation: RotationParts, records: RecordStore) -> None:
        self._parts, self._rotation, self._records = parts, rotation, records
        self._vouching = Vouching(parts)
        self._rendered: tuple[KeySet, Jwks] | None = None

    def add_routes(self, app: web.Application) -> None:
        """Add every route of the key service's public listener."""
        routes: tuple[tuple[str, str, Handler, Schema], ...] = (
            ("GET", "/.well-known/jwks.json", self.jwks, JWKS),
            ("GET", "/keys", self.keys, KEYS),
            ("POST", "/keys/rotate", self.rotate, ROTATE),
            ("POST", "/keys/{kid}/revoke", self.revoke, REVOKE_KEY),
            ("POST", "/keys/reseal", self.reseal, RESEAL),
            ("POST", "/keys/import", self.import_keys, IMPORT),
            ("GET", "/verifiers", self.verifiers, VERIFIERS),
            ("GET", "/feed/trust", self.trust, TRUST),
            ("GET", "/feed/{lane}", self.feed, FEED),
        )
        for method, path, handler, operation in routes:
            add_route(app, method, path, handler, style=Style.PROBLEM, operation=operation)

    async def jwks(self, request: web.Request) -> web.Response:
        """Answer the public keys (RFC 7517); with an entity tag, never empty, cacheable as long as rotation allows.

        Who heard nothing of the lane for E may lack the key that signs by now, and says that it cannot tell.
        """
        silence = self._parts.replica.silence(Lane.KEYS, self._parts.clock.boottime())
        if silence >= self._parts.replica.freshness.expired_after_seconds:
            raise ReplicaExpired(silence_seconds=silence)
        keys = self._parts.replica.keys
        if self._rendered is None or self._rendered[0] is not keys:
            self._rendered = (keys, render_jwks(keys))
        jwks = self._rendered[1]
        if jwks.count == 0:
            return answer_status(503, Style.PROBLEM, "no key has been published yet")
        headers = {"ETag": jwks.etag, "Cache-Control": f"public, max-age={jwks_max_age(self._rotation.policy)}"}
        tags = {tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(",")}
        if jwks.etag in tags or "*" in tags:
            return web.Response(status=304, headers=headers)
        return web.Response(body=jwks.body, content_type=JWKS_TYPE, headers=headers)

    async def keys(self, request: web.Request) -> web.Response:
        """List every key and where it stands: those of access tokens first, in order of publication."""
        await require_admin(request, self._records, self._parts)
        keys = self._parts.replica.keys
        by_use = [key for use in Use for key in keys if key.use is use]
        open_orders = [msgspec.to_builtins(request) for request in keys.requests]
        return json_answer({"keys": [_shown(key) for key in by_use], "requests": open_orders})

    async def rotate(self, request: web.Request) -> web.Response:
        """Let the next key of a use sign, now or at a moment to come."""
        await require_admin(request, self._records, self._parts)
        asked, wait, policies = self._parts.clock.boottime(), read_wait(request), self._rotation.policies
        alg, use, order = read_rotation(await read_json(request), request, policies, now=self._parts.clock.now())
        outcome = await self._rotation.rotator.rotate(alg, order, use=use)
        if not outcome.active and order.not_before is None:
            seconds = wait.timeout_seconds if wait.asked else ACTIVATION_SECONDS
            outcome = await self._activation(outcome, seconds)
        return await self._receipt(outcome, wait, asked)

    async def revoke(self, request: web.Request) -> web.Response:
        """Reject a key by name; its successor signs at once. The receipt says what is exposed, and how long."""
        await require_admin(request, self._records, self._parts)
        asked, wait, kid = self._parts.clock.boottime(), read_wait(request), request.match_info["kid"]
        order = read_emergency(await read_json(request), request)
        try:
            outcome = await self._rotation.rotator.revoke(kid, order)
        except KeyError:
            raise NotFound("no key has that kid; GET /keys lists them") from None
        return await self._receipt(outcome, wait, asked, revoked=self._parts.replica.keys.get(kid))

    async def import_keys(self, request: web.Request) -> web.Response:
        """Bring keys of another issuer, to verify what they signed or to sign next; asking again is fine."""
        await require_admin(request, self._records, self._parts)
        asked, wait = self._parts.clock.boottime(), read_wait(request)
        wanted = read_import(await read_json(request), self._rotation.policy)
        outcome = await self._rotation.importer.bring(wanted)
        if not outcome.active:
            seconds = wait.timeout_seconds if wait.asked else ACTIVATION_SECONDS
            outcome = await self._activation(outcome, seconds)
        return await self._receipt(outcome, wait, asked, imported=wanted)

    async def reseal(self, request: web.Request) -> web.Response:
        """Seal every private key anew by the newest KEK; signing goes on meanwhile, and asking again is fine."""
        await require_admin(request, self._records, self._parts)
        done = await self._rotation.keyring.reseal()
        body = {"kek": done.kek, "resealed": done.resealed, "left": list(done.left)}
        return json_answer(body, status=200 if not done.left else 409)

    async def verifiers(self, request: web.Request) -> web.Response:
        """List every live verifier, and how far it is."""
        await require_admin(request, self._records, self._parts)
        boottime = self._parts.clock.boottime()
        rows = [
            {
                "id": seen.report.verifier,
                "keys": seen.report.keys[1],
                "revocations": seen.report.revocations[1],
                "state": seen.report.state,
                "seen_ms": round((boottime - seen.boottime) * 1000, 1),
            }
            for seen in self._rotation.watch.all()
        ]
        return json_answer({"verifiers": rows})

    async def feed(self, request: web.Request) -> web.StreamResponse:
        """Stream the signed events of a lane after a sequence, one JSON object a line.

        Where the store is lost midway the connection is cut, so that what was sent does not look like all of it.
        """
        await require_admin(request, self._records, self._parts)
        try:
            lane, after = Lane(request.match_info["lane"]), int(request.query.get("after", "0"))
            epoch = int(request.query.get("epoch", self._parts.replica.place(lane)[0]))
        except ValueError:
            raise MalformedInput("ask for /feed/keys or /feed/revocations; after=SEQ and epoch=E are numbers") from None
        if not (0 <= after <= HIGHEST_SEQUENCE and 0 <= epoch <= HIGHEST_SEQUENCE):
            raise MalformedInput("after is a sequence and epoch an epoch, 0 or more")
        running = str(self._parts.replica.place(lane)[0])
        response = web.StreamResponse(headers={"Content-Type": LINES_TYPE, EPOCH_HEADER: running})
        batch = await self._parts.feed.events(lane, epoch=epoch, after=after)
        await response.prepare(request)
        while batch:
            lines = []
            for sequence, compact in numbered(batch, after=after):
                lines.append(render_line(lane, epoch=epoch, sequence=sequence, event=compact))
                after = sequence
            await response.write(b"".join(lines))
            batch = await self._parts.feed.events(lane, epoch=epoch, after=after)
        await response.write_eof()
        return response

    async def trust(self, request: web.Request) -> web.Response:
        """Give the store's trust document, as it is: who asks checks it against the root that he pinned."""
        await require_admin(request, self._records, self._parts)
        compact = await self._parts.feed.trust()
        if compact is None:
            raise FeedUnavailable("the store has no trust document")
        return json_answer({"trust": compact.decode("utf-8", "backslashreplace")})

    async def _activation(self, outcome: Outcome, within_seconds: float) -> Outcome:
        """Wait for the barrier to let the ordered key sign; verifiers' reports wake us."""
        clock, keys = self._parts.clock, self._parts.replica
        deadline = clock.boottime() + within_seconds
        while clock.boottime() < deadline:
            await self._rotation.rotator.tick()
            key = keys.keys.get(outcome.kid)
            if key is not None and key.active_at is not None:
                return Outcome(outcome.event, outcome.kid, active=True)
            await self._rotation.watch.change(within_seconds=min(1.0, max(0.0, deadline - clock.boottime())))
        return outcome

    async def _receipt(
        self,
        outcome: Outcome,
        wait: Wait,
        asked_boottime: float,
        *,
        revoked: KeyRecord | None = None,
        imported: Import | None = None,
    ) -> web.Response:
        parts = self._parts
        await self._vouching.require(Lane.KEYS)
        place = parts.replica.place(Lane.KEYS)
        body, complete = await receipt_of(
            self._rotation.watch, Lane.KEYS, place, wait=wait.quorum, timeout_seconds=wait.timeout_seconds,
            appended_boottime=asked_boottime, durability=await self._vouching.word(Lane.KEYS, place),
        )  # fmt: skip
        key = parts.replica.keys.get(outcome.kid)
        body |= {"kid": outcome.kid, "phase": key.phase.value if key else None}
        if revoked is not None and revoked.revoked_at is not None:
            body["exposure"] = exposure(revoked.revoked_at, self._rotation.policy)
        if imported is not None:
            held = [parts.replica.keys.get(one.kid) for one in imported.keys]
            body["imported"] = [{"kid": one.kid, "alg": one.alg, "phase": one.phase.value} for one in held if one]
            body["left_out"] = list(imported.left_out)
        done = outcome.active and complete
        return json_answer(body, status=200 if done else 202)


def _shown(key: KeyRecord) -> dict[str, Any]:
    return {
        "kid": key.kid, "alg": key.alg, "use": key.use.value, "phase": key.phase.value,
        "published_at": key.published_at, "active_at": key.active_at, "retiring_at": key.retiring_at,
        "removed_at": key.removed_at, "revoked_at": key.revoked_at, "sign_until": key.sign_until,
        "verify_until": key.verify_until, "token_seconds": key.token_seconds,
    }  # fmt: skip
