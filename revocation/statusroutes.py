"""`GET /statuslists/{id}`: a Status List Token, for whoever verifies without us; `GET /statuslists`: where they are."""

import re
from typing import Final

from aiohttp import hdrs, web

from keyturn.contract.statuslists import MEDIA_TYPE, PATH
from revocation.description import STATUS_LIST, STATUS_LISTS
from revocation.statuslists import SignedList, StatusLists
from serving.parts import Parts
from serving.problems import NotFound, Style, answer_status, json_answer
from serving.routing import add_route

_GZIP: Final = "gzip"
_NOTHING: Final = re.compile(r"q=0(\.0{0,3})?")
_ANYBODY: Final[dict[str, str]] = {
    hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: "*"
}  # Section 8.1; nothing here is anybody's secret.


class StatusListRoutes:
    """Handlers over the lists; without any (`statuslists.enabled` is off) none is found."""

    def __init__(self, parts: Parts, lists: StatusLists | None) -> None:
        self._parts, self._lists = parts, lists

    def add_routes(self, app: web.Application) -> None:
        """Add both routes."""
        add_route(app, "GET", PATH, self.aggregate, style=Style.PROBLEM, operation=STATUS_LISTS)
        add_route(app, "GET", f"{PATH}/{{id}}", self.serve, style=Style.PROBLEM, operation=STATUS_LIST)

    async def serve(self, request: web.Request) -> web.Response:
        """Answer with the list; what was acknowledged before the request is in it."""
        lists = self._served()
        if "time" in request.query:  # Section 8.4: the past is nobody's business (12.7).
            return answer_status(501, Style.PROBLEM, "only the present status is served")
        if not _accepts(request):
            return answer_status(406, Style.PROBLEM, f"status lists are {MEDIA_TYPE}")
        signed = await lists.signed(request.match_info["id"])
        zipped = _GZIP in _named(request, hdrs.ACCEPT_ENCODING)  # Section 8.2.
        etag = f"{signed.etag}.gz" if zipped else signed.etag
        headers = {**_ANYBODY, **self._caching(lists, signed), hdrs.ETAG: f'"{etag}"'}
        if any(held.value in (etag, "*") for held in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        if zipped:
            headers[hdrs.CONTENT_ENCODING] = _GZIP
        body = signed.zipped if zipped else signed.compact
        return web.Response(body=body, headers=headers, content_type=MEDIA_TYPE)

    async def aggregate(self, _request: web.Request) -> web.Response:
        """Answer with the addresses of all lists (section 9.3)."""
        lists = self._served()
        headers = {**_ANYBODY, hdrs.CACHE_CONTROL: f"public, max-age={int(lists.ttl_seconds)}"}
        answer = json_answer({"status_lists": await lists.uris()}, headers=headers)
        answer.headers.popall(hdrs.PRAGMA, None)
        return answer

    def _served(self) -> StatusLists:
        if self._lists is None:
            raise NotFound("no status lists are kept here: statuslists.enabled is off")
        return self._lists

    def _caching(self, lists: StatusLists, signed: SignedList) -> dict[str, str]:
        """Let caches keep it for as long as it is served here: no list is older than `ttl` when it is handed out."""
        now = self._parts.clock.now()
        left = max(0, int(min(signed.issued_at + lists.ttl_seconds, signed.expires_at) - now))
        return {hdrs.CACHE_CONTROL: f"public, max-age={left}", hdrs.VARY: f"{hdrs.ACCEPT}, {hdrs.ACCEPT_ENCODING}"}


def _accepts(request: web.Request) -> bool:
    """Say whether the caller takes a JWT (section 8.1); who says nothing takes what there is."""
    if hdrs.ACCEPT not in request.headers:
        return True
    return not _named(request, hdrs.ACCEPT).isdisjoint({"*/*", "application/*", MEDIA_TYPE})


def _named(request: web.Request, header: str) -> set[str]:
    """Return what a header of preferences names, but for what it rules out by a weight of 0 (RFC 9110, 12.4.2)."""
    parts = ",".join(request.headers.getall(header, ())).lower().split(",")
    split = [[one.strip() for one in part.split(";")] for part in parts]
    return {value for value, *parameters in split if not any(_NOTHING.fullmatch(one) for one in parameters)}
