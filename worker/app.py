"""The worker as a whole: a supervised arq worker over the services' jobs."""

import asyncio
import json
from typing import Any, cast

from arq.connections import ArqRedis
from arq.worker import Worker

from keyservice.jobs import ROTATOR
from keyservice.parts import RotationParts
from keyturn.contract.positions import Lane
from keyturn.process.redis import connect
from keyturn.process.running import keep_running
from keyturn.process.settings import RedisSettings, Settings
from serving.parts import Parts
from worker.schedule import schedule
from worker.settings import WorkerSettings

WORKER_ENDED = "worker_ended"


class WorkerService:
    """Runs the schedule until cancelled; arq ends with the first lost connection, so it is started again."""

    name = "worker"

    def __init__(self, settings: Settings, parts: Parts) -> None:
        self._settings, self._parts = settings, parts
        self._own, self._redis = settings.section(WorkerSettings), settings.section(RedisSettings)
        self._rotation = RotationParts.make(settings, parts)

    async def run(self) -> None:
        """Watch verifiers and run jobs."""
        await self._parts.follower.ready(Lane.KEYS)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._rotation.watch.run())
            group.create_task(keep_running("arq", self._work, clock=self._parts.clock))

    async def _work(self) -> None:
        worker = self._new_worker()
        try:
            await worker.main()
        finally:
            await worker.close()

    def _new_worker(self) -> Worker:
        """Return an arq worker that keeps JSON in the store: its default, pickle, would run what others write there."""
        username, password = self._redis.login(self.name)
        client = connect(
            self._redis.url, client_name="keyturn-worker", username=username, password=password,
            ca_file=self._redis.ca_file,
        )  # fmt: skip
        pool = ArqRedis(
            pool_or_conn=client.connection_pool, job_serializer=_serialize, job_deserializer=_deserialize,
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
