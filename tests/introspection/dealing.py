"""Tokens and callers dealt by dice, each with what has to be said of it, as the RFCs have it and by nothing of ours."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keyturn import entropy
from keyturn.contract.credentials import RANDOM_BYTES, CredentialKind, make_credential
from keyturn.contract.encoding import b64url, encode_json
from keyturn.contract.jwk import ALGORITHMS, public_jwk
from keyturn.contract.selectors import SelectorKind
from keyturn.contract.trust import CLIENT_ROLE
from serving.clientassertions import ASSERTION_TYPE
from tests.building import RESOURCE, SECRETS, Standing, basic
from tests.introspection.conftest import BOTH, OTHER
from tests.rotation.dice import Dice
from tests.world import AUDIENCE

ELSEWHERE = "https://other.example"
AUDIENCES: Mapping[str, frozenset[str]] = {
    RESOURCE: frozenset({AUDIENCE}), OTHER: frozenset({ELSEWHERE}), BOTH: frozenset({AUDIENCE, ELSEWHERE}),
    "nothing": frozenset(),
}  # fmt: skip
METHODS = ("client_secret_basic", "client_secret_post", "private_key_jwt", "opaque bearer", "JWT bearer")
TARGETS: Sequence[str | list[str]] = (AUDIENCE, ELSEWHERE, [AUDIENCE, ELSEWHERE], ["x", AUDIENCE], "x")
CUTOFFS = frozenset({SelectorKind.SUBJECT, SelectorKind.CLIENT, SelectorKind.AUDIENCE, SelectorKind.ALL})


@dataclass(frozen=True, slots=True, kw_only=True)
class Dealt:
    """A token, and how it is good or bad."""

    token: str
    opaque: bool
    fault: str  # Empty for a token that is good for its audiences.
    late: bool  # Past `exp`, by less than the skew.
    bound: bool
    audiences: frozenset[str]
    claims: dict[str, Any]

    def active_for(self, client_id: str) -> bool:
        """Say whether this caller has to hear that it is active (RFC 7662, 2.2)."""
        return not self.fault and bool(self.audiences & AUDIENCES[client_id])

    def passes_at(self, audience: str) -> bool:
        """Say whether a sidecar passes it as Bearer: it does not know who is a client still, nor takes a bound one."""
        return self.fault in ("", "client") and not self.bound and audience in self.audiences


FAULTS = ("", "expired", "early", "client", "issuer", "no jti", "typ", "signature", "spelling", "kind", "unknown",
           "foreign typ", *SelectorKind)  # fmt: skip


async def deal(dice: Dice, stage: Standing, *, fault: str, opaque: bool, late: bool, audiences: Sequence[Any]) -> Dealt:
    """Deal a token for one of these audiences, with that fault; where it is to be revoked, it is."""
    now, bound = stage.world.clock.now(), dice.chance(5)
    chosen = dice.one_of(audiences)
    # Cutoffs catch the grants of the past: those of tokens that nothing is wrong with begin now.
    granted = now - 100 if fault in CUTOFFS else now
    changes: dict[str, Any] = {
        "aud": chosen,
        "sub": f"user-{dice.below(1 << 30)}",
        "grant_id": entropy.uuid7(granted),
        "exp": int(now) - 1 if late else int(now) + 1 + dice.below(250),
        "iat": int(now) - 50,
        "sid": f"session-{dice.below(1 << 30)}",
        "scope": dice.one_of(["read", "read write", None]),
        "cnf": dice.one_of([{"jkt": "key"}, {"x5t#S256": "certificate"}]) if bound else None,
    }
    faults: dict[str, dict[str, Any]] = {
        "expired": {"exp": int(now) - 300}, "early": {"nbf": int(now) + 300}, "client": {"client_id": "gone"},
        "issuer": {"iss": "https://evil.example"}, "no jti": {"jti": None},
    }  # fmt: skip
    claims = stage.world.claims(**changes | faults.get(fault, {}))
    token = await _opaque(fault, stage, claims) if opaque else _jwt(fault, stage, claims)
    if fault in set(SelectorKind):
        await _revoke(SelectorKind(fault), stage, claims, before=now - 50)
    wanted = frozenset([chosen] if isinstance(chosen, str) else chosen)
    return Dealt(
        token=token, opaque=opaque, fault=fault, late=late, bound=bound, audiences=wanted, claims=claims
    )  # fmt: skip


async def _opaque(fault: str, stage: Standing, claims: dict[str, Any]) -> str:
    kind = CredentialKind.REFRESH if fault == "kind" else CredentialKind.ACCESS
    token = make_credential(kind, entropy.token_bytes(RANDOM_BYTES))
    if fault not in ("unknown", "typ", "foreign typ", "signature"):
        await stage.records.put(token, claims, expires_at=stage.world.clock.now() + 3600)
    return token + "=" if fault == "spelling" else token


def _jwt(fault: str, stage: Standing, claims: dict[str, Any]) -> str:
    world = stage.world
    typ = {"typ": "JWT", "kind": "JWT", "foreign typ": "token-introspection+jwt"}.get(fault, "at+jwt")
    header = {"alg": world.algorithms[world.signing_kid], "kid": world.signing_kid, "typ": typ}
    token = world.sign_raw(encode_json(header), encode_json(claims)).decode()
    if fault in ("signature", "unknown"):
        return token[:-8] + "AAAAAAAA"
    return token + "=" if fault == "spelling" else token


async def _revoke(kind: SelectorKind, stage: Standing, claims: dict[str, Any], *, before: float) -> None:
    if kind is SelectorKind.ALL:
        await stage.revoke(stage.world.entry(kind, before=before))
        return
    named = claims[kind.value]
    value = named if isinstance(named, str) else named[0]
    await stage.revoke(stage.world.entry(kind, value, before=before if kind in CUTOFFS else None))


class Proof:
    """Proves who asks, in each way that there is."""

    def __init__(self, stage: Standing) -> None:
        """Register a key of the clients that ask."""
        self._stage, self._key = stage, entropy.new_key("ES256")
        keys = {CLIENT_ROLE + name: (public_jwk(self._key.public_key()),) for name in AUDIENCES}
        roles = {**stage.world.document().roles, **keys}
        stage.member.replica.adopt_trust(stage.world.trust(version=2, roles=roles))

    async def of(self, client_id: str, method: str) -> tuple[dict[str, str], dict[str, str]]:
        """Return header fields and form parameters."""
        secret = SECRETS.get(client_id, SECRETS[RESOURCE])
        match method:
            case "client_secret_basic":
                return basic(client_id, secret), {}
            case "client_secret_post":
                return {}, {"client_id": client_id, "client_secret": secret}
            case "private_key_jwt":
                return {}, {"client_assertion": self._assertion(client_id), "client_assertion_type": ASSERTION_TYPE}
        claims: dict[str, Any] = {"client_id": client_id, "aud": self._stage.world.issuer, "scope": "introspection"}
        opaque = method == "opaque bearer"
        bearer = await self._stage.put_opaque(**claims) if opaque else self._stage.world.mint(**claims).decode()
        return {"Authorization": f"Bearer {bearer}"}, {}

    def _assertion(self, client_id: str) -> str:
        now = self._stage.world.clock.now()
        claims = {"iss": client_id, "sub": client_id, "aud": self._stage.world.issuer, "exp": int(now) + 60,
                  "jti": entropy.uuid7(now)}  # fmt: skip
        signing_input = f"{b64url(encode_json({'alg': 'ES256'}))}.{b64url(encode_json(claims))}"
        return f"{signing_input}.{b64url(ALGORITHMS['ES256'].sign(signing_input.encode(), self._key))}"
