"""compose.yaml: who sees which secret, and the whole of it running on loopback behind a real nginx."""

import re

import httpx2
import pytest

from tests.deploy.composition import Composition
from tests.deploy.containers import DOCKERFILE, ROOT, Container, read_containers
from tests.waiting import eventually

ISSUER, API = 8400, 8080
SERVICES = {"authorization": 8401, "keyservice": 8402, "introspection": 8403, "revocation": 8404}
HEALTH = {"/healthz", "/readyz", "/metrics", "/openapi.json"}


@pytest.fixture
def containers() -> dict[str, Container]:
    """Return what compose.yaml describes."""
    return read_containers({})


def holders(containers: dict[str, Container], path: str) -> set[str]:
    """Return the containers in which a file that `init` made, or one below it, can be read."""
    found = set()
    for name, container in containers.items():
        for mount in container.mounts:
            whole = mount.source == "keyturn" and not mount.subpath
            if whole or (mount.source == "keyturn" and f"{mount.subpath}/".startswith(f"{path}/")):
                found.add(name)
    return found - {"init"}


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("root", set()),
        ("roles/keys.jwk", {"keyservice", "worker"}),
        ("kek.json", {"keyservice", "worker"}),
        ("roles/revocations.jwk", {"revocation"}),
        ("records.json", {"authorization", "keyservice", "introspection", "revocation"}),
        ("identities/authorization.jwk", {"authorization"}),
        ("identities/introspection.jwk", {"introspection"}),
        ("identities/revocation.jwk", {"revocation"}),
        ("identities/sidecar-1.jwk", {"sidecar"}),
        ("redis/default.password", set()),
        ("clients", set()),
    ],
)
def test_a_secret_is_mounted_only_where_the_architecture_has_it(
    containers: dict[str, Container], path: str, allowed: set[str]
) -> None:
    """A container that is taken over must not hand out what its part of the system never needs."""
    assert holders(containers, path) == allowed


def test_nothing_of_the_volume_can_be_written_by_who_only_reads_it(containers: dict[str, Container]) -> None:
    """A sidecar that could write the settings could pin another root."""
    mounts = [mount for name, container in containers.items() if name != "init" for mount in container.mounts]
    assert [mount for mount in mounts if mount.source == "keyturn" and not (mount.read_only and mount.subpath)] == []


def test_only_loopback_is_published_and_only_by_nginx(containers: dict[str, Container]) -> None:
    """Store, services and signing listener are nobody's business outside."""
    published = {name: container.published for name, container in containers.items() if container.published}
    assert published == {"edge": ("127.0.0.1:8400:8400",), "api": ("127.0.0.1:8080:8080",)}


def test_a_lane_begins_only_when_somebody_says_so(containers: dict[str, Container]) -> None:
    """A store that was emptied must not be begun anew by a restart: its revocations would be forgotten."""
    for name in ("keyservice", "revocation"):
        setting = f"KEYTURN_{name.upper()}__BOOTSTRAP"
        assert containers[name].environment[setting] == "false"
        assert read_containers({"KEYTURN_BOOTSTRAP": "true"})[name].environment[setting] == "true"


def test_the_image_has_every_folder_that_a_command_names(containers: dict[str, Container]) -> None:
    """A folder that the Dockerfile forgets is missed only at the start of its container."""
    copied = set(re.findall(r"^COPY (\w+) \1$", DOCKERFILE.read_text(), re.MULTILINE))
    commands = [container.command for container in containers.values() if container.image == "keyturn"]
    started = {command[2] for command in commands if command[:2] == ("python", "-m")}
    assert started == {*SERVICES, "worker"}
    assert copied == started | {"serving", "keyturn"}
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert all(f"!{name}" in ignored for name in copied)


async def test_a_token_passes_until_it_is_revoked(composition: Composition) -> None:
    """The main job, as compose.yaml has it: token by the edge, checked behind nginx, revoked, refused."""
    client = ("client", composition.secret("client"))
    resource = ("resource", composition.secret("resource"))
    async with httpx2.AsyncClient(base_url=composition.url(ISSUER)) as edge:
        metadata = (await edge.get("/.well-known/oauth-authorization-server")).json()
        assert metadata["issuer"] == composition.url(ISSUER)
        asked = await edge.post(metadata["token_endpoint"], data={"grant_type": "client_credentials"}, auth=client)
        token = asked.json()["access_token"]

        bearer = {"Authorization": f"Bearer {token}"}
        allowed = await edge.get(f"{composition.url(API)}/orders?page=2", headers=bearer)
        assert allowed.status_code == 200
        assert allowed.json() == {"subject": "client", "client": "client", "scope": "read write"}
        told = await edge.post(metadata["introspection_endpoint"], data={"token": token}, auth=resource)
        assert told.json()["active"] is True

        revoked = await edge.post(
            f"{metadata['revocation_endpoint']}?wait=all&timeout=8", data={"token": token}, auth=client
        )
        assert revoked.status_code == 200, revoked.text
        denied = await edge.get(f"{composition.url(API)}/orders", headers=bearer)
        assert denied.status_code == 401
        assert 'error="invalid_token"' in denied.headers["WWW-Authenticate"]
        told = await edge.post(metadata["introspection_endpoint"], data={"token": token}, auth=resource)
        assert told.json() == {"active": False}


async def test_the_edge_leads_each_route_to_the_service_that_has_it(composition: Composition) -> None:
    """A route that a service gains must be given to the edge, too."""
    async with httpx2.AsyncClient() as client:
        for service, port in SERVICES.items():
            described = (await client.get(f"{composition.url(port)}/openapi.json")).json()["paths"]
            paths = {re.sub(r"\{\w+\}", "1", path) for path in described if path not in HEALTH}
            assert paths
            for path in paths:
                # A method that no route has is refused by the service, naming those that it has.
                direct = await client.request("PATCH", f"{composition.url(port)}{path}")
                by_edge = await client.request("PATCH", f"{composition.url(ISSUER)}{path}")
                assert direct.status_code == by_edge.status_code == 405, (service, path)
                assert direct.headers["Allow"] == by_edge.headers["Allow"]


@pytest.mark.parametrize("path", ["/", "/metrics", "/sign", "/openapi.json", "/keys/../sign", "/token/"])
async def test_the_edge_leads_nowhere_else(composition: Composition, path: str) -> None:
    """What is not a route of the issuer stays inside."""
    async with httpx2.AsyncClient() as client:
        assert (await client.get(f"{composition.url(ISSUER)}{path}")).status_code == 404


@pytest.mark.parametrize("service", SERVICES)
async def test_the_edge_is_ready_only_while_every_service_is(composition: Composition, service: str) -> None:
    """Who watches the origin must hear of the one service that is gone."""
    async with httpx2.AsyncClient(base_url=composition.url(ISSUER)) as edge:
        assert (await edge.get("/readyz")).json() == {"status": "ready"}
        await composition.end(service)
        gone = await edge.get("/readyz")
        composition.start(service)
        await eventually(composition.ready, within_seconds=30, saying=composition.last_words)
        assert gone.status_code in (502, 503)
        assert (await edge.get("/readyz")).status_code == 200


async def test_every_process_ends_cleanly_and_comes_back(composition: Composition) -> None:
    """`docker compose restart` must lose nothing: the second start needs no bootstrap."""
    for name in (*SERVICES, "worker", "sidecar"):
        assert await composition.end(name) == 0, f"{name}\n{composition.last_words()}"
        bootstrap = f"KEYTURN_{name.upper()}__BOOTSTRAP"
        composition.start(name, variables={bootstrap: "false"} if name in ("keyservice", "revocation") else {})
    await eventually(composition.ready, within_seconds=30, saying=composition.last_words)
