"""A gate: one policy behind one dialect, from the `Authorization` header to the bytes of the answer."""

from collections.abc import Mapping
from typing import Final

from keyturn.sidecar import replies
from keyturn.sidecar.dialects import Dialect
from keyturn.sidecar.latecomers import Latecomers, Queue
from keyturn.sidecar.routing import Answer, Header
from keyturn.verifier.policy import Policy
from keyturn.verifier.verdict import Kind, Verdict
from keyturn.verifier.verifier import TokenVerifier

_BEARER: Final = b"Bearer "
_WORDS: Final = 2  # Scheme and token.
_UNAVAILABLE: Final = replies.unavailable()
_NO_TOKEN: Final = replies.unauthorized(error=None)
_DESCRIPTIONS: Final[Mapping[str, str]] = {
    "audience": "the token is for another audience",
    "bound": "the token is bound to a key, and no proof of it came along",
    "expired": "the token has expired",
    "key_revoked": "the key of the token was revoked",
    "not_yet_valid": "the token is not valid yet",
    "revoked": "the token was revoked",
}
_NO_DESCRIPTION: Final = "the token is not valid here"


class Gate:
    """Answers the requests of one dialect under one policy; counts what it answered."""

    __slots__ = (
        "_judge", "_latecomers", "_name", "_policy", "_two_tokens", "_unauthorized",
        "allowed", "bad_token", "forbidden", "no_token", "two_tokens", "unknown",
    )  # fmt: skip

    def __init__(self, verifier: TokenVerifier, policy: Policy, dialect: Dialect, latecomers: Latecomers) -> None:
        self._judge, self._policy, self._latecomers = verifier.judge, policy, latecomers
        self._name = dialect.name
        self._two_tokens = replies.two_tokens(status=dialect.two_tokens)
        self._unauthorized: dict[str, bytes] = {}  # By reason: a handful of stable words.
        self.allowed = self.bad_token = self.forbidden = self.no_token = self.two_tokens = self.unknown = 0

    def outcomes(self) -> dict[str, int]:
        """Return how many requests were answered in which way, so far."""
        return {
            "allowed": self.allowed, "bad_token": self.bad_token, "forbidden": self.forbidden,
            "no_token": self.no_token, "two_tokens": self.two_tokens, "unknown": self.unknown,
        }  # fmt: skip

    def answer(self, target: bytes, authorization: list[bytes], headers: list[Header], body: bytes) -> Answer:  # noqa: ARG002
        """Judge the one bearer token of a request: 200, 401, 403, or 503 where nothing can be said."""
        if len(authorization) == 1 and (value := authorization[0]).startswith(_BEARER):
            verdict = self._judge(value[7:], self._policy)
            prepared = verdict.rendered.get(self._name)
            if prepared is not None:
                self.allowed += 1
                return prepared
            if verdict.reason != "malformed":
                return self._render_or_ask_again(verdict, value[7:])
        return self._answer_unusual(authorization)

    def _answer_unusual(self, authorization: list[bytes]) -> Answer:
        """Read the header by its grammar (RFC 9110, 11.4): any case of the scheme, any number of spaces."""
        if len(authorization) > 1:
            self.two_tokens += 1
            return self._two_tokens
        words = authorization[0].split() if authorization else []
        if len(words) < _WORDS or words[0].lower() != b"bearer":
            self.no_token += 1
            return _NO_TOKEN
        if len(words) > _WORDS or b"," in words[1]:  # Some gateways join two header fields with a comma.
            self.two_tokens += 1
            return self._two_tokens
        return self._render_or_ask_again(self._judge(words[1], self._policy), words[1])

    def _render_or_ask_again(self, verdict: Verdict, token: bytes) -> Answer:
        queue = self._latecomers.queue_for(verdict, token)
        if queue is None:
            return self._render(verdict)
        if queue.full:
            self.unknown += 1
            return _UNAVAILABLE
        return self._ask_again(queue, token)

    async def _ask_again(self, queue: Queue, token: bytes) -> bytes:
        return self._render(await self._latecomers.judge(queue, token, self._policy))

    def _render(self, verdict: Verdict) -> bytes:
        match verdict.kind:
            case Kind.ACTIVE:
                self.allowed += 1
                prepared = verdict.rendered[self._name] = replies.allow(verdict.claims, state=verdict.state)
                return prepared
            case Kind.UNKNOWN:
                self.unknown += 1
                return _UNAVAILABLE
            case Kind.INACTIVE if verdict.reason == "insufficient_scope":
                self.forbidden += 1
                return self._prepared(verdict.reason)
        self.bad_token += 1
        return self._prepared(verdict.reason)

    def _prepared(self, reason: str) -> bytes:
        prepared = self._unauthorized.get(reason)
        if prepared is None:
            prepared = self._unauthorized[reason] = self._refusal(reason)
        return prepared

    def _refusal(self, reason: str) -> bytes:
        if reason == "insufficient_scope":
            return replies.insufficient_scope(scope=" ".join(self._policy.scopes))
        return replies.unauthorized(description=_DESCRIPTIONS.get(reason, _NO_DESCRIPTION))
