"""Serves one or several services as one HTTP application, with their followers and background work."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from aiohttp import web
from structlog.typing import FilteringBoundLogger

from keyturn.clock import Clock
from keyturn.process.expiry import export_expiry, watch_expiry
from keyturn.process.following import watch_state
from keyturn.process.logging import READY
from keyturn.process.running import Supervisor
from keyturn.process.statekeeping import export_keeping
from keyturn.verifier.keeping import Keeper
from serving.application import make_application
from serving.health import add_health
from serving.listening import listening
from serving.parts import Parts


class Service(Protocol):
    """What `python -m NAME` serves alone and the stack serves beside the others."""

    @property
    def name(self) -> str:
        """Return the service's name."""
        ...

    def add_routes(self, app: web.Application) -> None:
        """Add the service's routes by `serving.routing.add_route`."""
        ...

    async def run(self) -> None:
        """Do the service's background work until cancelled."""
        ...

    def unready(self) -> str | None:
        """Return the reason why it cannot serve truthfully now, None if it can."""
        ...


async def serve(
    services: Sequence[Service],
    *,
    parts: Sequence[Parts],
    listen: str,
    log: FilteringBoundLogger,
    clock: Clock | None = None,
    setting: str = "listen",
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until cancelled: all routes, and health, readiness, metrics and description once for all.

    `listen` is HOST:PORT or unix:/PATH; raises ConfigurationError (naming `setting`) where that is taken. `ready`, if
    given, is called with the address once connections are accepted.
    """
    app = make_application(log, clock=clock or parts[0].clock, metrics=parts[0].metrics)
    for service in services:
        service.add_routes(app)
    add_health(app, services, parts)
    for metrics in dict.fromkeys(one.metrics for one in parts):
        of_this_process = [one for one in parts if one.metrics is metrics]
        export_expiry(metrics, [one.replica for one in of_this_process])
        export_keeping(metrics, partial(_keepers, of_this_process))
    async with Supervisor(clock=clock or parts[0].clock) as supervisor:
        for index, one in enumerate(dict.fromkeys(parts)):
            supervisor.keep_running(f"follower-{index}", one.follow)
            supervisor.keep_running(f"trust-{index}", one.check_trust)
            supervisor.keep_running(f"state-{index}", partial(watch_state, one.replica, one.clock, one.log))
            supervisor.keep_running(f"expiry-{index}", partial(watch_expiry, one.replica, one.clock, one.log))
        for service in services:
            supervisor.keep_running(service.name, service.run)
        async with listening(app, listen, setting=setting) as address:
            log.info(READY, services=[service.name for service in services], listen=address)
            if ready is not None:
                ready(address)
            await supervisor.forever()


def _keepers(parts: Sequence[Parts]) -> list[Keeper | None]:
    return [one.keeper for one in parts]
