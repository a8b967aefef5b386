"""The file of the key-encryption keys, changed in one step: whoever reads it finds all of the old or all of the new."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from keyturn import entropy
from keyturn.cli.answers import CannotTell, WrongUsage
from keyturn.cli.files import alone_in, replace_file
from keyturn.contract.encoding import b64url, unb64url
from keyturn.contract.errors import MalformedInput
from keyturn.process.values import Secret, Unfit

KEK_BYTES = 32
MOST_KEKS = 16  # As the key service reads it.
Kek: TypeAlias = dict[str, str]


def new_kek(now: float) -> Kek:
    """Return a new KEK as its file holds it."""
    return {"id": entropy.uuid7(now), "key": b64url(entropy.token_bytes(KEK_BYTES))}


class KekFile:
    """`{"id", "key"}`, or `{"keys": [newest, …]}`; mode 0600."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    def read(self) -> list[Kek]:
        """Return the KEKs, the newest first; raises WrongUsage."""
        try:
            told = json.loads(Secret.read(self.path).reveal())
            rows = told.get("keys", [told])
            keks = [{"id": str(row["id"]), "key": str(row["key"])} for row in rows]
            whole = all(kek["id"] and len(unb64url(kek["key"])) == KEK_BYTES for kek in keks)
        except Unfit as error:
            raise WrongUsage(f"{error}: {error.mend}") from error
        except (ValueError, TypeError, KeyError, AttributeError, MalformedInput):
            whole, keks = False, []
        if not keks or not whole or len({kek["id"] for kek in keks}) != len(keks):
            raise WrongUsage(f"{self.path} holds no key-encryption keys: name the kek.json that keyturn init made")
        return keks

    def add(self, now: float) -> list[Kek]:
        """Put a new KEK in front and return all; raises WrongUsage if the file is full."""
        with alone_in(self.path.parent):
            held = self.read()
            if len(held) >= MOST_KEKS:
                raise WrongUsage(f"{self.path} holds {len(held)} KEKs, as many as it may: --reseal-only --drop-old")
            keks = [new_kek(now), *held]
            self._write(keks)
        return keks

    def drop_old(self, *, keep: str) -> list[Kek]:
        """Take out all but the newest and return them; raises CannotTell if somebody has put another in front."""
        with alone_in(self.path.parent):
            newest, *old = self.read()
            if newest["id"] != keep:
                raise CannotTell(f"somebody has put another KEK in front of {self.path} meanwhile: repeat the command")
            self._write([newest])
        return old

    def restore(self, old: Sequence[Kek]) -> None:
        """Put dropped KEKs back behind those that are there."""
        with alone_in(self.path.parent):
            held = self.read()
            self._write([*held, *(kek for kek in old if kek not in held)])

    def _write(self, keks: Sequence[Kek]) -> None:
        replace_file(self.path, json.dumps({"keys": list(keks)}, indent=2).encode("ascii") + b"\n")
