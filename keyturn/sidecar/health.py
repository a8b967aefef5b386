"""How the sidecar is: /healthz, /readyz, /state and /metrics."""

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any

from keyturn.contract.positions import Lane
from keyturn.process.following import unready
from keyturn.process.metrics import CONTENT_TYPE, Metrics
from keyturn.sidecar import replies
from keyturn.sidecar.routing import Answer, Header
from keyturn.verifier.issuers import IssuerKeys
from keyturn.verifier.verifier import TokenVerifier

_NO_STORE = (("Cache-Control", "no-store"),)
_LIVE = replies.json_reply(200, {"status": "live"}, _NO_STORE)
_READY = replies.json_reply(200, {"status": "ready"}, _NO_STORE)


class Health:
    """Tells of the replica under a verifier; `trouble` may know of a reason that the replica does not.

    `known` says whether the root still names this verifier: if not, its reports count for nothing.
    """

    def __init__(
        self,
        verifier: TokenVerifier,
        metrics: Metrics,
        *,
        name: str,
        trouble: Callable[[], str | None],
        known: Callable[[], bool],
        issuers: Sequence[IssuerKeys] = (),
    ) -> None:
        self._verifier, self._replica, self._clock = verifier, verifier.replica, verifier.clock
        self._metrics, self._name, self._trouble, self._known = metrics, name, trouble, known
        self._issuers = issuers

    def unready(self) -> str | None:
        """Return why nothing truthful can be said now, None if it can."""
        reason = unready(self._replica, self._clock)
        if reason is not None:
            return self._trouble() or reason
        return None if self._known() else f"the trust document names no verifier {self._name} with this key"

    def healthz(self, target: bytes, authorization: list[bytes], headers: list[Header], body: bytes) -> Answer:  # noqa: ARG002
        """Say that the process lives."""
        return _LIVE

    def readyz(self, target: bytes, authorization: list[bytes], headers: list[Header], body: bytes) -> Answer:  # noqa: ARG002
        """Say whether it can judge; 503 and the reason if not.

        Another issuer that cannot be reached is a warning: our own tokens are judged all the same.
        """
        reason = self.unready()
        if reason is None:
            warnings = {f"issuer {keys.issuer.name}": keys.trouble for keys in self._issuers if keys.trouble}
            return _ready(warnings) if warnings else _READY
        retry = ("Retry-After", str(replies.RETRY_AFTER_SECONDS))
        return replies.json_reply(503, {"status": "unready", "reasons": {"sidecar": reason}}, [*_NO_STORE, retry])

    def state(self, target: bytes, authorization: list[bytes], headers: list[Header], body: bytes) -> Answer:  # noqa: ARG002
        """Tell what the replica holds, how old it is, and how the cache fares."""
        return replies.json_reply(200, self.facts(), _NO_STORE)

    def metrics(self, target: bytes, authorization: list[bytes], headers: list[Header], body: bytes) -> Answer:  # noqa: ARG002
        """Render everything that is counted, for Prometheus."""
        return replies.reply(200, [("Content-Type", CONTENT_TYPE)], self._metrics.render())

    def facts(self) -> dict[str, Any]:
        """Return what /state tells; `staleness_ms` is null before both lanes have been read."""
        replica, figures = self._replica, self._verifier.figures
        now, boottime = self._clock.now(), self._clock.boottime()
        age = replica.age(now, boottime)
        return {
            "verifier": self._name,
            "state": replica.state(now, boottime),
            "staleness_ms": round(max(age, 0.0) * 1000, 1) if isfinite(age) else None,
            "trust_version": replica.trust.version,
            "trust_expires_at": replica.trust.document.expires_at,
            "trust_expires_soon": replica.trust.expires_soon(now),
            **{lane.value: replica.place(lane)[1] for lane in Lane},
            "epochs": {lane.value: replica.place(lane)[0] for lane in Lane},
            "issuers": {keys.issuer.name: _issuer_facts(keys, boottime) for keys in self._issuers},
            "cache": {
                "tokens": len(self._verifier), "hits": figures.hits, "misses": figures.misses,
                "rechecks": figures.rechecks, "evictions": figures.evictions,
            },
        }  # fmt: skip


def _ready(warnings: Mapping[str, str]) -> bytes:
    return replies.json_reply(200, {"status": "ready", "warnings": warnings}, _NO_STORE)


def _issuer_facts(keys: IssuerKeys, boottime: float) -> dict[str, Any]:
    age = keys.age(boottime)
    return {
        "keys": len(keys.keys), "age_ms": round(age * 1000, 1) if isfinite(age) else None,
        "usable": boottime < keys.usable_until, "trouble": keys.trouble,
    }  # fmt: skip
