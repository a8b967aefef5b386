"""The sidecar's own HTTP with a handler that judges nothing: shows what of P4 is protocol and what is verdict."""

import asyncio
import sys

import uvloop

from keyturn.clock import SystemClock
from keyturn.sidecar import replies
from keyturn.sidecar.listener import Listener
from keyturn.sidecar.routing import Answer, Header, Route, Routes

CLAIMS = {
    "sub": "service-account-1",
    "client_id": "client-1",
    "scope": "read write",
    "iss": "https://issuer.example",
    "jti": "0192aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee",
}
ALLOW = replies.allow(CLAIMS, state="fresh")
DENY = replies.unauthorized()


def answer(target: bytes, authorization: list[bytes], headers: list[Header], body: bytes) -> Answer:  # noqa: ARG001
    """Allow whoever sends one bearer token, whatever it is."""
    return ALLOW if len(authorization) == 1 and authorization[0].startswith(b"Bearer ") else DENY


async def serve(port: int) -> None:
    """Serve on loopback until the process ends."""
    listener = Listener(Routes({b"/nginx/default": Route(answer)}), clock=SystemClock())
    await listener.open_tcp("127.0.0.1", port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
