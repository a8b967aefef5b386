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
    signing = [(alg, use) for use, one in rotation.policies.items() for alg in one.algorithms]

    def keys() -> dict[tuple[str, ...], float]:
        counted = Counter((key.alg, key.use, key.phase) for key in replica.keys)
        return {
            (alg, use.value, phase.value): float(counted[alg, use, phase]) for alg, use in signing for phase in Phase
        }

    def ages() -> dict[tuple[str, ...], float]:
        active = {(alg, use.value): replica.keys.active(alg, use) for alg, use in signing}
        return {
            labels: clock.now() - key.active_at
            for labels, key in active.items()
            if key is not None and key.active_at is not None
        }

    def waiting() -> dict[tuple[str, ...], float]:
        asked = {(alg, use.value): replica.keys.requested(alg, use) for alg, use in signing}
        return {labels: 0.0 if one is None else clock.now() - one.at for labels, one in asked.items()}

    def verifiers() -> dict[str, float]:
        adopters = watch.adopters(Lane.KEYS, replica.place(Lane.KEYS))
        return {"adopted": float(len(adopters.adopted)), "lagging": float(len(adopters.laggards))}

    metrics.read_gauge("keyturn_keys", "Signing keys by phase.", keys, labels=("alg", "use", "phase"))
    metrics.read_gauge("keyturn_active_key_age_seconds", "Since the active key began.", ages, labels=("alg", "use"))
    metrics.read_gauge(
        "keyturn_rotation_waiting_seconds",
        "How long an ordered rotation has waited; 0 if none.",
        waiting,
        labels=("alg", "use"),
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
