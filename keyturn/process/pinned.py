"""The keys that a process is given in files: the root that it pins, and the private key that it signs with."""

from pathlib import Path
from typing import Any

from keyturn.contract.encoding import decode_object
from keyturn.contract.envelope import StatementKey
from keyturn.contract.errors import ConfigurationError, MalformedInput
from keyturn.contract.jwk import load_ed25519_private, load_public
from keyturn.process.values import Secret

_PUBLIC_MEMBERS = ("kty", "crv", "x", "d")  # `d` so that a private root is refused, not overlooked.


def read_root(path: Path) -> dict[str, Any]:
    """Return the public JWK of the root that is pinned in a file; raises ConfigurationError."""
    mend = "name the root.jwk that `keyturn init` made"
    try:
        jwk = decode_object(path.read_bytes())
        members = {name: value for name, value in jwk.items() if name in _PUBLIC_MEMBERS}
        load_public(members, "EdDSA")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}", setting="trust.root", mend=mend) from error
    except MalformedInput as error:
        raise ConfigurationError(f"{path} is no public root: {error}", setting="trust.root", mend=mend) from error
    return members


def statement_key(secret: Secret, *, setting: str) -> StatementKey:
    """Return a role's or identity's key from its private JWK; raises ConfigurationError naming the setting."""
    try:
        return StatementKey(load_ed25519_private(decode_object(secret.reveal())))
    except MalformedInput as error:
        raise ConfigurationError(
            "this is not a private Ed25519 JWK", setting=setting, mend="name the file that `keyturn init` made"
        ) from error
