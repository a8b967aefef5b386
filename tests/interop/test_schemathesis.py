"""`/openapi.json` of a running system, and Schemathesis on whatever it promises."""

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.schemathesis_hooks import TOKENS
from tests.interop.system import ROOT, System, running_system

MOST_EXAMPLES = os.environ.get("KEYTURN_TEST_EXAMPLES", "3")
TESTED = "^/(introspect|revo|statuslists|streams|events|backchannel-logout|healthz|readyz|metrics|openapi)"
CONFIG = """
hooks = "tests.interop.schemathesis_hooks"

[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 413, 415]

[checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "422", "5xx"]

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
"""


@pytest.fixture(scope="module")
def own_system() -> Iterator[System]:
    """Run a system of this module's own: whoever sends `{"before": now}` ends everybody's tokens."""
    with asyncio.Runner() as runner:
        running = running_system()
        yield runner.run(running.__aenter__())
        runner.run(running.__aexit__(None, None, None))


async def test_whatever_the_description_promises_holds_and_whatever_it_excludes_is_refused(own_system: System) -> None:
    """Checklist, every endpoint: status codes, types, schemas, headers, limits and authentication, as described.

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
    assert "Tested: 12" in told.stdout, told.stdout
