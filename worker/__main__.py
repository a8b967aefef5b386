"""`python -m worker`: runs what is due, such as key rotation, on its schedule."""

import sys
from functools import partial

from keyturn.clock import SystemClock
from keyturn.process.expiry import watch_expiry
from keyturn.process.logging import READY, configure_logging, logger
from keyturn.process.running import Supervisor, run, settle
from keyturn.process.settings import LogSettings, from_arguments
from serving.parts import open_parts
from worker.app import WorkerService


async def main() -> None:
    """Follow the feed and run the schedule until cancelled."""
    settings, clock = from_arguments("python -m worker", about=__doc__ or ""), SystemClock()
    configure_logging(settings.section(LogSettings), process=WorkerService.name)
    async with open_parts(settings, user=WorkerService.name, clock=clock) as parts:
        service = WorkerService(settings, parts)
        async with Supervisor(clock=clock) as supervisor:
            supervisor.keep_running("follower", parts.follow)
            supervisor.keep_running("trust", parts.check_trust)
            supervisor.keep_running("expiry", partial(watch_expiry, parts.replica, clock, parts.log))
            supervisor.keep_running(service.name, service.run)
            logger(service.name).info(READY)
            settle()
            await supervisor.forever()


if __name__ == "__main__":
    sys.exit(run(main, name=WorkerService.name))
