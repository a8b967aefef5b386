"""What holds for every route of a running system, as `/openapi.json` lists them: Schemathesis, limits, secrets."""

import asyncio
import os
import re
import subprocess
import sys
import tempfile
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest

from keyturn import entropy
from keyturn.contract.encoding import b64url
from tests.interop.schemathesis_hooks import TOKENS
from tests.interop.system import ROOT, System, running_system

UNBOUNDED = frozenset({"/revocations/bulk"})  # A stream of lines, each within a limit.
MOST_EXAMPLES = os.environ.get("KEYTURN_TEST_EXAMPLES", "2")
TESTED = (
    "^/(authorize|logins|introspect|revo|statuslists|streams|events|backchannel-logout|healthz|readyz|metrics|openapi"
    "|feed|verifiers)"
)
CONFIG = """
hooks = "tests.interop.schemathesis_hooks"

[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 413, 415, 431]

[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", "401", "403", "404", "422", "5xx"]

# No schema can say that a token is signed by another issuer.
[[operations]]
include-path = ["/events", "/backchannel-logout"]

[operations.checks.positive_data_acceptance]
expected-statuses = ["400"]

# Nor which clients there are, and where each has its users sent back to.
[[operations]]
include-path = ["/authorize"]

[operations.checks.positive_data_acceptance]
expected-statuses = ["303", "400", "431"]

[auth.openapi.resourceServer]
username = "${KEYTURN_RESOURCE_ID}"
password = "${KEYTURN_RESOURCE_SECRET}"

[auth.openapi.client]
username = "${KEYTURN_CLIENT_ID}"
password = "${KEYTURN_CLIENT_SECRET}"

[auth.dynamic.openapi.operator]
path = "/token"
method = "post"
payload_content_type = "application/x-www-form-urlencoded"
extract_selector = "/access_token"

[auth.dynamic.openapi.operator.payload]
grant_type = "client_credentials"
client_id = "${KEYTURN_ADMIN_ID}"
client_secret = "${KEYTURN_ADMIN_SECRET}"

[auth.dynamic.openapi.signInPage]
path = "/token"
method = "post"
payload_content_type = "application/x-www-form-urlencoded"
extract_selector = "/access_token"

[auth.dynamic.openapi.signInPage.payload]
grant_type = "client_credentials"
client_id = "${KEYTURN_SIGNIN_ID}"
client_secret = "${KEYTURN_SIGNIN_SECRET}"
"""


class Operation(NamedTuple):
    """A method of a path, and what is said of it."""

    method: str
    path: str
    described: dict[str, Any]

    @property
    def is_tested(self) -> bool:
        """Say whether it is introspection's, revocation's, each service's, of the feed, or users sign in by it."""
        return re.match(TESTED, self.path) is not None


@pytest.fixture(scope="module")
def own_system() -> Iterator[System]:
    """Run a system of this module's own: whoever sends `{"before": now}` ends everybody's tokens."""
    with asyncio.Runner() as runner:
        running = running_system()
        yield runner.run(running.__aenter__())
        runner.run(running.__aexit__(None, None, None))


@pytest.fixture(scope="module")
def operations(own_system: System) -> list[Operation]:
    """Return every operation that the system describes."""
    description = httpx2.get(f"{own_system.issuer}/openapi.json").raise_for_status().json()
    return [
        Operation(method.upper(), path, described)
        for path, methods in description["paths"].items()
        for method, described in methods.items()
    ]


async def test_whatever_the_description_promises_holds_and_whatever_it_excludes_is_refused(
    own_system: System, operations: list[Operation]
) -> None:
    """Checklist, every endpoint; OpenAPI 3.1: statuses, types, schemas, headers, limits and authentication.

    All checks of Schemathesis, in all its phases: valid requests are taken, broken ones are refused, no answer is
    unexpected, and none is a 500.
    """
    tokens = [await own_system.new_token() for _ in range(2)]
    with tempfile.TemporaryDirectory() as name:
        config = Path(name) / "schemathesis.toml"
        config.write_text(CONFIG)
        told = await asyncio.to_thread(
            subprocess.run,
            [
                sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run",
                f"{own_system.issuer}/openapi.json", "--checks", "all", "--include-path-regex", TESTED,
                "--generation-deterministic", "--max-examples", MOST_EXAMPLES, "--no-color",
            ],
            capture_output=True, text=True, check=False, cwd=name,
            env={**os.environ, **own_system.env, "PYTHONPATH": str(ROOT), TOKENS: " ".join(tokens)},
        )  # fmt: skip
    assert told.returncode == 0, told.stdout[-8000:] + told.stderr
    assert f"Tested: {sum(one.is_tested for one in operations)}\n" in told.stdout, told.stdout


@pytest.fixture
def client(own_system: System) -> Iterator[httpx2.Client]:
    """Ask the system."""
    with httpx2.Client(base_url=own_system.issuer, timeout=20) as one:
        yield one


async def test_each_route_says_all_that_it_takes_and_answers(operations: list[Operation]) -> None:
    """What is not described is found by attackers alone: of the routes that are tested nothing is left out."""
    for one in operations:
        if not one.is_tested:
            continue
        answers, path = one.described["responses"], re.findall(r"{(\w+)}", one.path)
        parameters = one.described.get("parameters", ())
        assert {parameter["name"] for parameter in parameters if parameter["in"] == "path"} == set(path), one
        assert {"400", "431", "503"} <= answers.keys(), one
        assert ("requestBody" in one.described) == (one.method == "POST"), one
        assert answers.keys() >= ({"413", "415"} if one.method == "POST" else set()), one
        assert "security" in one.described, one
        assert {"summary", "operationId"} <= one.described.keys() or one.described["tags"] == ["process"], one
        assert all("content" in told for status, told in answers.items() if status >= "400"), one


async def test_each_route_refuses_other_methods_types_and_sizes(
    operations: list[Operation], own_system: System, client: httpx2.Client
) -> None:
    """RFC 9110, 15.5.6, 15.5.14, 15.5.16; RFC 6585, 5: 405 with Allow, 413, 415, 431; and no-store on each."""
    bearer = {
        scheme: f"Bearer {await own_system.new_token(role)}"
        for scheme, role in (("operator", "ADMIN"), ("signInPage", "SIGNIN"))
    }
    for role, scheme in (("CLIENT", "client"), ("RESOURCE", "resourceServer")):
        identity = ":".join(own_system.credentials(role))
        bearer[scheme] = f"Basic {b64encode(identity.encode()).decode()}"
    for one in operations:
        path = re.sub(r"{\w+}", "1", one.path)
        wrong = client.request("PATCH", path)
        assert (wrong.status_code, one.method in wrong.headers["Allow"].split(",")) == (405, True), one
        headers = [bearer[scheme] for need in one.described.get("security", ()) for scheme in need if scheme in bearer]
        proved = {"Authorization": headers[0]} if headers else {}
        assert client.request(one.method, path, headers={**proved, "X-Large": "x" * 9000}).status_code == 431, one
        if one.method == "POST" and one.is_tested:
            typed = client.post(path, headers={**proved, "Content-Type": "text/html"}, content=b"<p>")
            missing = {404} if path != one.path else set()  # Nothing stands at the place that was made up.
            assert typed.status_code in {415, *missing}, one
            assert typed.headers["Cache-Control"] == "no-store", one
            for kind in one.described["requestBody"]["content"] if one.path not in UNBOUNDED else ():
                large = client.post(path, headers={**proved, "Content-Type": kind}, content=b"a" * 1_000_000)
                assert large.status_code in {413, *missing}, one
                assert large.headers["Cache-Control"] == "no-store", one


async def test_nothing_of_a_secret_is_logged_counted_or_answered(
    operations: list[Operation], own_system: System, client: httpx2.Client
) -> None:
    """Checklist, every endpoint: logs and metrics are copied to ten places, and none of them may be worth stealing.

    Every route gets marked secrets wherever somebody might put one, and real ones go their usual way; then all that
    the whole system has written since its start is searched for them.
    """
    mark = f"kt_at_{b64url(entropy.token_bytes(32))}"
    for one in operations:
        path = re.sub(r"{\w+}", mark, one.path)
        for headers in marked_headers(mark):
            for content in marked_contents(mark):
                client.request(one.method, f"{path}?access_token={mark}&wait={mark}", headers=headers, **content)
    secrets = [mark, b64encode(f"{mark}:{mark}".encode()).decode()]
    for role in ("CLIENT", "RESOURCE", "ADMIN", "SIGNIN"):
        secrets.append(own_system.credentials(role)[1])
    for form in ("jwt", "opaque"):
        asked = {"grant_type": "client_credentials", "token_format": form}
        token = client.post("/token", data=asked, auth=own_system.credentials("CLIENT")).json()["access_token"]
        secrets.append(token)
        for accept in ("application/json", "application/jwt", "application/token-introspection+jwt"):
            told = client.post(
                "/introspect", data={"token": token}, auth=own_system.credentials("RESOURCE"),
                headers={"Accept": accept},
            )  # fmt: skip
            assert told.status_code == 200
        assert client.post("/revoke", data={"token": token}, auth=own_system.credentials("CLIENT")).status_code == 200
    admin = await own_system.new_token("ADMIN")
    secrets.append(admin)
    order = {"selector": {"sub": "somebody"}}
    assert client.post("/revocations", json=order, headers={"Authorization": f"Bearer {admin}"}).status_code == 200
    written = own_system.log.read_text() + client.get("/metrics").text
    assert "/revocations" in written
    assert [secret for secret in secrets if secret in written] == []
    assert "Traceback" not in written
    assert "unexpected_error" not in written


def marked_headers(mark: str) -> list[dict[str, str]]:
    """Return header fields with a secret in each place where one may stand."""
    basic = b64encode(f"{mark}:{mark}".encode()).decode()
    everywhere = {
        "Cookie": f"session={mark}",
        "X-Token": mark,
        "Accept": f"application/{mark}",
        "Idempotency-Key": mark,
    }
    return [{**everywhere, "Authorization": value} for value in (f"Basic {basic}", f"Bearer {mark}", mark)]


def marked_contents(mark: str) -> list[dict[str, Any]]:
    """Return bodies with a secret in each place where one may stand."""
    form = {"token": mark, "client_id": "client", "client_assertion": mark, "logout_token": mark, mark: mark}
    members = {"tokens": [mark], "selector": {"sub": mark, mark: mark}, "ack": [mark], "reason": mark}
    form["client_secret"] = mark
    return [{"data": form}, {"json": members}, {"json": {mark: mark}}, {"content": mark.encode()}]
