"""One HTTP GET within bounds: of bytes, of time, and of where it may lead."""

import asyncio
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPSConnection
from typing import NamedTuple
from urllib.parse import SplitResult

ANSWER_SECONDS = 5.0  # For each step: connecting, and each part of the answer.
_READ_BYTES = 64 * 1024


class Answer(NamedTuple):
    """What a server answered; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def pull(
    url: SplitResult, path: str, *, most_bytes: int, overdue: Callable[[], bool], longest_seconds: float
) -> Answer | None:
    """Return the answer to GET `path` at the URL's origin, None if it is too long or `overdue` says that it is late.

    No redirect is followed: it is an answer like any other. Certificates are checked by what the system trusts.
    Raises OSError (TimeoutError after `longest_seconds`), http.client.HTTPException or ValueError.
    """
    kind = HTTPSConnection if url.scheme == "https" else HTTPConnection
    connection = kind(url.hostname or "", url.port, timeout=ANSWER_SECONDS)
    try:
        async with asyncio.timeout(longest_seconds):
            return await asyncio.to_thread(_ask, connection, path, most_bytes, overdue)
    finally:
        # A thread cannot be cancelled: one that still waits for a server that drips wakes by this.
        with suppress(OSError, AttributeError):
            connection.sock.shutdown(socket.SHUT_RDWR)


def _ask(connection: HTTPConnection, path: str, most_bytes: int, overdue: Callable[[], bool]) -> Answer | None:
    try:
        connection.request("GET", path, headers={"Accept": "application/json, application/jwk-set+json, */*"})
        answer, body = connection.getresponse(), bytearray()
        while part := answer.read1(_READ_BYTES):  # Drop by drop: each might come in time, and the last one never.
            body += part
            if len(body) > most_bytes or overdue():
                return None
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, bytes(body))
    finally:
        connection.close()
