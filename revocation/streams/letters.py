"""Dead letters that are told again: what was refused is kept, sealed, with its letter, until an operator sends it."""

from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from keyturn.contract.encoding import b64url, encode_json, unb64url
from keyturn.contract.errors import MalformedInput, StoreUnavailable
from revocation.streams.store import StreamStore
from revocation.streams.telling import Telling
from serving.sealing import Sealer

PURPOSE: Final = b"keyturn stream dead letters"
SEALED: Final = "sealed"  # The member of a letter in the store that nobody is shown.
MOST_AGAIN: Final = 100  # That wait to be told again, of one stream.
_MOST_RACES: Final = 8
_BOXES: Final = msgspec.json.Decoder(list[str])
_TELLING: Final = msgspec.msgpack.Decoder(Telling)


class Again(NamedTuple):
    """What waits to be told again: as the store has it, and by `jti` what each box holds and the box itself."""

    raw: bytes
    by_jti: dict[str, tuple[Telling, str]]

    @property
    def tellings(self) -> list[Telling]:
        """Return them in order."""
        return [telling for telling, _ in self.by_jti.values()]

    def without(self, jtis: Collection[str]) -> bytes:
        """Return what the store has to have once these are settled; what cannot be opened goes with them."""
        return encode_json([box for jti, (_, box) in self.by_jti.items() if jti not in jtis])


class DeadLetters:
    """One stream's refused tokens, and those of them that are told again.

    They are sealed for their stream: whoever can write the store can have one told once more, and none that the stream
    has not told before.
    """

    def __init__(self, store: StreamStore, sealer: Sealer, *, stream: str) -> None:
        self._store, self._sealer, self._beside = store, sealer, stream.encode("ascii")

    def sealed(self, telling: Telling) -> dict[str, str]:
        """Return what a letter has to have for its token to be told again."""
        return {SEALED: b64url(self._sealer.seal(msgspec.msgpack.encode(telling), beside=self._beside))}

    async def again(self) -> Again:
        """Return what waits to be told again; raises StoreUnavailable."""
        raw = await self._store.again()
        try:
            boxes = _BOXES.decode(raw or b"[]")
        except msgspec.DecodeError:  # Somebody else has written it.
            boxes = []
        opened = [(self._opened(box), box) for box in boxes[:MOST_AGAIN]]
        return Again(raw, {telling.jti: (telling, box) for telling, box in opened if telling is not None})

    async def settle(self, held: Again, jtis: Collection[str], letters: Sequence[dict[str, Any]]) -> bool:
        """Drop these, and keep letters of those that were refused again; say whether nobody else was faster."""
        return await self._store.settle_again(held.raw, held.without(jtis), letters)

    async def send(self, jtis: Collection[str] | None) -> list[str]:
        """Have the refused tokens of these `jti`, or the oldest of all, told again; return which are.

        Their letters go. What a letter of an older version lacks, or was written by somebody else, stays. Raises
        StoreUnavailable.
        """
        for _ in range(_MOST_RACES):
            held, chosen = await self.again(), dict[str, tuple[bytes, str]]()
            for raw, letter in reversed(await self._store.raw_letters()):
                box = letter.get(SEALED)
                telling = self._opened(box) if isinstance(box, str) else None
                if telling is None or (jtis is not None and telling.jti not in jtis):
                    continue
                if len(held.by_jti) + len(chosen) < MOST_AGAIN and telling.jti not in held.by_jti:
                    chosen[telling.jti] = raw, str(box)
            boxes = [box for _, box in (*held.by_jti.values(), *chosen.values())]
            if not chosen or await self._store.send_again(
                held.raw, encode_json(boxes), [raw for raw, _ in chosen.values()]
            ):
                return list(chosen)
        raise StoreUnavailable("other replicas are always faster")

    def _opened(self, box: str) -> Telling | None:
        try:
            content = self._sealer.open(unb64url(box), beside=self._beside)
            return None if content is None else _TELLING.decode(content)
        except (MalformedInput, msgspec.DecodeError):
            return None
