"""What a command that goes online is handed: where to ask, as whom, and where to print."""

import argparse
import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from keyturn.cli.answers import ExitStatus
from keyturn.cli.environment import Environment, Role
from keyturn.cli.origin import Answer, Origin, bearer, get_token, origin
from keyturn.cli.tables import Printer
from keyturn.contract.trust import ADMIN_SCOPE


class Session:
    """One command's environment, printer and origins."""

    def __init__(self, environment: Environment, printer: Printer) -> None:
        self.environment, self.printer = environment, printer

    @asynccontextmanager
    async def issuer(self) -> AsyncIterator[Origin]:
        """Open the issuer's origin."""
        async with origin(self.environment.issuer) as opened:
            yield opened

    async def as_admin(self, method: str, path: str, **asked: Any) -> Answer:
        """Ask the issuer with a fresh admin token; the arguments are those of Origin.ask."""
        credentials = self.environment.credentials(Role.ADMIN)
        async with self.issuer() as issuer:
            told = await get_token(issuer, credentials, scope=ADMIN_SCOPE)
            return await issuer.ask(method, path, authorization=bearer(told["access_token"]), **asked)


Command: TypeAlias = Callable[[argparse.Namespace, Session], Awaitable[ExitStatus]]


def online(command: Command) -> Callable[[argparse.Namespace], ExitStatus]:
    """Make a command of a coroutine function that wants a session."""

    def run(args: argparse.Namespace) -> ExitStatus:
        async def session() -> ExitStatus:
            return await command(args, Session(Environment.read(args.env), Printer(as_json=args.json)))

        return asyncio.run(session())

    return run
