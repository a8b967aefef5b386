"""How one root hands over to the next, and the bundle that a trust document travels in: those steps, then the document.

A bundle is lines. The last is the document; each line before it is a step from one root to the next, the oldest first:
the same statement signed by the old root and, after a space, by the new one (as TUF rotates its root, 5.3). A document
without steps is a bundle, too.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from keyturn.contract.encoding import encode_json
from keyturn.contract.envelope import StatementKey, StatementType, open_statement
from keyturn.contract.errors import BrokenChain, ForgedSignature, MalformedInput, UnknownKind
from keyturn.contract.jwk import load_public, thumbprint

FORMAT = 1  # Of steps and of trust documents; the feed has one of its own.
MOST_STEPS = 32
"""Steps from root to root that a bundle carries; whoever pins an older root has to pin another."""
LARGEST_BUNDLE_BYTES = 1024 * 1024


class RootStep(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What both roots sign: from now on the new one speaks where the old one spoke."""

    format: int = FORMAT
    old: dict[str, Any]
    new: dict[str, Any]
    at: float


class Bundle(NamedTuple):
    """The lines of a bundle, none of them checked yet."""

    steps: Sequence[bytes]
    document: bytes

    def join(self) -> bytes:
        """Return the bundle in one piece."""
        return b"\n".join((*self.steps, self.document))


def split_bundle(compact: bytes) -> Bundle:
    """Return the lines of a bundle; raises ForgedSignature for one that is larger than any that we make."""
    lines = compact.split(b"\n", MOST_STEPS + 1)
    if len(compact) > LARGEST_BUNDLE_BYTES or len(lines) > MOST_STEPS + 1:
        raise ForgedSignature(f"a trust document of more than {LARGEST_BUNDLE_BYTES} bytes or {MOST_STEPS} steps")
    return Bundle(lines[:-1], lines[-1])


def sign_step(*, old: StatementKey, new: StatementKey, at: float) -> bytes:
    """Return the line by which a root hands over to the next; `at` is Unix seconds."""
    payload = encode_json(RootStep(old=old.public, new=new.public, at=at))
    return old.sign(StatementType.ROOT, payload) + b" " + new.sign(StatementType.ROOT, payload)


def walk(steps: Sequence[bytes], pinned: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the roots from the pinned one to the newest, each of which was named by the one before and agreed.

    Steps before the pinned root's own are passed over: who pins a newer root does not care how it came to be. From
    there on each step must follow the one before. Raises ForgedSignature (for a gap, too), BrokenChain for a circle,
    and UnknownKind for a step of a newer format.
    """
    roots = [dict(pinned)]
    seen = {thumbprint(pinned)}
    waiting = True
    for line in steps:
        by_old, _, by_new = line.partition(b" ")
        try:
            step = _open_step(by_old, roots[-1])
        except ForgedSignature:
            if waiting:
                continue
            raise
        _require_agreed(step, by_old, by_new, of=roots[-1])
        kid = thumbprint(step.new)
        if kid in seen:
            raise BrokenChain("a root hands over to one that has handed over already")
        roots.append(step.new)
        seen.add(kid)
        waiting = False
    return roots


def earlier_roots(steps: Sequence[bytes], newest: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the roots that led to the newest, backwards: each was signed away to one that we believe.

    For telling an older document of our own from a stranger's; nothing is believed because such a root signed it.
    """
    following: Mapping[str, Any] = newest
    for line in reversed(steps):
        by_old, _, by_new = line.partition(b" ")
        try:
            step = _open_step(by_new, following)
            _require_agreed(step, by_old, by_new, of=step.old)
        except (ForgedSignature, BrokenChain, UnknownKind):
            return
        if thumbprint(step.new) != thumbprint(following):
            return
        yield step.old
        following = step.old


def signers_of(jwks: Sequence[Mapping[str, Any]]) -> dict[str, Ed25519PublicKey]:
    """Return the keys that check statements, by kid; raises MalformedInput for any other than Ed25519."""
    signers: dict[str, Ed25519PublicKey] = {}
    for jwk in jwks:
        key = load_public(jwk, "EdDSA")
        if not isinstance(key, Ed25519PublicKey):
            raise MalformedInput("roots, roles and identities have Ed25519 keys")
        signers[thumbprint(jwk)] = key
    return signers


def _open_step(compact: bytes, signer: Mapping[str, Any]) -> RootStep:
    payload = open_statement(compact, StatementType.ROOT, signers_of((signer,)))
    try:
        step = msgspec.json.decode(payload, type=RootStep)
    except msgspec.DecodeError as error:
        raise UnknownKind("a step between roots that this version cannot read; upgrade it") from error
    if step.format != FORMAT:
        raise UnknownKind(f"a step between roots of format {step.format}; this version reads {FORMAT}")
    return step


def _require_agreed(step: RootStep, by_old: bytes, by_new: bytes, *, of: Mapping[str, Any]) -> None:
    """Raise unless old and new root signed the very same step, and it leads away from `of`."""
    try:
        old, new = signers_of((step.old,)), signers_of((step.new,))
    except (MalformedInput, KeyError) as error:
        raise UnknownKind("a step to a root of a kind that this version cannot use; upgrade it") from error
    if thumbprint(of) not in old:
        raise BrokenChain("a step between roots that leads away from another root than the one that signed it")
    if open_statement(by_new, StatementType.ROOT, new) != open_statement(by_old, StatementType.ROOT, old):
        raise ForgedSignature("old and new root did not sign the same step")
