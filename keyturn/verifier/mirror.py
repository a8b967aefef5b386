"""Reads snapshots over HTTP, so that a fleet that begins all at once does not weigh on the store."""

from collections.abc import Callable, Sequence
from http.client import HTTPException
from typing import Final
from urllib.parse import urlsplit

from keyturn import entropy
from keyturn.clock import Clock
from keyturn.contract.positions import Lane
from keyturn.verifier.pulling import pull

MIRROR_FAILED: Final = "snapshot_mirror_failed"
LONGEST_SECONDS = 10.0  # From asking for a snapshot to its last chunk; then the store is asked.
JITTER_SECONDS = 0.25
LARGEST_SNAPSHOT_BYTES = 16 * 1024 * 1024
LARGEST_CHUNK_BYTES = 1024 * 1024
_FOUND = 200


class HttpSnapshots:
    """A key service's snapshot routes, or a cache before them; whatever it answers is checked like the store's word."""

    def __init__(self, url: str, clock: Clock, *, note: Callable[..., None]) -> None:
        """Know where: `url` is the issuer's origin, or a cache's, without a trailing slash."""
        self._url, self._clock, self._note = urlsplit(url), clock, note
        self._until = float("-inf")

    async def snapshot(self, lane: Lane) -> bytes | None:
        """Return the newest snapshot, a moment later for each of a fleet; None if it cannot be had."""
        await self._clock.sleep(entropy.jitter(0, JITTER_SECONDS))
        self._until = self._clock.boottime() + LONGEST_SECONDS
        return await self._get(f"/feed/{lane}/snapshot", most=LARGEST_SNAPSHOT_BYTES)

    async def chunks(self, lane: Lane, digests: Sequence[str]) -> dict[str, bytes]:
        """Return the first of the chunks, up to one that cannot be had, or not in time."""
        read: dict[str, bytes] = {}
        for digest in digests:
            raw = await self._get(f"/feed/{lane}/chunks/{digest}", most=LARGEST_CHUNK_BYTES)
            if raw is None:
                break
            read[digest] = raw
        return read

    async def _get(self, path: str, *, most: int) -> bytes | None:
        if self._overdue():
            return None
        try:
            answer = await pull(
                self._url, f"{self._url.path}{path}", most_bytes=most, overdue=self._overdue,
                longest_seconds=LONGEST_SECONDS,
            )  # fmt: skip
        except (OSError, HTTPException, ValueError) as error:
            self._note(MIRROR_FAILED, reason=f"{type(error).__name__}: {error}"[:200])
            return None
        return answer.body if answer is not None and answer.status == _FOUND else None

    def _overdue(self) -> bool:
        return self._clock.boottime() > self._until
