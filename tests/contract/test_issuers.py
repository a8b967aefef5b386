"""What is believed of a key set that another issuer tells, and of its tokens."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn import entropy
from keyturn.contract.encoding import encode_json
from keyturn.contract.errors import InvalidToken, MalformedInput
from keyturn.contract.issuers import MOST_KEYS, ForeignIssuer, check_foreign_claims, mapped_claims, read_key_set
from keyturn.contract.jwk import public_jwk

NOW = 1_800_000_000.0
PROVIDER = ForeignIssuer(
    name="workforce", url="https://login.example/", token_seconds=3600, algorithms=("ES256", "PS256", "RS256", "EdDSA"),
    claims={"client_id": "azp", "scope": "scp"},
)  # fmt: skip
GOOD = {name: public_jwk(entropy.new_key(alg).public_key()) for name, alg in (("ec", "ES256"), ("okp", "EdDSA"))}
RSA = public_jwk(entropy.new_key("RS256").public_key())


def key_set(*keys: Any) -> bytes:
    """Return a JWK set of these keys."""
    return encode_json({"keys": list(keys)})


def ec(**members: Any) -> dict[str, Any]:
    """Return a good key with changed members."""
    return {"kid": "a", "alg": "ES256", "use": "sig", **GOOD["ec"], **members}


def left_out(*keys: Any) -> str:
    """Return why keys beside a good one cannot be used; the good one has to stay."""
    read = read_key_set(key_set(*keys, {"kid": "good", **GOOD["okp"]}), PROVIDER)
    assert list(read.keys) == ["good"]
    return " ".join(read.left_out)


def test_each_key_is_bound_to_one_algorithm() -> None:
    """RFC 8725, 3.1: what the key names, else the first of the issuer's that fits its type."""
    keys = (
        ec(),
        {"kid": "b", **GOOD["okp"], "x5t": "x", "x5c": ["MII"]},
        {"kid": "c", **RSA},
        {"kid": "d", "alg": "RS256", **RSA},
    )
    read = read_key_set(key_set(*keys), PROVIDER)
    assert {kid: key.alg for kid, key in read.keys.items()} == {"a": "ES256", "b": "EdDSA", "c": "PS256", "d": "RS256"}
    assert read.left_out == ()


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (ec(kid=None), "no kid"), (ec(kid=7), "no kid"), (ec(kid=""), "kid has 1 to"), (ec(use="enc"), "use"),
        (ec(key_ops=["sign"]), "key_ops"), (ec(key_ops="verify"), "key_ops"), (ec(d="AAAA"), "private half"),
        (ec(alg="ES384"), "none of"), (ec(alg="HS256"), "none of"), (ec(alg=["ES256"]), "none of"),
        (ec(crv="P-521", alg=None), "none of"), (ec(x="AAAA"), "do not make a key"), (ec(x=7), ""),
        ({"kid": "a", "kty": "oct", "k": "AAAA"}, "secret"), ({"kid": "a", "kty": ["EC"]}, "none of"), ({}, "no kid"),
        ({"kid": "a", "kty": "RSA", "alg": "RS256", "n": RSA["n"][:100], "e": "AQAB"}, "bits is weak"),
        ({"kid": "a", "kty": "RSA", "alg": "RS256", "n": RSA["n"], "e": "AQ"}, "exponent"),
    ],
)  # fmt: skip
def test_a_key_that_cannot_be_used_is_left_out_and_the_others_stay(key: dict[str, Any], why: str) -> None:
    """RFC 7517, 5: a set may hold keys that we do not understand; a weak one must vouch for nothing."""
    assert why in left_out(key)


def test_two_keys_of_one_kid_are_both_left_out() -> None:
    """Nobody could say which of them signed."""
    assert "two keys" in left_out(ec(), {"kid": "a", **RSA})


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{}", b"[]", b'{"keys":{}}', b'{"keys":[1]}', b'{"keys":[]}', b'{"keys":[],"keys":[]}', b"\xff",
        key_set(ec(use="enc")), key_set(*({"kid": str(number)} for number in range(MOST_KEYS + 1))),
    ],
    ids=lambda raw: raw[:24],
)  # fmt: skip
def test_what_is_no_usable_set_is_refused_whole(raw: bytes) -> None:
    """It must not take the place of the good set that is held."""
    with pytest.raises(MalformedInput):
        read_key_set(raw, PROVIDER)


def test_a_key_that_stays_is_the_same_object() -> None:
    """Verdicts in the cache hold the key that they rest on, and ask whether it is still told."""
    first = read_key_set(key_set(ec()), PROVIDER).keys
    assert read_key_set(key_set({"kid": "b", **RSA}, ec(x5c=["MII"])), PROVIDER, first).keys["a"] is first["a"]
    other = public_jwk(entropy.new_key("ES256").public_key())
    assert read_key_set(key_set(ec(**other)), PROVIDER, first).keys["a"] is not first["a"]


WORDS = st.sampled_from(["EC", "RSA", "OKP", "P-256", "a"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | WORDS,
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from(["kty", "crv", "x", "y", "n", "e", "kid", "alg", "use", "key_ops"]), JSON))
def test_no_key_however_odd_does_more_than_be_left_out(members: dict[str, Any]) -> None:
    """An error that nobody expects would end the reading of keys for good."""
    raw = json.dumps({"keys": [ec(**members), {"kid": "good", **GOOD["okp"]}]}).encode("utf-8", "surrogatepass")
    assert "good" in read_key_set(raw, PROVIDER).keys or members.get("kid") == "good"


def claims(**changes: Any) -> dict[str, Any]:
    """Return what a provider's access token says; a change to None drops the claim."""
    told = {"iss": PROVIDER.url, "sub": "alice", "aud": "https://api.example", "iat": NOW, "exp": NOW + 3600} | changes
    return {name: value for name, value in told.items() if value is not None}


def objection(*, typ: Any = "jwt", **changes: Any) -> str | None:
    """Return why such a token is refused."""
    try:
        mapped = mapped_claims(claims(**changes), PROVIDER)
        check_foreign_claims(mapped, PROVIDER, typ=typ, now=NOW, skew_seconds=2)
    except InvalidToken as error:
        return error.reason
    return None


@pytest.mark.parametrize("name", ["sub", "aud", "iat", "exp"])
def test_what_must_be_there_must_be_there(name: str) -> None:
    """Without `iat` no cutoff could spare or name the token, nor could its life be known."""
    assert objection() is None
    assert objection(jti="j", sid="s", client_id="c", scope="read") is None
    assert objection(**{name: None}) == "claims"
    assert objection(**{name: [] if name == "aud" else [1]}) == "claims"


@pytest.mark.parametrize("name", ["jti", "sid", "client_id", "azp", "scope", "scp"])
def test_a_name_of_another_form_is_refused_and_not_passed_over(name: str) -> None:
    """What a revocation cannot compare must not look as if it were not there."""
    assert objection(**{name: 7}) == "claims"


def test_a_token_that_lives_longer_than_its_issuer_says_is_refused() -> None:
    """A revocation of it would be forgotten before it ends."""
    assert objection(exp=NOW + 3600.5) == "lifetime"
    assert objection(iat=NOW - 3000, exp=NOW + 601) == "lifetime"


def test_time_is_looked_at_with_the_skew() -> None:
    """As for our own tokens (RFC 7519, 4.1.4 and 4.1.5)."""
    assert objection(iat=NOW - 3602, exp=NOW - 2) == "expired"
    assert objection(iat=NOW - 3601, exp=NOW - 1.5) is None
    assert objection(iat=NOW + 2.5, exp=NOW + 9) == "not_yet_valid"
    assert objection(nbf=NOW + 2.5) == "not_yet_valid"


@pytest.mark.parametrize("name", ["nonce", "at_hash", "c_hash", "events"])
def test_an_id_token_or_a_security_event_is_no_access_token(name: str) -> None:
    """Where `typ` does not tell them apart, what they carry does (RFC 8725, 3.12; RFC 8417, 4.5)."""
    assert objection(**{name: "x"}) == "type"
    assert objection(typ="", **{name: "x"}) == "type"
    assert objection(typ="at+jwt", **{name: "x"}) is None


def test_claims_come_under_our_names() -> None:
    """`azp` for `client_id`, and a scope that is a list, as some providers send it."""
    told = mapped_claims(claims(azp="shop", client_id="other", scp=["read", "write"]), PROVIDER)
    assert (told["client_id"], told["azp"], told["scope"]) == ("shop", "shop", "read write")
    assert mapped_claims(claims(client_id="shop"), PROVIDER)["client_id"] == "shop"
    for scope in (["read write"], [""], [1], " read", {"read": 1}):
        assert objection(scp=scope) == "claims"
