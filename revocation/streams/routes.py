"""Streams over HTTP: polls for receivers (RFC 8936), and how each stream fares for operators."""

from typing import Any

from aiohttp import web

from keyturn.contract.errors import KeyturnError, MalformedInput
from revocation.streams.description import DEAD_LETTERS, LIST, POLL, SEND_AGAIN
from revocation.streams.letters import MOST_AGAIN
from revocation.streams.polling import Waiters, read_question
from revocation.streams.stream import Stream
from revocation.streams.streams import Streams
from serving.authentication import Authenticator, require_admin
from serving.forms import read_json
from serving.parts import Parts
from serving.problems import NotFound, OAuthError, Style, json_answer
from serving.records import RecordStore
from serving.routing import add_route, note


class StreamRoutes:
    """Handlers over the streams."""

    def __init__(self, streams: Streams, parts: Parts, *, records: RecordStore) -> None:
        self._streams, self._parts, self._records = streams, parts, records
        self._authenticator = Authenticator(parts)
        self.waiters = {name: Waiters(streams.bell) for name in streams.by_name}

    def add_routes(self, app: web.Application) -> None:
        """Add every route of the streams."""
        add_route(app, "POST", "/streams/{name}/poll", self.poll, style=Style.OAUTH, operation=POLL)
        add_route(app, "GET", "/streams", self.list_streams, style=Style.PROBLEM, operation=LIST)
        path = "/streams/{name}/dead-letters"
        add_route(app, "GET", path, self.dead, style=Style.PROBLEM, operation=DEAD_LETTERS)
        add_route(app, "POST", f"{path}/send", self.send_again, style=Style.PROBLEM, operation=SEND_AGAIN)

    async def poll(self, request: web.Request) -> web.Response:
        """Answer a receiver's poll (RFC 8936, 2.4): what it took is kept first, then it is told more."""
        caller = await self._authenticator.authenticate(request, {})
        note(request, client_id=caller.client_id)
        name = request.match_info["name"]
        stream = self._streams.by_name.get(name)
        if stream is None or stream.settings.client != caller.client_id:
            # Also for one that is there, so that no client learns of another's.
            raise OAuthError("invalid_request", "you have no such stream", status=404)
        try:
            question = read_question(await read_json(request))
        except MalformedInput as error:
            raise OAuthError("invalid_request", str(error)) from error
        if question.taken or question.refused:
            await stream.settle(question.taken, question.refused)
        offer = await self.waiters[name].offer(stream, question)
        signed = await stream.signed(offer.tellings)
        note(request, stream=name, told=len(signed), taken=len(question.taken), refused=len(question.refused))
        answer: dict[str, Any] = {"sets": {one.telling.jti: one.token for one in signed}}
        return json_answer(answer | ({"moreAvailable": True} if offer.more else {}))

    async def list_streams(self, request: web.Request) -> web.Response:
        """Say of each stream how far it is, and what is in its way."""
        await require_admin(request, self._records, self._parts)
        return json_answer({"streams": [await self._show(one) for one in self._streams.by_name.values()]})

    async def dead(self, request: web.Request) -> web.Response:
        """Return a stream's dead letters, the newest first."""
        await require_admin(request, self._records, self._parts)
        return json_answer({"dead_letters": await self._named(request).letters()})

    async def send_again(self, request: web.Request) -> web.Response:
        """Have what a receiver refused told again: all, the oldest first, or those that are named."""
        admin = await require_admin(request, self._records, self._parts)
        note(request, client_id=admin.get("client_id"))
        stream, jtis = self._named(request), read_jtis(await read_json(request))
        sent = await stream.send_again(jtis)
        self._streams.bell.ring()
        note(request, stream=stream.name, again=len(sent))
        return json_answer({"sent_again": sent, "dead": await stream.store.count_letters()})

    def _named(self, request: web.Request) -> Stream:
        stream = self._streams.by_name.get(request.match_info["name"])
        if stream is None:
            raise NotFound("no such stream")
        return stream

    async def _show(self, stream: Stream) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "name": stream.name, "delivery": "poll" if stream.settings.push is None else "push",
            "audience": stream.settings.audience,
        }  # fmt: skip
        try:
            progress, waiting = await stream.behind()
        except KeyturnError as error:
            return shown | {"trouble": error.code}
        dead = await stream.store.count_letters()
        return shown | {"epoch": progress.epoch, "sequence": progress.sequence, "waiting": waiting, "dead": dead}


def read_jtis(members: dict[str, Any]) -> list[str] | None:
    """Read `{"jti": […]}`, None for `{}`; raises MalformedInput."""
    jtis = members.get("jti")
    if members.keys() - {"jti"}:
        raise MalformedInput("the body has jti")
    if "jti" not in members:
        return None
    if not isinstance(jtis, list) or len(jtis) > MOST_AGAIN or not all(isinstance(one, str) for one in jtis):
        raise MalformedInput(f"jti is a list of at most {MOST_AGAIN} names of tokens")
    return jtis
