"""What the root may change in a trust document, as functions from one version to the next; nothing is written here."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from keyturn.cli.answers import WrongUsage
from keyturn.cli.newclients import NewClient
from keyturn.contract.errors import MalformedInput
from keyturn.contract.jwk import thumbprint
from keyturn.contract.positions import Lane
from keyturn.contract.trust import (
    CLIENT_ROLE,
    DAY_SECONDS,
    REDIRECTS_ROLE,
    Client,
    Identity,
    IdentityKind,
    MaySign,
    TrustDocument,
)

Roles: TypeAlias = dict[str, tuple[dict[str, Any], ...]]
MOST_DAYS = 1096
"""Three years: a document lives no longer, so that nobody is held on an old one for ever."""


def renewed(document: TrustDocument, *, days: int, now: float) -> TrustDocument:
    """Return the next version, good for that many days from now (Unix seconds); the same in all else."""
    return _next(document, now, expires_at=now + days * DAY_SECONDS)


def days_left(document: TrustDocument, now: float) -> float:
    """Return how many days a document has before it expires; negative once it has."""
    return (document.expires_at - now) / DAY_SECONDS


def role_added(document: TrustDocument, lane: Lane, jwk: Mapping[str, str], *, now: float) -> TrustDocument:
    """Return the next version, in which a new key may sign a lane beside the present one.

    Raises WrongUsage if there are two already.
    """
    if len(held := document.roles[lane.value]) > 1:
        raise WrongUsage(f"role {lane} has {len(held)} keys already: finish that rotation by --finish")
    return _next(document, now, roles=document.roles | {lane.value: (*held, dict(jwk))})


def role_settled(document: TrustDocument, lane: Lane, jwk: Mapping[str, str], *, now: float) -> TrustDocument:
    """Return the next version, in which only that key, which has the role already, may sign a lane.

    Raises WrongUsage if it has not the role, or if there is no other.
    """
    held = {thumbprint(one) for one in document.roles[lane.value]}
    if thumbprint(jwk) not in held:
        raise WrongUsage(f"the key in roles/{lane}.jwk has not the role {lane}: put that file back")
    if len(held) == 1:
        raise WrongUsage(f"role {lane} has one key: no rotation is under way")
    return _next(document, now, roles=document.roles | {lane.value: (dict(jwk),)})


def role_revoked(
    document: TrustDocument, lane: Lane, jwk: Mapping[str, str], *, epoch: int | None, now: float
) -> TrustDocument:
    """Return the next version, in which another key signs a lane, and nothing from before that epoch counts.

    The default is the epoch after the lowest one. Raises WrongUsage for an epoch that drops nothing.
    """
    lowest = document.lowest_epoch.get(lane.value, 1)
    raised = lowest + 1 if epoch is None else epoch
    if raised <= lowest:
        raise WrongUsage(f"the lowest epoch of lane {lane} is {lowest}: it only goes up")
    return _next(
        document, now,
        roles=document.roles | {lane.value: (dict(jwk),)}, lowest_epoch=document.lowest_epoch | {lane.value: raised},
    )  # fmt: skip


def verifier_added(document: TrustDocument, name: str, jwk: Mapping[str, str], *, now: float) -> TrustDocument:
    """Return the next version with a new verifier; raises WrongUsage if the name is taken."""
    if name in document.identities:
        raise WrongUsage(
            f"there is a {document.identities[name].kind} {name} already: rotate-identity gives it a new key"
        )
    identity = Identity(kind=IdentityKind.VERIFIER, jwk=dict(jwk))
    return _next(document, now, identities=document.identities | {name: identity})


def verifier_removed(document: TrustDocument, name: str, *, now: float) -> TrustDocument:
    """Return the next version without a verifier; raises WrongUsage if the name is not one's."""
    identity = _identity(document, name)
    if identity.kind is not IdentityKind.VERIFIER:
        raise WrongUsage(f"{name} is a service, which nothing works without: rotate-identity gives it a new key")
    left = {other: one for other, one in document.identities.items() if other != name}
    return _next(document, now, identities=left)


def identity_replaced(document: TrustDocument, name: str, jwk: Mapping[str, str], *, now: float) -> TrustDocument:
    """Return the next version, in which a service or verifier has another key, and may do what it could before."""
    changed = msgspec.structs.replace(_identity(document, name), jwk=dict(jwk))
    return _next(document, now, identities=document.identities | {name: changed})


def signatures_granted(
    document: TrustDocument, signatures: Mapping[str, Sequence[str]], *, now: float
) -> tuple[TrustDocument, dict[str, list[str]]]:
    """Return the next version, in which services may have types signed that they could not, and those types.

    `signatures` names the types of each service. What a service may have signed already stays as it is, so that one
    which was narrowed to some audiences is not widened. Raises WrongUsage for who is no service.
    """
    identities, granted = dict(document.identities), dict[str, list[str]]()
    for name, types in signatures.items():
        identity = _identity(document, name)
        if identity.kind is not IdentityKind.SERVICE:
            raise WrongUsage(f"{name} is a verifier, for which nothing is signed")
        new = [typ for typ in types if typ not in {one.typ for one in identity.may_sign}]
        if new:
            may_sign = (*identity.may_sign, *(MaySign(typ=typ, any_audience=True) for typ in new))
            identities[name], granted[name] = msgspec.structs.replace(identity, may_sign=may_sign), new
    return _next(document, now, identities=identities), granted


def client_keys_set(
    document: TrustDocument, client_id: str, keys: Sequence[Mapping[str, str]], *, now: float
) -> TrustDocument:
    """Return the next version, in which a client signs its assertions by these public keys and no others.

    Raises WrongUsage if there is no such client, or if it would be left with nothing to prove itself by.
    """
    client = _client(document, client_id)
    if not keys and not client.secret_hash:
        raise WrongUsage("that client has no secret: without keys it could not prove who it is")
    role = CLIENT_ROLE + client_id
    others = {name: held for name, held in document.roles.items() if name != role}
    return _next(document, now, roles=others | ({role: tuple(dict(key) for key in keys)} if keys else {}))


def client_added(document: TrustDocument, new: NewClient, secret: str, *, now: float) -> TrustDocument:
    """Return the next version with a new client; raises WrongUsage if the name is taken, or the client is unsound."""
    if new.client_id in document.clients:
        raise WrongUsage("there is such a client already: keyturn trust show names them")
    try:
        new.check()
    except MalformedInput as error:
        raise WrongUsage(str(error)) from error
    return _next(
        document, now, clients=document.clients | {new.client_id: new.entry(secret)},
        roles=_with_redirects(_without_roles(document, new.client_id), new.client_id, new.redirects),
    )  # fmt: skip


def client_removed(document: TrustDocument, client_id: str, *, now: float) -> TrustDocument:
    """Return the next version without a client, its keys and its redirect URIs; raises WrongUsage for no client."""
    _client(document, client_id)
    left = {name: one for name, one in document.clients.items() if name != client_id}
    return _next(document, now, clients=left, roles=_without_roles(document, client_id))


def client_redirects_set(document: TrustDocument, client_id: str, uris: Sequence[str], *, now: float) -> TrustDocument:
    """Return the next version, in which a client's users are sent back to these URIs and no others.

    Raises WrongUsage for no client, for one that signs nobody in, and for URIs that nobody should be sent to.
    """
    client = _client(document, client_id)
    try:
        NewClient(client_id=client_id, grant_types=client.grant_types, redirects=tuple(uris)).check()
    except MalformedInput as error:
        raise WrongUsage(str(error)) from error
    return _next(document, now, roles=_with_redirects(document.roles, client_id, uris))


def handed_over(document: TrustDocument, *, now: float) -> TrustDocument:
    """Return the next version for a new root to sign: the same in all that it says."""
    return _next(document, now)


def _client(document: TrustDocument, client_id: str) -> Client:
    if client_id not in document.clients:
        raise WrongUsage("there is no such client: keyturn trust show names them")
    return document.clients[client_id]


def _without_roles(document: TrustDocument, client_id: str) -> Roles:
    gone = {CLIENT_ROLE + client_id, REDIRECTS_ROLE + client_id}
    return {name: held for name, held in document.roles.items() if name not in gone}


def _with_redirects(roles: Roles, client_id: str, uris: Sequence[str]) -> Roles:
    return {**roles, **({REDIRECTS_ROLE + client_id: tuple({"uri": uri} for uri in uris)} if uris else {})}


def _identity(document: TrustDocument, name: str) -> Identity:
    if name not in document.identities:
        raise WrongUsage(f"no service or verifier is called {name}: keyturn trust show names them")
    return document.identities[name]


def _next(document: TrustDocument, now: float, **changes: object) -> TrustDocument:
    if now < document.issued_at:
        raise WrongUsage(
            f"version {document.version} was issued {(document.issued_at - now) / DAY_SECONDS:.1f} days after this "
            "machine's now: set its clock"
        )
    return msgspec.structs.replace(document, version=document.version + 1, issued_at=now, **changes)
