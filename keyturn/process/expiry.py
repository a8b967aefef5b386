"""The trust document's end, told long before: a warning each day from thirty days ahead, and a gauge for alarms."""

from collections.abc import Sequence
from typing import Final

from structlog.typing import FilteringBoundLogger

from keyturn.clock import Clock
from keyturn.contract.trust import DAY_SECONDS
from keyturn.process.metrics import Metrics
from keyturn.verifier.replica import Replica

LOOK_SECONDS = 60.0
TRUST_EXPIRES_SOON: Final = "trust_expires_soon"


async def watch_expiry(replica: Replica, clock: Clock, log: FilteringBoundLogger) -> None:
    """Warn once a day, until cancelled, while the document in force expires within thirty days or has expired."""
    warned_boottime = float("-inf")
    while True:
        trust, boottime = replica.trust, clock.boottime()
        if trust.version and trust.expires_soon(clock.now()) and boottime - warned_boottime >= DAY_SECONDS:
            warned_boottime = boottime
            left = round((trust.document.expires_at - clock.now()) / DAY_SECONDS, 1)
            log.warning(TRUST_EXPIRES_SOON, version=trust.version, days_left=left)
        await clock.sleep(LOOK_SECONDS)


def export_expiry(metrics: Metrics, replicas: Sequence[Replica]) -> None:
    """Export when the document in force expires, the first of them where a process has several replicas."""
    metrics.read_gauge(
        "keyturn_trust_expires_timestamp_seconds", "When the trust document in force expires; 0 before there is one.",
        lambda: min(replica.trust.document.expires_at for replica in replicas),
    )  # fmt: skip
