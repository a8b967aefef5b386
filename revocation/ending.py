"""Ends grants that authorization found misused: each becomes a revocation like any other, and only then is let go."""

from typing import Final

from keyturn import entropy
from keyturn.contract.errors import KeyturnError
from keyturn.contract.selectors import Entry, Selector, SelectorKind
from revocation.keeping import Keeping
from revocation.writer import RevocationWriter
from serving.endings import Endings, Written
from serving.parts import Parts

GRANT_ENDED: Final = "grant_ended"
ENDING_UNREADABLE: Final = "ending_unreadable"
ENDINGS_WAIT: Final = "endings_wait"
WAIT_SECONDS: Final = 1.0
"""So long one question to the store waits for the next ending; less than a connection waits for any answer."""
_COME_BACK_SECONDS: Final = 1.0


class GrantEnder:
    """Reads the endings that wait, has each grant revoked, and takes an ending away once that is durable.

    Whoever dies in between leaves the ending there; a grant that is ended twice is revoked twice, which is no harm.
    """

    def __init__(self, endings: Endings, writer: RevocationWriter, keeping: Keeping, parts: Parts) -> None:
        self._endings, self._writer, self._keeping, self._parts = endings, writer, keeping, parts
        about = "Grants that had to end because a token of theirs was used twice, by what came of it."
        self._outcomes = parts.metrics.counter("keyturn_endings", about, labels=("outcome",))

    async def run(self) -> None:
        """Do so until cancelled; later where the store or the lane fails, which is told once."""
        told = False
        while True:
            try:
                await self.end_some(wait_seconds=WAIT_SECONDS)
                told = False
            except KeyturnError as error:
                if not told:
                    self._parts.log.warning(ENDINGS_WAIT, code=error.code, reason=str(error))
                told = True
                await self._parts.clock.sleep(entropy.jitter(_COME_BACK_SECONDS / 2, _COME_BACK_SECONDS))

    async def end_some(self, *, wait_seconds: float) -> None:
        """Deal with the oldest endings that wait; raises what the store and the writer raise."""
        written = await self._endings.read(wait_seconds=wait_seconds)
        if not written:
            return
        entries = [entry for one in written if (entry := self._entry(one)) is not None]
        if entries:
            await self._writer.write_list(entries)
            for entry in entries:
                self._outcomes.labels(outcome="revoked").inc()
                self._parts.log.warning(GRANT_ENDED, grant_id=entry.selector.value, reason=entry.reason)
        await self._endings.remove([one.id for one in written])

    def _entry(self, written: Written) -> Entry | None:
        ending, parts = written.ending, self._parts
        if ending is None or ending.iss != parts.issuer:  # Who can write the store wrote it; none of ours does.
            self._outcomes.labels(outcome="unreadable").inc()
            parts.log.error(ENDING_UNREADABLE)
            return None
        selector = Selector(iss=parts.issuer, kind=SelectorKind.GRANT, value=ending.grant_id)
        until = self._keeping.of_selector(selector.kind, parts.replica.keys, parts.now())
        return Entry(selector=selector, until=until, reason=ending.reason)
