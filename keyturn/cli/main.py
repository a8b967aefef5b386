"""The `keyturn` command: its groups of commands, and how each failure ends."""

import importlib
import os
import sys
from collections.abc import Sequence

from keyturn.cli.answers import CannotTell, ExitStatus, WrongUsage
from keyturn.cli.arguments import Parser
from keyturn.contract.errors import ConfigurationError, KeyturnError

# Which module knows a command: only that one is loaded, so that a sidecar does not carry an HTTP client.
_COMMANDS = {
    "init": "processes",
    "sidecar": "processes",
    "token": "tokens",
    "verify": "checking",
    "introspect": "checking",
    "revoke": "revoking",
    "kek": "kek",
    "records": "recordkeys",
    "doctor": "doctor",
    "feed": "feed",
    "keys": "keys",
    "lint": "lint",
    "trust": "trust",
    "verifiers": "fleet",
    "status": "fleet",
}
_INTERRUPTED = 130  # As a shell says it of SIGINT.


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 yes, 1 no, 2 usage, 3 could not tell."""
    try:
        words = list(sys.argv[1:] if argv is None else argv)
        arguments = _parser(words[0] if words else "").parse_args(words)
        status = int(arguments.run(arguments))
        sys.stdout.flush()
    except (WrongUsage, ConfigurationError) as error:
        return _say(error, ExitStatus.USAGE)
    except (CannotTell, KeyturnError) as error:
        return _say(error, ExitStatus.UNTOLD)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # Whoever read our answer has read enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitStatus.YES
    return status


def _parser(command: str) -> Parser:
    parser = Parser(
        prog="keyturn",
        description="Operate Keyturn: rotate signing keys, revoke tokens, ask about both.",
        epilog="exit status: 0 yes, 1 no, 2 wrong usage, 3 could not tell",
    )
    groups = parser.add_subparsers(required=True, metavar="COMMAND")
    known = command in _COMMANDS
    for name in [_COMMANDS[command]] if known else dict.fromkeys(_COMMANDS.values()):
        try:
            group = importlib.import_module(f"keyturn.cli.{name}")
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith("keyturn"):
                raise
            if known:
                raise WrongUsage(f"keyturn {command} needs {error.name}: install keyturn[cli]") from error
            continue  # Help names what this installation can do.
        group.add_commands(groups)
    return parser


def _say(error: KeyturnError, status: ExitStatus) -> int:
    sys.stderr.write(f"keyturn: {error}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
