"""`python -m stack up|demo`: what `make up` and `make demo` run."""

import argparse
import os
import sys
from pathlib import Path

import uvloop

from keyturn.clock import SystemClock
from keyturn.process.logging import configure_logging
from keyturn.process.running import run
from keyturn.process.settings import LogSettings, Settings
from stack.composition import running
from stack.plan import Orders

MOST_SIDECARS = 64
HIGHEST_PORT = 65_535


async def up(orders: Orders) -> None:
    """Run the stack until told to end."""
    clock = SystemClock()
    asked = Settings({}, os.environ, beside=Path.cwd()).section(LogSettings)
    configure_logging(asked, process="stack")
    async with running(orders, clock) as stack:
        where = ", ".join(orders.sidecar_urls)
        print(f"ready issuer {orders.issuer} sidecars {where or '-'} env {stack.env_file.absolute()}", flush=True)
        while True:
            await clock.sleep(3600)


def main(argv: list[str]) -> int:
    """Read the arguments and run; return the exit status."""
    arguments = _parser().parse_args(argv)
    if arguments.command == "demo":
        from stack.demo import demo  # noqa: PLC0415 - its OAuth client is not needed by `up`

        return run(lambda: demo(as_json=arguments.json), name="demo", loop_factory=uvloop.new_event_loop)
    orders = Orders(
        directory=arguments.dir, port=arguments.port, sidecar_port=arguments.sidecar_port,
        sidecars=arguments.sidecars, redis_url=arguments.redis_url,
    )  # fmt: skip
    return run(lambda: up(orders), name="stack", loop_factory=uvloop.new_event_loop)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m stack", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    begin = commands.add_parser("up", help="run the whole system on loopback", allow_abbrev=False)
    begin.add_argument("--port", type=_port, default=8400, help="of the issuer (default 8400)")
    begin.add_argument("--sidecar-port", type=_port, default=8410, help="of the first sidecar (default 8410)")
    begin.add_argument("--dir", type=Path, default=Path(".keyturn"), help="where it keeps everything")
    begin.add_argument("--sidecars", type=_count, default=1, help="how many (default 1)")
    begin.add_argument("--redis-url", help="a server to use instead of the embedded one")
    show = commands.add_parser("demo", help="show the main job in 40 seconds", allow_abbrev=False)
    show.add_argument("--json", action="store_true", help="end with one line of JSON")
    return parser


def _port(text: str) -> int:
    port = int(text)
    if not 0 < port <= HIGHEST_PORT:
        raise argparse.ArgumentTypeError(f"a port is between 1 and {HIGHEST_PORT}")
    return port


def _count(text: str) -> int:
    count = int(text)
    if not 0 <= count <= MOST_SIDECARS:
        raise argparse.ArgumentTypeError(f"choose from 0 to {MOST_SIDECARS}")
    return count


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
