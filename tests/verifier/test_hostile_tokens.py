"""Tokens that an attacker makes from good ones: none may ever be active."""

import hmac
import json
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keyturn.contract.encoding import b64url, encode_json, unb64url
from keyturn.contract.errors import MalformedInput
from keyturn.contract.jwk import public_jwk
from keyturn.verifier.verdict import Kind
from tests.verifier.court import READ, Court


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"}, {"alg": "None"}, {"alg": "HS256"}, {"alg": "ES384"}, {"alg": "RS256"}, {"alg": "PS256"},
        {"alg": "EdDSA"}, {"alg": None}, {"jwk": {}}, {"jku": "https://evil.example"}, {"x5u": "https://evil.example"},
        {"x5c": []}, {"crit": ["exp"]}, {"b64": False}, {"typ": "JWT"}, {"typ": None}, {"typ": "keyturn-event+jws"},
        {"kid": None}, {"kid": ""}, {"kid": "../../dev/null"}, {"kid": "' OR 1=1"}, {"kid": "\u0000"}, {"kid": ["x"]},
        {"kid": {"$ne": 1}},
    ],
    ids=str,
)  # fmt: skip
def test_a_header_that_says_more_or_other_than_ours_is_refused_even_with_a_good_signature(
    court: Court, header: dict[str, Any]
) -> None:
    """Signed by the right key over exactly these bytes: the form alone must refuse it."""
    token = court.world.mint(header=header)
    assert court.verifier.judge(token, READ).kind is Kind.INACTIVE


async def test_a_token_is_not_checked_with_a_key_of_another_algorithm_or_kid(court: Court) -> None:
    """Key confusion: each key is bound to its kid and its algorithm."""
    ours = court.world.signing_kid
    for alg in ("EdDSA", "RS256", "ES384"):
        await court.keys.append(court.world.first_key(alg))
    others = [kid for kid in court.world.private if kid != ours]
    for kid in others:
        for header in ({"kid": ours}, {"kid": ours, "alg": "ES256"}, {"alg": "ES256"}):
            assert court.verifier.judge(court.world.mint(kid=kid, header=header), READ).kind is Kind.INACTIVE


def test_a_public_key_is_no_secret_to_sign_with(court: Court) -> None:
    """HMAC with the public key's bytes in each form that libraries took for a secret."""
    key = court.world.private[court.world.signing_kid].public_key()
    forms = [
        encode_json(public_jwk(key)), key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), b"",
    ]  # fmt: skip
    for alg in ("HS256", "ES256"):
        header = encode_json({"alg": alg, "kid": court.world.signing_kid, "typ": "at+jwt"})
        signing_input = f"{b64url(header)}.{b64url(encode_json(court.world.claims()))}".encode()
        for secret in forms:
            token = signing_input + b"." + b64url(hmac.digest(secret, signing_input, sha256)).encode()
            assert court.verifier.judge(token, READ).kind is Kind.INACTIVE


def test_degenerate_signatures_are_refused(court: Court) -> None:
    """Empty, zero (CVE-2022-21449), the order of the curve, too long, too short, and in DER."""
    head = court.world.mint().rpartition(b".")[0]
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    numbers = [0, 1, order - 1, order, order + 1, 2**256 - 1]
    signatures = [r.to_bytes(32, "big") + s.to_bytes(32, "big") for r in numbers for s in numbers]
    signatures += [b"", bytes(1), bytes(63), bytes(65), bytes(128), bytes.fromhex("3006020100020100")]
    for signature in signatures:
        assert court.verifier.judge(head + b"." + b64url(signature).encode(), READ).kind is Kind.INACTIVE


def spelled_otherwise(token: bytes) -> list[bytes]:
    """Return other spellings of the same three parts."""
    header, payload, signature = token.split(b".")
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    found = [token + tail for tail in (b"=", b"==", b"\n", b" ", b".", b"\x00", b"A", b"AAAA")]
    found += [b" " + token, b"Bearer " + token, token.replace(b".", b". "), token.replace(b".", b"..", 1)]
    found += [b".".join((header + b"=", payload, signature)), b".".join((header, payload + b"==", signature))]
    found += [token[:-1] + bytes([last]) for last in alphabet if last != token[-1]]
    found += [b".".join((header, payload[:-1] + bytes([last]), signature)) for last in alphabet if last != payload[-1]]
    return found


async def test_no_other_spelling_of_a_good_token_is_active_revoked_or_not(court: Court) -> None:
    """PyJWT accepts `==` behind a token, others sixteen last characters: a deny list by text would be walked around."""
    await court.keys.append(court.world.first_key("EdDSA"))
    for kid in court.world.private:
        token = court.world.mint(kid=kid, sub="x" * 7)
        assert court.verifier.judge(token, READ).kind is Kind.ACTIVE
        for other in spelled_otherwise(token):
            assert court.verifier.judge(other, READ).kind is Kind.INACTIVE, other


TWISTED: dict[str, Callable[[bytes], bytes]] = {
    "second sub": lambda good: good[:-1] + b',"sub":"admin"}',
    "sub before": lambda good: b'{"sub":"admin",' + good[1:],
    "escaped sub": lambda good: good[:-1] + b',"s\\u0075b":"admin"}',
    "spaced sub": lambda good: good[:-1] + b',"sub" :"admin"}',
    "second exp": lambda good: good[:-1] + b',"exp":99999999999}',
    "in a list": lambda good: b"[" + good + b"]",
    "twice": lambda good: good + good,
    "byte order mark": lambda good: b"\xef\xbb\xbf" + good,
    "utf-16": lambda good: good.decode().encode("utf-16"),
    "nothing": lambda _: b"",
    "no claims": lambda _: b"{}",
}


@pytest.mark.parametrize("twist", TWISTED)
def test_a_payload_that_two_parsers_read_differently_is_refused_even_when_signed(court: Court, twist: str) -> None:
    """A signing service that is talked into such bytes must not talk us into them."""
    header = encode_json({"alg": "ES256", "kid": court.world.signing_kid, "typ": "at+jwt"})
    good = encode_json(court.world.claims())
    assert court.verifier.judge(court.world.sign_raw(header, good), READ).kind is Kind.ACTIVE
    assert court.verifier.judge(court.world.sign_raw(header, TWISTED[twist](good)), READ).kind is Kind.INACTIVE


@pytest.mark.parametrize(
    "number", ["1e999", "-1", "1e11", "9" * 400, "true", "null", '"1900000000"', "[1900000000]", "1e400"]
)
@pytest.mark.parametrize("claim", ["exp", "iat", "nbf"])
def test_moments_that_are_no_moments_are_refused_even_when_signed(court: Court, claim: str, number: str) -> None:
    """Infinity is later than everything."""
    if (claim, number) == ("nbf", "null"):
        number = "{}"  # Null is how some issuers write "none".
    members = {name: json.dumps(value) for name, value in court.world.claims().items()} | {claim: number}
    payload = "{" + ",".join(f'"{name}":{value}' for name, value in members.items()) + "}"
    header = encode_json({"alg": "ES256", "kid": court.world.signing_kid, "typ": "at+jwt"})
    assert court.verifier.judge(court.world.sign_raw(header, payload.encode()), READ).kind is Kind.INACTIVE


DAMAGE = st.sampled_from(["flip", "drop", "insert", "swap", "cut", "repeat"])
MUTATIONS = st.lists(st.tuples(DAMAGE, st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=4)


def mutated(token: bytes, steps: list[tuple[str, int, int]]) -> bytes:
    """Return the token after some damage."""
    raw = bytearray(token)
    for step, where, byte in steps:
        at = where % max(1, len(raw))
        match step:
            case "flip":
                raw[at : at + 1] = bytes([byte])
            case "drop":
                del raw[at : at + 1 + byte % 4]
            case "insert":
                raw[at:at] = bytes([byte])
            case "swap":
                raw[at : at + 2] = raw[at : at + 2][::-1]
            case "cut":
                del raw[at:]
            case _:
                raw[at:at] = raw[at : at + 1 + byte]
    return bytes(raw)


@settings(max_examples=1500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=MUTATIONS)
def test_a_damaged_token_is_never_active_and_never_raises(court: Court, steps: list[tuple[str, int, int]]) -> None:
    """The good one stays good, and nothing that was made from it is anything."""
    token = court.world.mint(jti="the-one", grant_id=None)
    broken = mutated(token, steps)
    verdict = court.verifier.judge(broken, READ)
    assert (verdict.kind is Kind.ACTIVE) == (broken == token)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(part=st.sampled_from([0, 1]), steps=MUTATIONS)
def test_what_is_damaged_inside_its_parts_is_never_active_and_never_raises(
    court: Court, part: int, steps: list[tuple[str, int, int]]
) -> None:
    """The damage is done to the JSON and encoded again, so that it reaches the parser behind base64."""
    parts = court.world.mint(jti="the-one", grant_id=None).split(b".")
    whole = unb64url(parts[part])
    broken = mutated(whole, steps)
    parts[part] = b64url(broken).encode()
    verdict = court.verifier.judge(b".".join(parts), READ)
    assert (verdict.kind is Kind.ACTIVE) == (broken == whole)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=MUTATIONS)
def test_a_signed_payload_that_was_damaged_before_signing_never_raises(
    court: Court, steps: list[tuple[str, int, int]]
) -> None:
    """Whatever the signer was made to sign, the answer is a verdict; an active one has readable claims of ours."""
    header = encode_json({"alg": "ES256", "kid": court.world.signing_kid, "typ": "at+jwt"})
    payload = mutated(encode_json(court.world.claims(jti="the-one", grant_id=None)), steps)
    verdict = court.verifier.judge(court.world.sign_raw(header, payload), READ)
    if verdict.kind is Kind.ACTIVE:
        assert json.loads(payload) == verdict.claims
        assert verdict.claims["iss"] == court.world.issuer


def test_the_mutations_reach_what_they_are_meant_to_reach(court: Court) -> None:
    """A property over tokens that all fail at the first look would prove nothing."""
    reasons = set()
    token = court.world.mint()
    for position in range(len(token)):
        for byte in b"A.=\xff":
            verdict = court.verifier.judge(token[:position] + bytes([byte]) + token[position + 1 :], READ)
            reasons.add(verdict.reason)
    assert reasons >= {"malformed", "signature", "active"}  # Active where the byte stood there already.
    with pytest.raises(MalformedInput):
        unb64url(token)
