"""What `compose.yaml` says, with its paths and ports moved to where a test has them."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from stack.ports import LOOPBACK, free_port

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "compose.yaml"
DOCKERFILE = ROOT / "Dockerfile"
_VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")
_NGINX_PORT = re.compile(r"(?<=listen )(\d+)(?=;)")


@dataclass(frozen=True, slots=True)
class Mount:
    """A file or folder of a volume, or of the checkout, and where a container sees it."""

    source: str
    target: PurePosixPath
    subpath: str = ""
    read_only: bool = False

    @property
    def from_checkout(self) -> bool:
        """Whether the source is a path beside compose.yaml, not a volume."""
        return self.source.startswith(".")


@dataclass(frozen=True, slots=True)
class Container:
    """One service of compose.yaml."""

    name: str
    image: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    mounts: tuple[Mount, ...]
    published: tuple[str, ...]


def read_containers(variables: Mapping[str, str], *, file: Path = COMPOSE) -> dict[str, Container]:
    """Return the services by name; `variables` are what a person would set for `docker compose`."""
    text = _VARIABLE.sub(lambda found: variables.get(found[1], found[2]), file.read_text())
    assert "$" not in text, "there is a variable in compose.yaml that the tests do not know how to read"
    services: dict[str, Any] = yaml.safe_load(text)["services"]
    return {name: _container(name, told) for name, told in services.items()}


def _container(name: str, told: Mapping[str, Any]) -> Container:
    environment = told.get("environment", {})
    assert all(isinstance(value, str | bool) for value in environment.values()), "write numbers in quotes"
    return Container(
        name=name,
        image=told["image"],
        command=tuple(told.get("command", ())),
        environment={
            key: str(value).lower() if value in (True, False) else value for key, value in environment.items()
        },
        mounts=tuple(_mount(mount) for mount in told.get("volumes", ())),
        published=tuple(told.get("ports", ())),
    )


def _mount(told: str | Mapping[str, Any]) -> Mount:
    if isinstance(told, str):
        source, target, *mode = told.split(":")
        return Mount(source, PurePosixPath(target), read_only=mode == ["ro"])
    subpath = told.get("volume", {}).get("subpath", "")
    return Mount(told["source"], PurePosixPath(told["target"]), subpath, read_only=told.get("read_only", False))


def image_environment() -> dict[str, str]:
    """Return the Keyturn variables that the image sets."""
    return dict(re.findall(r"(KEYTURN_\w+)=(\S+)", DOCKERFILE.read_text()))


class Ports:
    """A free loopback port for each port of the composition."""

    def __init__(self, hosts: Iterator[str]) -> None:
        names = "|".join(map(re.escape, (*hosts, LOOPBACK, "0.0.0.0")))  # noqa: S104 - containers say it
        self._address = re.compile(rf"(?<![\w.])(?:{names}):(\d+)(?!\d)")
        self._real: dict[int, int] = {}

    def __getitem__(self, port: int) -> int:
        while port not in self._real:
            found = free_port()
            if found not in self._real.values():
                self._real[port] = found
        return self._real[port]

    def move(self, text: str) -> str:
        """Return a text with each address of the composition moved to loopback."""
        return self._address.sub(lambda found: f"{LOOPBACK}:{self[int(found[1])]}", text)

    def move_nginx(self, text: str) -> str:
        """Likewise for an nginx configuration, where a port may stand alone after `listen`."""
        return self.move(_NGINX_PORT.sub(rf"{LOOPBACK}:\1", text))
