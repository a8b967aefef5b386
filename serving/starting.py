"""How one service starts as a process of its own: settings, parts, the service, and its listener."""

from collections.abc import Callable

import uvloop

from keyturn.clock import SystemClock
from keyturn.process.logging import configure_logging, logger
from keyturn.process.running import run, settle
from keyturn.process.settings import LogSettings, Section, Settings, from_arguments
from keyturn.process.values import Listen
from serving.parts import Parts, open_parts
from serving.service import Service, serve


def start(make: Callable[[Settings, Parts], Service], shape: type[Section], *, about: str) -> int:
    """Run `python -m NAME` until it is told to end; return the exit status.

    `make` builds the service; `shape` is its section, whose `listen` says where it is served, and whose name is the
    service's and its user's in the store.
    """
    name = shape.SECTION

    async def main() -> None:
        settings, clock = from_arguments(f"python -m {name}", about=about), SystemClock()
        configure_logging(settings.section(LogSettings), process=name)
        own = settings.section(shape)
        listen: Listen = own.listen  # type: ignore[attr-defined]  # Each service's section has it.
        async with open_parts(settings, user=name, clock=clock) as parts:
            await serve(
                [make(settings, parts)], parts=[parts], listen=str(listen), log=logger(name),
                setting=f"{name}.listen", ready=lambda _address: settle(),
            )  # fmt: skip

    return run(main, name=name, loop_factory=uvloop.new_event_loop)
