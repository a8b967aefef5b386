"""All streams of a revocation service."""

import asyncio
from collections.abc import Mapping

from keyturn.contract.errors import ConfigurationError, KeyturnError
from keyturn.contract.positions import Position
from keyturn.process.running import Supervisor
from revocation.streams.bell import Bell
from revocation.streams.pushing import LOOK_AGAIN_SECONDS, Courier
from revocation.streams.settings import StreamSettings
from revocation.streams.stream import Figures, Stream
from serving.parts import Parts
from serving.sealing import Sealer
from serving.signing import NoSigner, Signer


class Streams:
    """Those that `[streams.NAME]` names."""

    def __init__(self, settings: Mapping[str, StreamSettings], parts: Parts, *, signer: Signer, sealer: Sealer) -> None:
        """Know them, and seal their dead letters by `sealer`.

        Raises ConfigurationError where there are some and nothing signs for us.
        """
        if settings and isinstance(signer, NoSigner):
            raise ConfigurationError(
                "nothing signs the Security Event Tokens of this service", setting="revocation.signer",
                mend="set it and revocation.identity_file, or take the streams out",
            )  # fmt: skip
        self._clock, counter = parts.clock, parts.metrics.counter
        figures = Figures(
            told=counter("keyturn_stream_told", "Security Event Tokens that receivers took.", labels=("stream",)),
            refused=counter(
                "keyturn_stream_refused", "Security Event Tokens that receivers refused for good.", labels=("stream",)
            ),
            lost=counter("keyturn_stream_gaps", "Times that events could not be told any more.", labels=("stream",)),
        )  # fmt: skip
        self.bell = Bell()
        parts.follower.on_change.append(self.bell.ring)
        self.by_name = {
            name: Stream(name, one, parts, sign=signer.sign, sealer=sealer, figures=figures)
            for name, one in settings.items()
        }
        self._couriers = [
            Courier(one, one.settings.push, parts, bell=self.bell)
            for one in self.by_name.values()
            if one.settings.push is not None
        ]

    async def need(self, position: Position, seconds: float) -> bool:
        """Say whether the feed should keep events for a receiver that is behind; within each stream's limit."""
        for stream in self.by_name.values():
            if await stream.needs(position, seconds):
                return True
        return False

    async def run(self) -> None:
        """Begin streams that are new, and push what is to be pushed, each by itself, until cancelled."""
        async with Supervisor(clock=self._clock) as supervisor:
            for courier in self._couriers:
                supervisor.keep_running(f"stream-{courier.name}", courier.run)
            await asyncio.gather(*(self._begin(stream) for stream in self.by_name.values()))
            await supervisor.forever()

    async def _begin(self, stream: Stream) -> None:
        """Have a stream begin now: what is revoked before its receiver comes for the first time is told, too."""
        while True:
            try:
                await stream.open()
            except KeyturnError:  # The store or the feed is away.
                await self._clock.sleep(LOOK_AGAIN_SECONDS)
            else:
                return
