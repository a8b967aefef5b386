"""What `stack up` is told, and the settings of each of its parts that follow from it."""

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from keyturn.cli.files import replace_file
from keyturn.cli.provisioning import USERS, Plan, provision
from keyturn.contract.errors import ConfigurationError
from keyturn.process.settings import Settings
from stack.ports import LOOPBACK

ACCESS_TOKEN_SECONDS = 300
SKEW_SECONDS = 1
STALE_SECONDS = 5
EXPIRED_SECONDS = 60
STATUS_LIST_SECONDS = 5
FEWEST_IDENTITIES = 8  # So that a directory that began with two sidecars may later have more.


@dataclass(frozen=True, slots=True)
class Orders:
    """The arguments of `stack up`."""

    directory: Path = Path(".keyturn")
    port: int = 8400
    sidecar_port: int = 8410
    sidecars: int = 1
    redis_url: str | None = None

    @property
    def issuer(self) -> str:
        """Return the one origin of all services."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def sidecar_urls(self) -> list[str]:
        """Return where each sidecar listens."""
        return [f"http://{LOOPBACK}:{self.sidecar_port + index}" for index in range(self.sidecars)]


def sidecar_name(index: int) -> str:
    """Return the verifier's name of the sidecar at an index from 0."""
    return f"sidecar-{index + 1}"


def prepare(orders: Orders, *, now: float) -> bool:
    """Provision the directory if it is new, and say whether it was; refuse one that was made for another issuer.

    Raises ConfigurationError.
    """
    file = orders.directory / "keyturn.toml"
    if not file.exists():
        names = tuple(sidecar_name(index) for index in range(max(orders.sidecars, FEWEST_IDENTITIES)))
        provision(orders.directory, Plan(issuer=orders.issuer, verifiers=names, dev=True), now=now)
        return True
    issuer = _tables(file).get("issuer", {}).get("url")
    if issuer != orders.issuer:
        raise ConfigurationError(
            f"{orders.directory} was made for issuer {issuer}",
            setting="--port", mend=f"use the port of that issuer, not {orders.port}, or a new --dir",
        )  # fmt: skip
    last = orders.directory / "identities" / f"{sidecar_name(orders.sidecars - 1)}.jwk"
    if not last.exists():
        raise ConfigurationError(
            f"{orders.directory} has no identity for {last.stem}",
            setting="--sidecars", mend="ask for fewer, or use a new --dir",
        )  # fmt: skip
    _renew_rights(orders.directory / "redis" / "users.acl")
    return False


def _renew_rights(path: Path) -> None:
    """Give the services' users of the store the rights of this version: the directory may be of an older one."""
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read: {error.strerror}", setting="--dir", mend="use a new directory"
        ) from error
    renewed = []
    for line in lines:
        who, word, _ = line.partition(" resetchannels ")
        rules = USERS.get(who.split()[1]) if word else None
        renewed.append(line if rules is None else f"{who}{word}{rules}")
    if renewed != lines:
        replace_file(path, "".join(f"{line}\n" for line in renewed).encode("ascii"))


def settings_of(orders: Orders, redis: dict[str, Any], *, first_start: bool) -> Settings:
    """Return the settings of all services of the stack; `redis` is the section that names the store."""
    directory = orders.directory.absolute()
    tables = _tables(directory / "keyturn.toml")
    tables["redis"] = redis
    tables["freshness"] = {"skew": SKEW_SECONDS, "stale": STALE_SECONDS, "expired": EXPIRED_SECONDS}
    tables["rotation"] = {
        "algorithms": ["ES256", "RS256"],
        "barrier": "reports",
        "cache": 0,
        "token": ACCESS_TOKEN_SECONDS,
    }
    tables["authorization"]["access_token"] = ACCESS_TOKEN_SECONDS
    if signs_in(orders):
        tables["authorization"].setdefault("signin_url", orders.issuer + "/signin")
    # A directory of a version that signed no lists has nobody who may.
    tables["statuslists"] = {"enabled": "signer" in tables["revocation"], "ttl": STATUS_LIST_SECONDS}
    for section in ("keyservice", "revocation"):
        tables[section]["bootstrap"] = first_start
    return Settings(tables, {}, beside=directory)


def signs_in(orders: Orders) -> bool:
    """Say whether users can sign in: a directory of a version that could not has no client for the page."""
    return (orders.directory / "clients" / "signin.secret").exists()


def write_sidecar_settings(orders: Orders, index: int, redis: dict[str, Any]) -> Path:
    """Write the `keyturn.toml` of one sidecar, for its own process; return its path.

    Policies and other issuers are those of the directory's `keyturn.toml`. Raises ConfigurationError.
    """
    directory, name = orders.directory.absolute(), sidecar_name(index)
    sections: dict[str, dict[str, Any]] = {
        "issuer": {"url": orders.issuer},
        "redis": redis,
        "trust": {"root": str(directory / "root.jwk"), "allow_dev": True},
        "freshness": {"skew": SKEW_SECONDS, "stale": STALE_SECONDS, "expired": EXPIRED_SECONDS},
        "sidecar": {
            "listen": f"{LOOPBACK}:{orders.sidecar_port + index}",
            "verifier": name,
            "identity_file": str(directory / "identities" / f"{name}.jwk"),
        },
        "state": {"directory": str(directory / "state")},
    } | _of_the_operator(directory)
    path = directory / "run" / f"{name}.toml"
    path.parent.mkdir(mode=0o750, exist_ok=True)
    lines = []
    for section, members in sections.items():
        # A JSON string, number, boolean or list is TOML too.
        lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in members.items()), ""]
    path.write_text("\n".join(lines))
    return path


def external_redis(orders: Orders, url: str) -> dict[str, Any]:
    """Return the section for a store that somebody else runs; its password goes into a file."""
    parts = urlsplit(url)
    if parts.password is None:
        return {"url": url}
    user, host = parts.username or "", f"{parts.hostname}:{parts.port or 6379}"
    path = orders.directory.absolute() / "run" / "redis.password"
    path.parent.mkdir(mode=0o750, exist_ok=True)
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(parts.password)
    bare = urlunsplit((parts.scheme, f"{user}@{host}" if user else host, parts.path, "", ""))
    return {"url": bare, "password_file": str(path)}


def _tables(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{file} cannot be read as TOML", setting="--dir", mend="use a new directory, or mend the file"
        ) from error


def _of_the_operator(directory: Path) -> dict[str, dict[str, Any]]:
    """Return what an operator may have added for sidecars; each process checks it by itself."""
    tables = _tables(directory / "keyturn.toml")
    sections = {
        f"{kind}.{json.dumps(name)}": dict(members)
        for kind in ("policy", "issuers")
        for name, members in tables.get(kind, {}).items()
    }
    for members in sections.values():
        if "jwks_file" in members:  # A sidecar's own file stands in another folder.
            members["jwks_file"] = str(directory / str(members["jwks_file"]))
    return sections
