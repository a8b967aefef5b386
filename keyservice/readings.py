"""What the key service exports to Prometheus: keys by phase, what waits, who lags, and the signer's lease."""

from collections import Counter

from keyservice.parts import RotationParts
from keyturn.clock import Clock
from keyturn.contract.keys import Phase
from keyturn.contract.positions import Lane
from keyturn.process.metrics import Metrics
from keyturn.verifier.replica import Replica


def export_rotation(metrics: Metrics, rotation: RotationParts, replica: Replica, clock: Clock) -> None:
    """Export the state of the keys lane; all of it is worked out when it is scraped."""
    policy, watch = rotation.policy, rotation.watch

    def keys() -> dict[tuple[str, ...], float]:
        counted = Counter((key.alg, key.phase.value) for key in replica.keys)
        return {(alg, phase.value): float(counted[alg, phase.value]) for alg in policy.algorithms for phase in Phase}

    def ages() -> dict[str, float]:
        active = ((alg, replica.keys.active(alg, policy.use)) for alg in policy.algorithms)
        return {
            alg: clock.now() - key.active_at for alg, key in active if key is not None and key.active_at is not None
        }

    def waiting() -> dict[str, float]:
        asked = ((alg, replica.keys.requested(alg, policy.use)) for alg in policy.algorithms)
        return {alg: 0.0 if request is None else clock.now() - request.at for alg, request in asked}

    def verifiers() -> dict[str, float]:
        adopters = watch.adopters(Lane.KEYS, replica.place(Lane.KEYS))
        return {"adopted": float(len(adopters.adopted)), "lagging": float(len(adopters.laggards))}

    metrics.read_gauge("keyturn_keys", "Signing keys by phase.", keys, labels=("alg", "phase"))
    metrics.read_gauge("keyturn_active_key_age_seconds", "Since the active key began.", ages, labels=("alg",))
    metrics.read_gauge(
        "keyturn_rotation_waiting_seconds",
        "How long an ordered rotation has waited; 0 if none.",
        waiting,
        labels=("alg",),
    )
    metrics.read_gauge(
        "keyturn_live_verifiers",
        "Live verifiers, by whether they hold the newest key set.",
        verifiers,
        labels=("keys",),
    )
    metrics.read_gauge(
        "keyturn_presence_complete",
        "1 once no live verifier can be missing from the set.",
        lambda: float(watch.complete),
    )
    metrics.read_gauge(
        "keyturn_signer_lease_seconds", "What is left of the signer's lease.",
        lambda: max(0.0, policy.lease_seconds - (clock.boottime() - rotation.publisher.confirmed_boottime)),
    )  # fmt: skip
