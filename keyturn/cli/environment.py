"""Where the command line finds its issuer and credentials: the environment, else a file of `NAME=value` lines."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Self

from keyturn.cli.answers import WrongUsage

DEFAULT_FILE = Path(".keyturn") / "dev.env"
_LARGEST_FILE_BYTES = 64 * 1024
_MEND = "set it, name a file by --env, or start a system by `make up`"


class Role(StrEnum):
    """Whose credentials a command uses."""

    CLIENT = "CLIENT"  # Gets tokens, and revokes its own.
    RESOURCE = "RESOURCE"  # Asks about tokens.
    ADMIN = "ADMIN"  # Keys, revocations by selector, verifiers.
    SIGNIN = "SIGNIN"  # Says who a user is, as the sign-in page.


@dataclass(frozen=True, slots=True)
class Credentials:
    """A client's id and secret."""

    role: Role
    client_id: str
    secret: str = field(repr=False)


class Environment:
    """The KEYTURN_… names, the process's environment before the file."""

    def __init__(self, variables: Mapping[str, str], filed: Mapping[str, str]) -> None:
        self._variables, self._filed = variables, filed

    @classmethod
    def read(cls, file: Path | None, *, variables: Mapping[str, str] | None = None) -> Self:
        """Read the file named, else the default one if it is there; raises WrongUsage."""
        chosen = file or (DEFAULT_FILE if DEFAULT_FILE.exists() else None)
        return cls(os.environ if variables is None else variables, _parse(chosen) if chosen else {})

    def get(self, name: str) -> str | None:
        """Return a value, None if neither source has it."""
        return self._variables.get(name) or self._filed.get(name) or None

    def require(self, name: str) -> str:
        """Return a value; raises WrongUsage with the mend."""
        value = self.get(name)
        if value is None:
            raise WrongUsage(f"{name} is not set: {_MEND}")
        return value

    def credentials(self, role: Role) -> Credentials:
        """Return a client's id and secret, both from one source, so that one's secret never goes with another's id."""
        names = f"KEYTURN_{role}_ID", f"KEYTURN_{role}_SECRET"
        for source in (self._variables, self._filed):
            client_id, secret = (source.get(name) for name in names)
            if client_id and secret:
                return Credentials(role, client_id, secret)
        raise WrongUsage(f"{names[0]} and {names[1]} are not set: {_MEND}")

    @property
    def issuer(self) -> str:
        """Return the issuer's URL."""
        return self.require("KEYTURN_ISSUER")

    @property
    def sidecar(self) -> str:
        """Return the URL of the sidecar to ask."""
        return self.require("KEYTURN_SIDECAR_URL")

    @property
    def sidecars(self) -> list[str]:
        """Return the URLs of all sidecars that are known here."""
        several = self.get("KEYTURN_SIDECAR_URLS") or self.get("KEYTURN_SIDECAR_URL") or ""
        return [url.strip() for url in several.split(",") if url.strip()]


def _parse(file: Path) -> dict[str, str]:
    try:
        with file.open(encoding="utf-8") as opened:
            text = opened.read(_LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise WrongUsage(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise WrongUsage(f"{file} is not text") from error
    if len(text) > _LARGEST_FILE_BYTES:
        raise WrongUsage(f"{file} is larger than {_LARGEST_FILE_BYTES} characters")
    values: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals or not name.strip().isidentifier():
            raise WrongUsage(f"line {number} of {file} is not NAME=value")
        values[name.strip()] = value.strip()
    return values
