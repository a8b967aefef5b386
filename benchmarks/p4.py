"""Row P4: the sidecar as it ships, 2,000 tokens that are all in its cache, beside both references."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.load import LOAD_CPU, Target, ended, free_port, pinned, reference, serving, until
from benchmarks.rounds import Row, at_least, in_turn

TOKENS = 2000
OF_HTTPTOOLS, OF_AIOHTTP = 0.80, 2.8
_ROOT = Path(__file__).parent.parent


def measure(directory: Path) -> list[Row]:
    """Measure how much of the bare servers' rate is left when every request is judged."""
    with ExitStack() as stack:
        home = directory / "issuer"
        url = stack.enter_context(issuing(home, tokens=TOKENS))
        targets = [
            stack.enter_context(sidecar(home, url)),
            *(stack.enter_context(reference(module)) for module in ("bare_httptools", "bare_aiohttp")),
        ]
        rounds = in_turn(targets, home / "tokens")
    what = f"sidecar, {TOKENS:,} tokens, all hits / bare {{}} hello"
    return [
        at_least(rounds, "sidecar", "bare_httptools", row="P4", what=what.format("httptools"), goal=OF_HTTPTOOLS),
        at_least(rounds, "sidecar", "bare_aiohttp", row="P4 (aiohttp)", what=what.format("aiohttp"), goal=OF_AIOHTTP),
    ]


@contextmanager
def issuing(home: Path, *, tokens: int) -> Iterator[str]:
    """Run an issuer beside the load, with its tokens in `home/tokens`; gives its store's URL."""
    arguments = [sys.executable, "-m", "benchmarks.issuer", str(home), str(tokens)]
    with pinned(LOAD_CPU):
        process = subprocess.Popen(arguments, cwd=_ROOT)
    try:
        written = home / "redis.url"
        until(lambda: written.exists() and bool(written.read_bytes()), "issuer", process)
        yield written.read_text("ascii")
    finally:
        ended(process)


@contextmanager
def sidecar(home: Path, redis_url: str) -> Iterator[Target]:
    """Run `keyturn sidecar` as it ships, ready, with no setting but where it listens and where the store is."""
    port = free_port()
    settings = {"KEYTURN_REDIS__URL": redis_url, "KEYTURN_SIDECAR__LISTEN": f"127.0.0.1:{port}"}
    arguments = ["-m", "keyturn.cli.main", "sidecar", "--config", str(home / "keyturn.toml")]
    with serving("sidecar", arguments, port=port, environment=environment_of(settings), ready="/readyz") as target:
        yield target


def environment_of(settings: Mapping[str, str]) -> dict[str, str]:
    """Return our environment with these settings, and none of anybody else's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KEYTURN_")}
    return {**kept, **settings}
