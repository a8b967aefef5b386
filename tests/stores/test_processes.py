"""The real processes on the real thing: each its own user, on servers that sentinels watch."""

import asyncio
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.faults.fleet import EVERYTHING, STALE_SECONDS, Fleet
from tests.faults.judging import judge
from tests.faults.people import People, people_of
from tests.faults.recorder import Held
from tests.stores.living import CLOCK
from tests.stores.sentinels import NAME, SentinelGroup
from tests.waiting import eventually

BACK_SECONDS = 15.0  # Far more than it takes, for a busy machine; the runbook has what was measured.


class WatchedFleet(Fleet):
    """A fleet whose store is a group of servers with sentinels."""

    def __init__(self, directory: Path, *names: str) -> None:
        """Provision, and describe the group under the users that were made."""
        super().__init__(directory, *names)
        self.group = SentinelGroup(
            directory.with_name("group"), provisioned=directory, settings={"min-replicas-to-write": "1"}
        )

    async def __aenter__(self) -> Self:
        await self.group.__aenter__()
        return await super().__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, stack: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, error, stack)
        await self.group.__aexit__(kind, error, stack)

    def start(self, name: str, **variables: str) -> subprocess.Popen[bytes]:
        """Start a process that asks the sentinels."""
        store = {
            "REDIS__URL": f"redis://{NAME}/0", "REDIS__SENTINELS": ",".join(self.group.settings.sentinels),
            "REDIS__DURABLE": "false", "REDIS__REQUIRE": "replicated",
        }  # fmt: skip
        return super().start(name, **store, **variables)


@asynccontextmanager
async def watched_people() -> AsyncIterator[tuple[People, SentinelGroup]]:
    """Run everything on a group, and let people at it."""
    with tempfile.TemporaryDirectory(prefix="keyturn-") as directory:
        async with WatchedFleet(Path(directory) / "kt", *EVERYTHING) as fleet, people_of(fleet) as people:
            yield people, fleet.group


async def test_a_fleet_goes_through_a_failover_and_forgets_no_revocation() -> None:
    """Whoever was told that a revocation is replicated sees it hold, and service is back within seconds."""
    async with watched_people() as (people, group):
        live, revoked = await people.token(), await people.token()
        assert await people.revoke(revoked) in (200, 202)
        old = await group.kill_primary()
        killed_at = CLOCK.boottime()
        looking = asyncio.ensure_future(asking(people, live, revoked))
        await group.failed_over(old)
        replaced_at = CLOCK.boottime()
        await eventually(lambda: people.are("fresh"), within_seconds=BACK_SECONDS, saying=people.fleet.last_words)
        fresh_at = CLOCK.boottime()
        looking.cancel()
        assert await people.statuses(live) == [200, 200]
        assert await people.statuses(revoked) == [401, 401]
        await eventually(people.well, within_seconds=30, saying=people.fleet.last_words)
        # Until the other replica is back in step nothing can be confirmed, and says so.
        await eventually(lambda: confirmed(people, live), within_seconds=30, saying=lambda: people.refused[-3:])
        await eventually(lambda: rejected(people), within_seconds=BACK_SECONDS)
        verdict = judge(people.recorder, bound_seconds=STALE_SECONDS)
        assert (verdict.false_accepts, verdict.rejected_though_fresh) == ([], [])
        print(f"failover after {replaced_at - killed_at:.1f} s, fresh after {fresh_at - killed_at:.1f} s")


async def asking(people: People, *held: Held) -> None:
    """Ask all sidecars about these tokens, as gateways do all the time, until cancelled."""
    while True:
        for one in held:
            await people.statuses(one)
        await CLOCK.sleep(0.05)


async def confirmed(people: People, held: Held) -> bool:
    """Ask for a revocation, again if need be; say whether it was promised."""
    return await people.revoke(held) in (200, 202)


async def rejected(people: People) -> bool:
    """Say whether all sidecars refuse what was revoked."""
    return all([set(await people.statuses(held)) == {401} for held in people.recorder.acknowledged()])
