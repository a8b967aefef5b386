"""The worker as a whole: a supervised arq worker over the services' jobs."""

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any, cast

from arq.connections import ArqRedis
from arq.worker import Worker
from redis.asyncio import Redis

from keyservice.jobs import ROTATOR
from keyservice.parts import RotationParts
from keyservice.restoring import Restoring
from keyturn.contract.positions import Lane
from keyturn.process.following import connect_as
from keyturn.process.running import keep_running
from keyturn.process.settings import RedisSettings, Settings
from serving.parts import Parts
from serving.storewatch import StoreWatch
from worker.schedule import schedule
from worker.settings import WorkerSettings


class WorkerService:
    """Runs the schedule until cancelled; arq ends with the first lost connection, so it is started again."""

    name = "worker"

    def __init__(self, settings: Settings, parts: Parts) -> None:
        self._settings, self._parts = settings, parts
        self._own, self._redis = settings.section(WorkerSettings), settings.section(RedisSettings)
        self._store = StoreWatch(self._redis, parts)
        self._rotation = RotationParts.make(settings, parts)
        self._restoring = Restoring(self._rotation.keyring, parts.replica, parts.clock, parts.log)

    async def run(self) -> None:
        """Watch verifiers and run jobs."""
        await self._store.begin()
        await self._parts.follower.ready(Lane.KEYS)
        async with asyncio.TaskGroup() as group:
            # A replica of the lane's publisher like any other: it beats where the key service is away, and what it has
            # appended is not forgotten where the store has lost it.
            group.create_task(self._rotation.publisher.run(self._parts.follower.catch_up, self._rotation.recovery.mend))
            group.create_task(self._restoring.run())  # The keys that this process made may be known to nobody else yet.
            group.create_task(self._rotation.watch.run())
            group.create_task(self._store.run())
            group.create_task(self._rotation.role_key.run())
            group.create_task(keep_running("arq", self._work, clock=self._parts.clock))

    async def _work(self) -> None:
        async with AsyncExitStack() as stack:  # Closes its connections, whatever arq leaves open.
            worker = self._new_worker(connect_as(stack, self._redis, self.name))
            try:
                await worker.main()
            finally:
                await worker.close()

    def _new_worker(self, redis: Redis) -> Worker:
        """Return an arq worker that keeps JSON in the store: its default, pickle, would run what others write there."""
        pool = ArqRedis(
            pool_or_conn=redis.connection_pool, job_serializer=_serialize, job_deserializer=_deserialize,
            default_queue_name=self._own.queue,
        )  # fmt: skip
        return Worker(
            cron_jobs=schedule(), redis_pool=pool, queue_name=self._own.queue, handle_signals=False,
            job_serializer=_serialize, job_deserializer=_deserialize, ctx={ROTATOR: self._rotation.rotator},
            max_jobs=4, poll_delay=0.5, health_check_key=f"{self._own.queue}:health", log_results=False,
        )  # fmt: skip


def _serialize(value: dict[str, Any]) -> bytes:
    return json.dumps(value, default=_shown).encode()


def _deserialize(raw: bytes) -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads(raw))


def _shown(value: object) -> str:
    """Store a failure by its class alone: its text may quote anything."""
    return type(value).__name__
