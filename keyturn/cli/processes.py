"""`keyturn init` and `keyturn sidecar`: make what a Keyturn needs, and run the verifier beside an API."""

import argparse
import importlib
import re
from pathlib import Path
from typing import Any

from keyturn.cli.answers import ExitStatus, WrongUsage
from keyturn.cli.arguments import common_options
from keyturn.cli.provisioning import Plan, provision
from keyturn.cli.tables import Printer
from keyturn.clock import SystemClock

DEFAULT_DIRECTORY = Path(".keyturn")
_DEFAULT_ISSUER = "http://127.0.0.1:8400"
_MOST_SIDECARS = 1000
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def add_commands(groups: "argparse._SubParsersAction[Any]") -> None:
    """Add `init` and `sidecar`."""
    plan = Plan(issuer="")
    init = groups.add_parser(
        "init", parents=[common_options(online=False)],
        help="make root, role and identity keys, the trust document, store users, clients and keyturn.toml",
    )  # fmt: skip
    init.add_argument("directory", nargs="?", type=Path, default=DEFAULT_DIRECTORY, metavar="DIR")
    init.add_argument("--issuer", default=_DEFAULT_ISSUER, metavar="URL", help=f"default: {_DEFAULT_ISSUER}")
    init.add_argument("--redis-url", default=plan.redis_url, metavar="URL", help=f"default: {plan.redis_url}")
    init.add_argument("--sidecars", type=_count, default=1, metavar="N", help="how many verifiers to name (default: 1)")
    init.add_argument(
        "--verifier", action="append", type=verifier_name, metavar="NAME", help="name one (in place of N)"
    )
    init.set_defaults(run=_init)
    sidecar = groups.add_parser("sidecar", help="run the verifier beside an API", add_help=True)
    sidecar.add_argument("--config", type=Path, metavar="FILE", help="the settings (default: ./keyturn.toml)")
    sidecar.set_defaults(run=_sidecar)


def _init(args: argparse.Namespace) -> ExitStatus:
    named = tuple(args.verifier or (f"sidecar-{number + 1}" for number in range(args.sidecars)))
    plan = Plan(issuer=args.issuer, redis_url=args.redis_url, verifiers=named)
    provision(args.directory, plan, now=SystemClock().now())
    directory = args.directory.absolute()
    Printer(as_json=args.json).answer(
        {"directory": str(directory), "configuration": str(directory / "keyturn.toml"), "verifiers": list(named)},
        f"made {directory}",
        f"  {directory / 'keyturn.toml'}: settings of every process",
        f"  {directory / 'root' / 'private.jwk'}: the root; keep it offline, everything hangs on it",
        f"  {directory / 'clients'}: the clients' secrets",
    )
    return ExitStatus.YES


def _sidecar(args: argparse.Namespace) -> ExitStatus:
    try:
        # By name, since the sidecar is a sibling that brings dependencies of its own.
        app = importlib.import_module("keyturn.sidecar.app")
    except ModuleNotFoundError as error:
        raise WrongUsage(f"the sidecar needs {error.name}: install keyturn[sidecar]") from error
    argv = [] if args.config is None else ["--config", str(args.config)]
    return ExitStatus(app.main(argv))


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= _MOST_SIDECARS:
        raise argparse.ArgumentTypeError(f"is a number from 1 to {_MOST_SIDECARS}")
    return int(text)


def verifier_name(text: str) -> str:
    """Read a verifier's name, which is that of its user of the store as well."""
    if not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError("is made of a-z, 0-9 and -, 63 at most")
    return text
