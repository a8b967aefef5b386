"""What an off-the-shelf library beside the sidecar asks: introspection (RFC 7662) and the key set (RFC 7517)."""

from typing import Final
from urllib.parse import parse_qsl

from keyturn.clock import Clock
from keyturn.contract.jwks import Jwks, render_jwks
from keyturn.contract.keys import KeySet, Use
from keyturn.sidecar import replies
from keyturn.sidecar.latecomers import Latecomers, Queue
from keyturn.sidecar.routing import Answer, Header, values_of
from keyturn.verifier.freshness import State
from keyturn.verifier.policy import Policy
from keyturn.verifier.replica import Replica
from keyturn.verifier.verdict import Kind, Verdict
from keyturn.verifier.verifier import TokenVerifier

MOST_PARAMETERS: Final = 16
_FORM: Final = b"application/x-www-form-urlencoded"
_NO_STORE: Final = (("Cache-Control", "no-store"),)
_INACTIVE: Final = replies.json_reply(200, {"active": False}, _NO_STORE)
_UNAVAILABLE: Final = replies.unavailable()
_NOT_A_FORM: Final = replies.problem(415, f"send {_FORM.decode()}")
_SHOWN: Final = ("iss", "sub", "client_id", "aud", "scope", "iat", "nbf", "exp", "jti", "sid", "grant_id", "username")


class Introspection:
    """RFC 7662 for whoever is beside us, which no other machine can be: nobody has to say who he is.

    It knows JWT access tokens for one audience; of everything else it says `{"active": false}`.
    """

    def __init__(self, verifier: TokenVerifier, policy: Policy, latecomers: Latecomers) -> None:
        # Scopes are told, not asked for: the API that asks decides.
        self._policy = Policy(
            audience=policy.audience,
            name="introspection",
            max_staleness_seconds=policy.max_staleness_seconds,
            issuers=policy.issuers,
        )
        self._verifier, self._latecomers = verifier, latecomers

    def answer(self, target: bytes, authorization: list[bytes], headers: list[Header], body: bytes) -> Answer:  # noqa: ARG002
        """Say whether a token is active, and what it says."""
        types = values_of(headers, b"content-type")
        if len(types) != 1 or types[0].partition(b";")[0].strip().lower() != _FORM:
            return _NOT_A_FORM
        try:
            pairs = parse_qsl(
                body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MOST_PARAMETERS
            )
        except ValueError:
            return _invalid("the form cannot be read")
        form = dict(pairs)
        if len(form) != len(pairs):
            return _invalid("a parameter stands twice")
        if not form.get("token"):
            return _invalid("token is missing")
        token = form["token"].encode("utf-8")
        verdict = self._verifier.judge(token, self._policy)
        queue = self._latecomers.queue_for(verdict, token)
        if queue is None:
            return _rendered(verdict)
        return _UNAVAILABLE if queue.full else self._ask_again(queue, token)

    async def _ask_again(self, queue: Queue, token: bytes) -> bytes:
        return _rendered(await self._latecomers.judge(queue, token, self._policy))


class PublicKeys:
    """The key set as the replica holds it, made once for each state of it."""

    def __init__(self, replica: Replica, clock: Clock) -> None:
        self._replica, self._clock = replica, clock
        self._of: KeySet | None = None
        self._full, self._unchanged, self._jwks = b"", b"", Jwks(b"", "", 0)

    def answer(self, target: bytes, authorization: list[bytes], headers: list[Header], body: bytes) -> Answer:  # noqa: ARG002
        """Return the keys; never an empty set, which a reader would take for the end of all tokens.

        A reader may keep them, and asks again each time: what rotation allows a cache is the key service's to say.
        """
        if self._replica.state(self._clock.now(), self._clock.boottime()) is State.EXPIRED:
            return _UNAVAILABLE
        if self._of is not self._replica.keys:
            self._prepare(self._replica.keys)
        if self._jwks.count == 0:
            return _UNAVAILABLE
        known = b",".join(values_of(headers, b"if-none-match")).decode("latin-1")
        tags = {tag.strip().removeprefix("W/") for tag in known.split(",")}
        return self._unchanged if self._jwks.etag in tags or "*" in tags else self._full

    def _prepare(self, keys: KeySet) -> None:
        # Access tokens' keys alone: a library that overlooks `typ` then takes no status list or event for a token.
        self._of, self._jwks = keys, render_jwks(keys, uses=(Use.ACCESS,))
        cached = [("ETag", self._jwks.etag), ("Cache-Control", "max-age=0, must-revalidate")]
        self._full = replies.reply(200, [("Content-Type", "application/jwk-set+json"), *cached], self._jwks.body)
        # With the length that the 200 has, and without its body (RFC 9110, 15.4.5).
        head = replies.without_body(self._full)
        self._unchanged = head.replace(b" 200 OK", b" 304 Not Modified", 1)


def _rendered(verdict: Verdict) -> bytes:
    if verdict.kind is Kind.UNKNOWN:
        return _UNAVAILABLE
    if verdict.kind is Kind.INACTIVE:
        return _INACTIVE
    told = {name: verdict.claims[name] for name in _SHOWN if name in verdict.claims}
    return replies.json_reply(200, {"active": True, **told, "token_type": "Bearer"}, _NO_STORE)


def _invalid(description: str) -> bytes:
    return replies.json_reply(400, {"error": "invalid_request", "error_description": description}, _NO_STORE)
