"""What the sidecar exports to Prometheus, read from plain counts when it is scraped."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from keyturn.clock import Clock
from keyturn.contract.positions import Lane
from keyturn.process.metrics import Metrics
from keyturn.sidecar.gate import Gate
from keyturn.sidecar.latecomers import Latecomers
from keyturn.sidecar.listener import Listener
from keyturn.verifier.follower import Follower
from keyturn.verifier.freshness import State
from keyturn.verifier.issuers import IssuerKeys
from keyturn.verifier.verifier import TokenVerifier


def export_answers(metrics: Metrics, gates: Mapping[tuple[str, str], Gate], latecomers: Latecomers) -> None:
    """Export how requests were answered, by dialect, policy and outcome."""

    def answers() -> dict[tuple[str, ...], float]:
        return {(*of, outcome): count for of, gate in gates.items() for outcome, count in gate.outcomes().items()}

    metrics.read_counter(
        "keyturn_sidecar_answers", "Requests of gateways.", answers, labels=("dialect", "policy", "outcome")
    )
    metrics.read_counter(
        "keyturn_sidecar_catch_ups", "Tokens with a key unheard of, for which the feed was looked at.",
        lambda: latecomers.ours.asked,
    )  # fmt: skip
    metrics.read_counter(
        "keyturn_sidecar_catch_ups_refused", "Such tokens that were answered 503 because too many waited.",
        lambda: sum(queue.turned_away for queue in latecomers.queues),
    )  # fmt: skip


def export_issuers(metrics: Metrics, issuers: Sequence[IssuerKeys], clock: Clock) -> None:
    """Export how current the keys of other issuers are, by the names that settings give them."""

    def export(kind: Callable[..., None], name: str, about: str, read: Callable[[IssuerKeys], float]) -> None:
        kind(name, about, lambda: {keys.issuer.name: read(keys) for keys in issuers}, labels=("issuer",))

    export(metrics.read_gauge, "keyturn_issuer_keys", "Keys of another issuer.", lambda keys: len(keys.keys))
    export(
        metrics.read_gauge, "keyturn_issuer_keys_age_seconds", "Since they were read.",
        lambda keys: keys.age(clock.boottime()),
    )  # fmt: skip
    export(metrics.read_counter, "keyturn_issuer_reads", "Attempts to read them.", lambda keys: keys.pulls)
    export(metrics.read_counter, "keyturn_issuer_reads_failed", "Those that failed.", lambda keys: keys.failures)


def export_connections(metrics: Metrics, listener: Listener) -> None:
    """Export what the listener holds."""
    metrics.read_gauge("keyturn_sidecar_connections", "Open connections.", lambda: listener.connections)
    metrics.read_gauge(
        "keyturn_sidecar_blocked_connections", "Connections whose client leaves answers unread.",
        lambda: listener.blocked,
    )  # fmt: skip
    metrics.read_counter(
        "keyturn_sidecar_connections_turned_away", "Connections above the limit.", lambda: listener.turned_away
    )


def export_replica(metrics: Metrics, verifier: TokenVerifier, follower: Follower) -> None:
    """Export age, state and places of the replica, and how its cache of verdicts fares."""
    replica, clock, figures = verifier.replica, verifier.clock, verifier.figures

    def state() -> dict[str, float]:
        now = replica.state(clock.now(), clock.boottime())
        return {each.value: float(each is now) for each in State}

    def places(index: int) -> Mapping[str, float]:
        return {lane.value: replica.place(lane)[index] for lane in Lane}

    metrics.read_gauge(
        "keyturn_replica_age_seconds", "Since a publisher was last heard, on the older lane.",
        lambda: replica.age(clock.now(), clock.boottime()),
    )  # fmt: skip
    metrics.read_gauge("keyturn_replica_state", "1 for the state that it is in.", state, labels=("state",))
    metrics.read_gauge("keyturn_replica_epoch", "Epoch of a lane.", lambda: places(0), labels=("lane",))
    metrics.read_gauge("keyturn_replica_sequence", "Sequence in that epoch.", lambda: places(1), labels=("lane",))
    metrics.read_gauge("keyturn_replica_trust_version", "Trust document.", lambda: replica.trust.version)
    metrics.read_gauge(
        "keyturn_replica_revocations", "Revocations held.", lambda: sum(len(index) for index in replica.indexes)
    )
    metrics.read_counter(
        "keyturn_replica_statements_refused", "Statements nobody with the right role made.", lambda: follower.refused
    )
    metrics.read_gauge("keyturn_verdict_cache_tokens", "Tokens in the cache.", lambda: len(verifier))
    counts: Iterable[tuple[str, str]] = (
        ("hits", "Verdicts from the cache."),
        ("misses", "Tokens that were verified anew."),
        ("rechecks", "Cached tokens that were looked up again after a push."),
        ("evictions", "Tokens that made way for newer ones."),
    )
    for name, about in counts:
        metrics.read_counter(
            f"keyturn_verdict_cache_{name}",
            about,
            lambda name=name: getattr(figures, name),  # type: ignore[misc]
        )
