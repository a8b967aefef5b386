"""Which jobs run when: every minute, ask what is due. Missed ticks need no catching up: the rules look at facts."""

from collections.abc import Callable, Coroutine
from typing import Any, cast

from arq.cron import CronJob, cron
from arq.typing import WorkerCoroutine

from keyservice.jobs import rotate_what_is_due

JOB_SECONDS = 50  # Less than the minute between two ticks.
JOBS: tuple[Callable[[dict[str, Any]], Coroutine[Any, Any, int]], ...] = (rotate_what_is_due,)


def schedule() -> list[CronJob]:
    """Return the cron jobs; each starts at second 0 of every minute and once when a worker starts."""
    return [
        cron(
            cast("WorkerCoroutine", job),
            second=0,
            run_at_startup=True,
            unique=True,
            timeout=JOB_SECONDS,
            max_tries=1,
            keep_result=0,
        )
        for job in JOBS
    ]
