"""What `keyturn trust show` tells: everything that the root vouches for, and for how long."""

from collections.abc import Iterator
from typing import Any

from keyturn.cli.tables import facts_table, moment, table
from keyturn.cli.trustchanges import days_left
from keyturn.contract.jwk import thumbprint
from keyturn.contract.positions import Lane
from keyturn.contract.trust import WARN_DAYS, Client, Identity, Trust


def facts_of(trust: Trust, *, now: float) -> dict[str, Any]:
    """Return a document for programs: public keys by their thumbprints, clients without the hashes of their secrets."""
    document = trust.document
    return {
        "version": document.version,
        "issuer": document.issuer,
        "issued_at": document.issued_at,
        "expires_at": document.expires_at,
        "expires_in_days": round(days_left(document, now), 2),
        "expired": now >= document.expires_at,
        "dev": document.dev,
        "feed_format": document.feed_format,
        "root": thumbprint(trust.root),
        "roles": {lane.value: list(trust.role(lane)) for lane in Lane},
        "lowest_epoch": {lane.value: trust.lowest_epoch(lane) for lane in Lane},
        "identities": {name: _identity(one) for name, one in sorted(document.identities.items())},
        "clients": {name: _client(one, name, trust) for name, one in sorted(document.clients.items())},
    }


def lines_of(facts: dict[str, Any]) -> Iterator[str]:
    """Return the same for a person."""
    yield from facts_table({
        "version": facts["version"], "issuer": facts["issuer"], "issued": moment(facts["issued_at"]),
        "expires": f"{moment(facts['expires_at'])}, {_remaining(facts['expires_in_days'])}", "root": facts["root"],
    })  # fmt: skip
    if facts["dev"]:
        yield "dev      made by the development stack; processes refuse it unless trust.allow_dev is set"
    yield ""
    roles = [[lane, facts["lowest_epoch"][lane], kids] for lane, kids in facts["roles"].items()]
    yield from table(["ROLE", "LOWEST EPOCH", "KEYS"], roles)
    yield ""
    identities = [[name, one["kind"], one["may_sign"], one["kid"]] for name, one in facts["identities"].items()]
    yield from table(["IDENTITY", "KIND", "MAY HAVE SIGNED", "KEY"], identities)
    yield ""
    clients = [
        [
            name,
            one["grant_types"],
            one["scopes"],
            one["audiences"],
            one["token_format"],
            one["may_introspect"],
            one["kids"],
            one["redirects"],
            one["public"],
        ]
        for name, one in facts["clients"].items()
    ]
    yield from table(
        ["CLIENT", "GRANTS", "SCOPES", "AUDIENCES", "TOKENS", "INTROSPECTS", "KEYS", "REDIRECTS", "PUBLIC"], clients
    )


def warning_of(facts: dict[str, Any]) -> str | None:
    """Return the line that nobody should overlook, None if there is nothing to say."""
    if facts["expired"]:
        return "EXPIRED: every API answers 503 until a new version is out: keyturn trust renew"
    if facts["expires_in_days"] < WARN_DAYS:
        return f"EXPIRES SOON, in {facts['expires_in_days']:.0f} days: keyturn trust renew"
    return None


def _remaining(days: float) -> str:
    return f"in {days:.0f} days" if days >= 0 else f"{-days:.1f} days ago"


def _identity(identity: Identity) -> dict[str, Any]:
    may_sign = [
        f"{one.typ} for any audience" if one.any_audience else f"{one.typ} for {' '.join(one.audiences) or 'nobody'}"
        for one in identity.may_sign
    ]
    return {"kind": identity.kind.value, "kid": thumbprint(identity.jwk), "may_sign": may_sign}


def _client(client: Client, name: str, trust: Trust) -> dict[str, Any]:
    form = "opaque, always" if client.always_opaque else client.token_format.value if client.token_format else None
    return {
        "grant_types": list(client.grant_types), "scopes": list(client.scopes), "audiences": list(client.audiences),
        "token_format": form, "may_introspect": client.may_introspect,
        "kids": [str(key.get("kid", "")) for key in trust.client_keys(name)],
        "redirects": list(trust.redirects(name)), "public": trust.is_public(name),
    }  # fmt: skip
