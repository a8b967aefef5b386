"""The trust document: what the root vouches for, and the keys that it prepares for checking."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Meta

from keyturn.contract.encoding import encode_json
from keyturn.contract.envelope import StatementKey, StatementType, open_statement
from keyturn.contract.errors import MalformedInput, TrustError, TrustExpired, UnknownKind
from keyturn.contract.jwk import thumbprint
from keyturn.contract.positions import Lane
from keyturn.contract.redirects import redirects_of
from keyturn.contract.roots import FORMAT, signers_of, split_bundle, walk

DAY_SECONDS = 86_400
WARN_DAYS = 30
"""So many days before a document expires, everybody begins to say so."""
CLIENT_ROLE = "client:"
"""A client's keys stand among the roles, as `client:ID`: readers of every version pass over roles that they do not
know, while a new member of a client would make older ones refuse the whole document."""
REDIRECTS_ROLE = "redirects:"
"""Where a client's users may be sent back to: likewise, as `redirects:ID`, in rows `{"uri": …}`."""
CODE_GRANT, REFRESH_GRANT = "authorization_code", "refresh_token"
PUBLIC_GRANTS = frozenset({CODE_GRANT, REFRESH_GRANT})
"""What a client without a secret may use."""
ADMIN_SCOPE, LOGIN_SCOPE = "keyturn:admin", "keyturn:login"
OPERATING_SCOPES = frozenset({ADMIN_SCOPE, LOGIN_SCOPE})
"""For the operator's own clients: no user grants them to anybody, and tokens of such a scope are opaque."""


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A part of the trust document."""


class IdentityKind(StrEnum):
    """Who an identity key belongs to."""

    SERVICE = "service"
    VERIFIER = "verifier"


class MaySign(_Part, frozen=True, kw_only=True):
    """A type of token that a service may have signed, and the audiences; an empty list allows none."""

    typ: str
    audiences: tuple[str, ...] = ()
    any_audience: bool = False


class Identity(_Part, frozen=True, kw_only=True):
    """A service or verifier, its public key, and what it may have signed."""

    kind: IdentityKind
    jwk: dict[str, Any]
    may_sign: tuple[MaySign, ...] = ()


class TokenFormat(StrEnum):
    """What kind of access token a client gets unless it asks otherwise."""

    JWT = "jwt"
    OPAQUE = "opaque"


class Client(_Part, frozen=True, kw_only=True):
    """An OAuth client (RFC 6749, 2). Only the hash of its secret is here: signed, but no secret."""

    secret_hash: str  # base64url SHA-256 of a generated 256-bit secret (credentials.py); "" without one: nothing fits.
    grant_types: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    audiences: tuple[str, ...] = ()
    token_format: TokenFormat | None = None
    always_opaque: bool = False  # Admin clients: a stolen signing key cannot mint their tokens.
    may_introspect: bool = False  # A resource server: asks about tokens for its audiences.


class TrustDocument(_Part, frozen=True, kw_only=True):
    """Everything that a verifier believes because the root signed it."""

    format: int = FORMAT
    version: Annotated[int, Meta(ge=1)]
    issuer: str
    issued_at: float
    expires_at: float
    dev: bool = False
    feed_format: Annotated[int, Meta(ge=1)] = 1  # What publishers write: the root says when all read the next one.
    roles: dict[str, tuple[dict[str, Any], ...]]  # Lane → public keys that may sign it; the others see above.
    lowest_epoch: dict[str, int]  # Lane → epoch below which nothing counts.
    identities: dict[str, Identity] = {}
    clients: dict[str, Client] = {}


class Trust:
    """A trust document that was checked against the pinned root, its keys ready to verify with.

    `compact` is the whole bundle: opening it again from the same pinned root gives the same. `roots` lead from the
    pinned root to the one that signed the document.
    """

    def __init__(self, document: TrustDocument, compact: bytes, *, roots: Sequence[Mapping[str, Any]] = ()) -> None:
        self.document, self.compact, self.roots = document, compact, tuple(roots)
        self._roles = {lane: signers_of(document.roles.get(lane.value, ())) for lane in Lane}
        self._identities = {name: signers_of((identity.jwk,)) for name, identity in document.identities.items()}

    @property
    def version(self) -> int:
        """Return the document's version, which never goes back."""
        return self.document.version

    @property
    def root(self) -> Mapping[str, Any]:
        """Return the public JWK of the root that signed it: from now on, nobody else's documents count."""
        return self.roots[-1]

    def follows(self, held: "Trust") -> bool:
        """Say whether the root of the document that is held was on the way to this one's root.

        A root that was left must not come back, whatever it signs: it may have been left because it was stolen.
        """
        if not held.roots:
            return True
        return thumbprint(held.root) in {thumbprint(root) for root in self.roots}

    def role(self, lane: Lane) -> dict[str, Ed25519PublicKey]:
        """Return the keys that may sign a lane, by kid."""
        return self._roles[lane]

    def identity(self, name: str, kind: IdentityKind) -> dict[str, Ed25519PublicKey]:
        """Return the key of a service or verifier, by kid; empty if the root does not know it as such."""
        identity = self.document.identities.get(name)
        return self._identities[name] if identity is not None and identity.kind is kind else {}

    def client_keys(self, client_id: str) -> tuple[Mapping[str, Any], ...]:
        """Return the public JWKs by which a client signs its assertions (RFC 7523); not checked yet."""
        return self.document.roles.get(CLIENT_ROLE + client_id, ())

    def redirects(self, client_id: str) -> tuple[str, ...]:
        """Return where a client's users may be sent back to; rows that are not as we sign them count for nothing."""
        return redirects_of(self.document.roles.get(REDIRECTS_ROLE + client_id, ()))

    def is_public(self, client_id: str) -> bool:
        """Say whether a client is one that can keep no secret (RFC 6749, 2.1) and needs to prove nothing.

        It has neither secret nor keys, has users sent back to it, may do nothing but sign them in and refresh, and may
        not introspect. Who has lost its secret or keys by mistake is no public client: it proves nothing.
        """
        client = self.document.clients.get(client_id)
        if client is None or client.secret_hash or self.client_keys(client_id) or client.may_introspect:
            return False
        grants = set(client.grant_types)
        return bool(grants) and grants <= PUBLIC_GRANTS and bool(self.redirects(client_id))

    def lowest_epoch(self, lane: Lane) -> int:
        """Return the epoch below which nothing in a lane counts any more."""
        return self.document.lowest_epoch.get(lane.value, 1)

    def check_time(self, now: float) -> None:
        """Raise TrustExpired past the document's expiry (Unix seconds)."""
        if now >= self.document.expires_at:
            late = now - self.document.expires_at
            raise TrustExpired(f"the trust document expired {late:.0f} s ago; sign a new version with the root")

    def expires_soon(self, now: float) -> bool:
        """Say whether the document expires within thirty days, or has."""
        return self.document.expires_at - now < WARN_DAYS * DAY_SECONDS


def trust_nobody(issuer: str) -> Trust:
    """Return what a process trusts before it has seen a signed document: no role, no identity, expired."""
    document = TrustDocument(version=0, issuer=issuer, issued_at=0, expires_at=0, roles={}, lowest_epoch={})
    return Trust(document, b"")


def sign_trust(root: StatementKey, document: TrustDocument) -> bytes:
    """Sign a trust document by the root."""
    return root.sign(StatementType.TRUST, encode_json(document))


def open_trust(compact: bytes, *, root: Mapping[str, Any], allow_dev: bool) -> Trust:
    """Check a trust document, and the steps from root to root before it, against the pinned root's public JWK.

    Raises ForgedSignature for another root and for steps that do not lead on from the pinned one, BrokenChain for a
    circle of roots, UnknownKind for a newer format, TrustError for a document that is marked `dev` where that is not
    allowed. Expiry is the caller's question: `check_time`. Steps do not expire (as in TUF, 5.3.10, only the newest
    has to be in force).
    """
    steps, signed = split_bundle(compact)
    roots = walk(steps, root)
    payload = open_statement(signed, StatementType.TRUST, signers_of(roots[-1:]))
    try:
        document = msgspec.json.decode(payload, type=TrustDocument)
    except msgspec.DecodeError as error:
        raise UnknownKind("a trust document that this version cannot read; upgrade it") from error
    if document.format != FORMAT:
        raise UnknownKind(f"trust document of format {document.format}; this version reads {FORMAT}")
    if document.dev and not allow_dev:
        raise TrustError("the trust document is marked dev: made by the development stack, not for production")
    try:
        return Trust(document, compact, roots=roots)
    except MalformedInput as error:
        raise UnknownKind("a trust document with a key that this version cannot use; upgrade it") from error
