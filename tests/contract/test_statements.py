"""Signed statements: envelopes, the trust document, reports and assertions between services."""

from typing import Any

import msgspec
import pytest

from keyturn import entropy
from keyturn.contract.assertions import LIFE_SECONDS, open_assertion, sign_assertion
from keyturn.contract.encoding import b64url, encode_json, unb64url
from keyturn.contract.envelope import StatementKey, StatementType, open_statement, statement_type
from keyturn.contract.errors import ForgedSignature, MalformedInput, TrustError, TrustExpired, UnknownKind
from keyturn.contract.jwk import load_public, public_jwk, thumbprint
from keyturn.contract.positions import Lane, Position, parse_position
from keyturn.contract.reports import Report, open_report, sign_report
from keyturn.contract.trust import IdentityKind, open_trust, sign_trust, trust_nobody
from tests.world import World, new_statement_key

KEY, OTHER = new_statement_key(), new_statement_key()


def signers(*keys: StatementKey) -> dict[str, Any]:
    """Return public keys by kid."""
    return {key.kid: load_public(key.public, "EdDSA") for key in keys}


def forged(header: dict[str, Any], payload: bytes = b"{}") -> bytes:
    """Return a statement by our key whose header says whatever it likes."""
    private = KEY._key
    signing_input = f"{b64url(encode_json(header))}.{b64url(payload)}".encode()
    return signing_input + b"." + b64url(private.sign(signing_input)).encode()


HEADER = {"alg": "EdDSA", "kid": KEY.kid, "typ": StatementType.EVENT.value}


def test_a_statement_is_opened_by_its_signers_key_and_type_alone() -> None:
    """One of several signers; never under another type."""
    statement = KEY.sign(StatementType.EVENT, b"word")
    assert statement_type(statement) is StatementType.EVENT
    assert open_statement(statement, StatementType.EVENT, signers(OTHER, KEY)) == b"word"
    for typ in set(StatementType) - {StatementType.EVENT}:
        with pytest.raises(ForgedSignature):
            open_statement(statement, typ, signers(KEY))
    for known in ({}, signers(OTHER), {KEY.kid: signers(OTHER)[OTHER.kid]}):
        with pytest.raises(ForgedSignature):
            open_statement(statement, StatementType.EVENT, known)


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"}, {"alg": "HS256"}, {"alg": "ES256"}, {"alg": ["EdDSA"]}, {"typ": "JWT"}, {"typ": ["x"]},
        {"kid": 1}, {"jwk": {}}, {"crit": []}, {"x": "y"},
    ],
    ids=str,
)  # fmt: skip
def test_a_statements_header_has_three_plain_members_and_no_other(header: dict[str, Any]) -> None:
    """Signed by the right key, and still not read."""
    assert open_statement(forged(HEADER), StatementType.EVENT, signers(KEY)) == b"{}"
    with pytest.raises(ForgedSignature):
        open_statement(forged(HEADER | header), StatementType.EVENT, signers(KEY))
    for missing in HEADER:
        with pytest.raises(ForgedSignature):
            statement_type(forged({name: value for name, value in HEADER.items() if name != missing}))


@pytest.mark.parametrize("damage", [b"", b".", b"..", b"...", b"a.b.c", b"\xff.\xff.\xff", b"e30.e30.e30", b"[].[].[]"])
def test_what_is_no_statement_is_forged(damage: bytes) -> None:
    """One error for all of it."""
    for read in (statement_type, lambda raw: open_statement(raw, StatementType.EVENT, signers(KEY))):
        with pytest.raises(ForgedSignature):
            read(damage)


def test_a_private_key_shows_nothing_of_itself() -> None:
    """It ends up in tracebacks and logs."""
    secret = b64url(KEY._key.private_bytes_raw())
    assert secret not in repr(KEY)
    assert repr(KEY) == f"StatementKey({KEY.kid})"
    assert KEY.kid == thumbprint(KEY.public)


def test_a_trust_document_is_read_by_who_pins_its_root() -> None:
    """And by nobody else."""
    world = World(verifiers={"sidecar-1": KEY}, services={"worker": OTHER})
    trust = world.trust()
    assert trust.document == world.document()
    assert trust.role(Lane.KEYS).keys() == {world.roles[Lane.KEYS].kid}
    assert trust.identity("sidecar-1", IdentityKind.VERIFIER).keys() == {KEY.kid}
    assert trust.identity("sidecar-1", IdentityKind.SERVICE) == {}
    assert trust.identity("nobody", IdentityKind.SERVICE) == {}
    with pytest.raises(ForgedSignature):
        open_trust(world.trust_bytes(), root=OTHER.public, allow_dev=True)
    with pytest.raises(ForgedSignature):
        open_trust(sign_trust(world.roles[Lane.KEYS], world.document()), root=world.root.public, allow_dev=True)


def test_a_dev_document_is_refused_unless_allowed() -> None:
    """What a laptop made must not vouch in production."""
    world = World()
    compact = world.trust_bytes(dev=True)
    with pytest.raises(TrustError, match="dev"):
        open_trust(compact, root=world.root.public, allow_dev=False)
    assert open_trust(compact, root=world.root.public, allow_dev=True).document.dev


@pytest.mark.parametrize(
    "spoil",
    [
        lambda document: document.update(format=2), lambda document: document.update(extra=1),
        lambda document: document.update(version=0), lambda document: document.pop("roles"),
        lambda document: document["roles"].update(keys=[{"kty": "OKP", "crv": "Ed448", "x": "AAAA"}]),
        lambda document: document["roles"].update(keys=[{"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}]),
        lambda document: document["roles"].update(keys=[{"kty": "OKP", "crv": "Ed25519"}]),
        lambda document: document["roles"].update(keys=[KEY.public | {"d": "AAAA"}]),
    ],
    ids=["format", "member", "version", "no roles", "curve", "short key", "no key", "private key"],
)  # fmt: skip
def test_a_document_of_the_root_that_cannot_be_read_is_said_to_be_so(spoil: Any) -> None:
    """Never half read, and never another error than ours: a follower lives through it."""
    world = World()
    document = msgspec.to_builtins(world.document())
    spoil(document)
    with pytest.raises(UnknownKind):
        open_trust(world.root.sign(StatementType.TRUST, encode_json(document)), root=world.root.public, allow_dev=True)


def test_a_document_expires_at_its_moment() -> None:
    """And nobody trusted nobody before there was one."""
    trust = World().trust(expires_at=1000.0)
    trust.check_time(999.9)
    with pytest.raises(TrustExpired):
        trust.check_time(1000.0)
    nobody = trust_nobody("https://issuer.example")
    assert [nobody.role(lane) for lane in Lane] == [{}, {}]
    with pytest.raises(TrustExpired):
        nobody.check_time(0.0)


def test_a_report_is_a_verifiers_word_about_itself() -> None:
    """Under another's name it is nothing."""
    report = Report(verifier="a", incarnation="i", count=1, at=1.0, keys=(1, 2), revocations=(1, 3), state="fresh")
    compact = sign_report(KEY, report)
    assert open_report(compact, "a", signers(KEY)) == report
    with pytest.raises(UnknownKind):
        open_report(compact, "b", signers(KEY))
    with pytest.raises(ForgedSignature):
        open_report(compact, "a", signers(OTHER))
    for payload in (b"{}", b"[]", b"\xff", encode_json(msgspec.to_builtins(report) | {"extra": 1})):
        with pytest.raises(UnknownKind):
            open_report(KEY.sign(StatementType.REPORT, payload), "a", signers(KEY))


REQUEST: dict[str, Any] = {"service": "authorization", "method": "POST", "path": "/sign", "body": b'{"tokens":[]}'}


def asserted(now: float = 1000.0, **changes: Any) -> bytes:
    """Return an assertion for the request, or for another."""
    return sign_assertion(KEY, now=now, jti="0123456789abcdef", **(REQUEST | changes)).encode()


def test_an_assertion_is_for_one_request_of_one_service() -> None:
    """Method, path and body are bound: a stolen one signs nothing else."""
    world = World(services={"authorization": KEY, "worker": OTHER}, verifiers={"sidecar-1": OTHER})
    trust = world.trust()

    def opened(compact: bytes, now: float = 1000.0, **changes: Any) -> Any:
        return open_assertion(compact, trust, now=now, skew_seconds=2.0, **(REQUEST | changes))

    assert opened(asserted()).jti == "0123456789abcdef"
    for change in ({"method": "PUT"}, {"path": "/sign/"}, {"body": b""}, {"service": "worker"}, {"service": "nobody"}):
        with pytest.raises(ForgedSignature):
            opened(asserted(), **change)
        with pytest.raises(ForgedSignature):
            opened(asserted(**change))
    assert opened(asserted(), now=1000.0 + LIFE_SECONDS + 1.9)
    assert opened(asserted(), now=998.1)
    for now in (1000.0 + LIFE_SECONDS + 2.0, 997.9, 0.0):
        with pytest.raises(ForgedSignature):
            opened(asserted(), now=now)
    with pytest.raises(ForgedSignature):
        opened(sign_assertion(OTHER, now=1000.0, jti="0123456789abcdef", **REQUEST).encode())


NO_POSITIONS = [
    "", "1", "1:2", "1:2:", ":2:h", "1::h", "-1:2:h", "1:+2:h", " 1:2:h", "1:2\n:h", "a:b:c", "\u0661:2:h",
    "1" * 20 + ":2:h", "1:" + "9" * 5000 + ":h",
]  # fmt: skip


@pytest.mark.parametrize("text", NO_POSITIONS)
def test_a_position_has_one_spelling(text: str) -> None:
    """It comes from the store, where anybody may have written it."""
    with pytest.raises(MalformedInput):
        parse_position(text)
    assert parse_position("1:2:h:i") == Position(1, 2, "h:i")
    assert str(parse_position("12:345:hash")) == "12:345:hash"


@pytest.mark.parametrize("alg", ["ES256", "ES384", "EdDSA", "RS256", "PS256"])
def test_a_public_key_fits_its_algorithm_only_and_brings_no_private_member(alg: str) -> None:
    """A key is bound to its algorithm (RFC 8725, 3.1)."""
    jwk = public_jwk(entropy.new_key(alg).public_key())
    assert load_public(jwk, alg)
    assert set(jwk) <= {"kty", "crv", "x", "y", "n", "e"}
    family = {"RS256", "PS256"} if alg in ("RS256", "PS256") else {alg}
    for other in {"ES256", "ES384", "EdDSA", "RS256", "PS256", "HS256", "none", ""} - family:
        with pytest.raises(MalformedInput):
            load_public(jwk, other)
    for member in ("d", "p", "q", "dp", "dq", "qi", "oth", "k"):
        with pytest.raises(MalformedInput):
            load_public(jwk | {member: "AQAB"}, alg)
    for member in set(jwk) - {"kty", "crv"}:
        for value in (None, "", 7, "!", ["x"]):
            with pytest.raises(MalformedInput):
                load_public(jwk | {member: value}, alg)


def test_an_ed25519_key_has_one_spelling_and_one_length() -> None:
    """Two spellings of one key have two thumbprints, and so two names."""
    jwk = public_jwk(entropy.new_key("EdDSA").public_key())
    x, raw = jwk["x"], unb64url(jwk["x"])
    stray = x[:-1] + chr(ord(x[-1]) + 1)  # The last character carries two bits that belong to no byte.
    for value in (x + "=", x + "\n", stray, b64url(raw[:-1]), b64url(raw + b"\0"), "\ud800" * 43):
        with pytest.raises(MalformedInput):
            load_public(jwk | {"x": value}, "EdDSA")


def test_a_point_off_the_curve_and_a_short_rsa_key_are_refused() -> None:
    """Invalid-curve attacks, and what can be factored."""
    jwk = public_jwk(entropy.new_key("ES256").public_key())
    with pytest.raises(MalformedInput):
        load_public(jwk | {"y": jwk["x"]}, "ES256")
    with pytest.raises(MalformedInput):
        load_public({"kty": "RSA", "n": b64url(b"\xff" * 128), "e": "AQAB"}, "RS256")
