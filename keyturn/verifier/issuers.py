"""The public keys of another issuer, held in memory and kept current."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from keyturn import entropy
from keyturn.clock import Clock
from keyturn.contract.errors import InvalidToken, IssuerKeysUnavailable, MalformedInput
from keyturn.contract.issuers import ForeignIssuer, IssuerKey, read_key_set
from keyturn.verifier.keysources import KeySource, SourceFailed

ISSUER_KEYS_CHANGED: Final = "issuer_keys_changed"
ISSUER_KEYS_LEFT_OUT: Final = "issuer_keys_left_out"
ISSUER_UNREACHABLE: Final = "issuer_unreachable"
COOL_DOWN_SECONDS = 10.0  # Unknown kids make us ask the issuer at most so often.
_RETRY_SECONDS = (2.0, 5.0, 15.0, 60.0)
_LOOK_SECONDS = 1.0


def unnoted(event: str, **facts: object) -> None:
    """Note nothing: what a library does unless it is told where to."""


class IssuerKeys:
    """One issuer's keys; `run` reads them, again before they run out, until it is cancelled.

    A set is good for as long as its source says, and where that cannot be reached for its `stale_seconds` more. After
    that nothing is said of the issuer's tokens. `generation` grows with each change.
    """

    def __init__(
        self,
        issuer: ForeignIssuer,
        source: KeySource,
        clock: Clock,
        *,
        note: Callable[..., None] = unnoted,
    ) -> None:
        self.issuer = issuer
        self.keys: Mapping[str, IssuerKey] = {}
        self.generation = 0
        self.usable_until = float("-inf")  # By the boot-time clock.
        self.trouble: str | None = "its keys have not been read yet"
        self.pulls = self.failures = 0
        self._source, self._clock, self._note = source, clock, note
        self._read_at = self._tried_at = self._due = float("-inf")
        self._wanted = False
        self._row = 0  # Failures since the last success.
        self._left_out: tuple[str, ...] = ()
        self._flight: asyncio.Task[None] | None = None

    def age(self, boottime: float) -> float:
        """Return how long ago the keys were read, in seconds; infinite before the first time."""
        return boottime - self._read_at

    def find(self, kid: str, alg: str, boottime: float) -> IssuerKey:
        """Return the key of a kid; raises InvalidToken for one that the issuer does not tell, or of another algorithm.

        Raises IssuerKeysUnavailable where the keys are too old; or do not have the kid and were not read within the
        last 10 s: it may be a new one, and `renew` finds out.
        """
        key = self.keys.get(kid)
        if boottime >= self.usable_until or (key is None and self.age(boottime) >= COOL_DOWN_SECONDS):
            self._wanted = True
            raise IssuerKeysUnavailable(issuer=self.issuer.name, silence_seconds=self.age(boottime))
        if key is None:
            raise InvalidToken("unknown_kid")
        if key.alg != alg:
            raise InvalidToken("algorithm", "not this key's algorithm")
        return key

    async def run(self) -> None:
        """Keep the keys current until cancelled; what `find` lacked is looked for within a second."""
        try:
            while True:
                if self._clock.boottime() >= self._due:
                    await self._shared()
                elif self._wanted:
                    await self.renew()
                await self._clock.sleep(_LOOK_SECONDS)
        finally:
            if self._flight is not None:
                self._flight.cancel()

    async def renew(self) -> None:
        """Read the keys now, in one flight for all who ask; not if that was tried within the last 10 s."""
        if self.may_renew(self._clock.boottime()):
            await self._shared()

    def may_renew(self, boottime: float) -> bool:
        """Say whether `renew` would read them, or is doing so."""
        return self._flight is not None or boottime - self._tried_at >= COOL_DOWN_SECONDS

    async def _shared(self) -> None:
        if self._flight is None:
            self._flight = asyncio.ensure_future(self._pull())
        await asyncio.shield(self._flight)

    async def _pull(self) -> None:
        began = self._tried_at = self._clock.boottime()
        self._wanted = False
        self.pulls += 1
        try:
            told = await self._source.read()
            read = read_key_set(told.raw, self.issuer, self.keys)
        except (SourceFailed, MalformedInput) as error:
            self._failed(str(error))
            return
        finally:
            self._flight = None
        self._row, self.trouble, self._read_at = 0, None, began
        self.usable_until = began + told.age_seconds + self.issuer.stale_seconds
        self._due = began + told.age_seconds * entropy.jitter(0.8, 1.0)
        if read.left_out != self._left_out:
            self._left_out = read.left_out
            self._note(ISSUER_KEYS_LEFT_OUT, issuer=self.issuer.name, reasons=list(read.left_out))
        if read.keys != self.keys:
            self.keys = read.keys
            self.generation += 1
            self._note(ISSUER_KEYS_CHANGED, issuer=self.issuer.name, kids=sorted(read.keys))

    def _failed(self, reason: str) -> None:
        self.failures += 1
        pause = _RETRY_SECONDS[min(self._row, len(_RETRY_SECONDS) - 1)]
        self._due = self._clock.boottime() + entropy.jitter(pause / 2, pause)
        self._row += 1
        if reason != self.trouble:
            self.trouble = reason
            self._note(ISSUER_UNREACHABLE, issuer=self.issuer.name, reason=reason)
