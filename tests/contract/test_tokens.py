"""What a JWT must look like before anything in it is believed."""

import json
from typing import Any

import pytest

from keyturn.contract.encoding import b64url
from keyturn.contract.errors import InvalidToken
from keyturn.contract.tokens import LARGEST_TOKEN_BYTES, audiences, check_claims, is_audience, parse_token

HEADER = {"alg": "ES256", "kid": "a-kid", "typ": "at+jwt"}
NOW, SKEW = 1_800_000_000.0, 2.0
CLAIMS = {
    "iss": "https://issuer.example", "sub": "alice", "client_id": "shop", "aud": "https://api.example",
    "iat": int(NOW), "exp": int(NOW) + 300, "jti": "a-jti",
}  # fmt: skip


def compact(header: Any, payload: Any = CLAIMS, signature: str = "c2ln") -> bytes:
    """Return three parts; text is taken as it is, everything else as JSON."""
    parts = [part if isinstance(part, str) else json.dumps(part) for part in (header, payload)]
    return f"{b64url(parts[0].encode())}.{b64url(parts[1].encode())}.{signature}".encode()


def refusal(token: bytes) -> str:
    """Return the reason for which a token is refused before its signature is looked at."""
    with pytest.raises(InvalidToken) as caught:
        parse_token(token)
    return caught.value.reason


def test_a_plain_access_token_is_taken_apart() -> None:
    """The one form that is accepted."""
    token = parse_token(compact(HEADER))
    assert (token.header.alg, token.header.kid) == ("ES256", "a-kid")
    assert token.claims == CLAIMS
    assert (token.signing_input, token.signature) == (compact(HEADER).rpartition(b".")[0], b"sig")


@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"])
def test_the_type_of_an_access_token_is_known_in_each_spelling(typ: str) -> None:
    """RFC 9068, 2.1, and media types ignore case (RFC 7515, 4.1.9)."""
    assert parse_token(compact(HEADER | {"typ": typ}))


@pytest.mark.parametrize(
    "typ", [None, "", "JWT", "jwt", "at+jwt ", "dpop+jwt", "token-introspection+jwt", "secevent+jwt", 1, ["at+jwt"]]
)
def test_another_type_is_refused(typ: object) -> None:
    """An ID token, a proof or a logout token is no access token (RFC 8725, 3.11)."""
    assert refusal(compact(HEADER | {"typ": typ})) == "type"
    assert refusal(compact({"alg": "ES256", "kid": "a-kid"})) == "type"


@pytest.mark.parametrize(
    "alg",
    [
        None, "", "none", "noNE", "NONE", "nOnE", "HS256", "HS384", "HS512", "RS512", "ES256K", "es256", " ES256",
        "RSA1_5", "dir", 0, True, ["ES256"], {"ES256": 1}, "ES256\u0000",
    ],
)  # fmt: skip
def test_an_algorithm_that_we_do_not_use_is_refused(alg: object) -> None:
    """None at all, HMAC with a public key as its secret, look-alikes, and what is no text."""
    assert refusal(compact(HEADER | {"alg": alg})) == "algorithm"


@pytest.mark.parametrize("member", ["jwk", "jku", "x5u", "x5c"])
@pytest.mark.parametrize("value", [None, "", "https://evil.example/keys", {"kty": "EC"}, []])
def test_a_token_that_brings_its_own_key_is_refused(member: str, value: object) -> None:
    """Whoever follows it lets the attacker choose the key."""
    assert refusal(compact(HEADER | {member: value})) == "header"


@pytest.mark.parametrize("crit", [[], ["exp"], ["b64"], ["x"], None, "", {}])
def test_any_critical_extension_is_refused(crit: object) -> None:
    """We know none (RFC 7515, 4.1.11), and an empty list is forbidden there."""
    assert refusal(compact(HEADER | {"crit": crit})) == "header"
    assert refusal(compact(HEADER | {"b64": False})) == "header"


@pytest.mark.parametrize("kid", [None, "", 7, ["a-kid"], {"a": 1}, False])
def test_a_kid_is_a_string(kid: object) -> None:
    """It is looked up in a table, and nothing else may be."""
    assert refusal(compact(HEADER | {"kid": kid})) == "header"


@pytest.mark.parametrize(
    "header",
    [
        '{"alg":"ES256","kid":"a","typ":"at+jwt","alg":"none"}',
        '{"alg":"ES256","kid":"a","typ":"at+jwt","\\u0061lg":"none"}',
        '{"alg":"ES256","kid":"a","typ":"at+jwt","kid" :"b"}',
        '{"alg":"ES256","kid":"a","typ":"at+jwt","x":{"y":1,"y":2}}',
        "[]", "null", '"ES256"', "", "{", '{"alg":"ES256","kid":"a","typ":"at+jwt"} x',
        '{"alg":"ES256","kid":"\ud83d"}',
    ],
)  # fmt: skip
def test_a_header_that_is_not_one_plain_object_is_malformed(header: str) -> None:
    """Duplicate members included, however they are spelled."""
    segment = b64url(header.encode("utf-8", "surrogatepass"))
    assert refusal(f"{segment}.e30.c2ln".encode()) == "malformed"


@pytest.mark.parametrize(
    "payload", ['{"sub":"a","sub":"b"}', '{"sub":"a","s\\u0075b":"b"}', '{"a":{"b":1,"b" :1}}', "[]", "1", "", "{"]
)
def test_claims_that_are_not_one_plain_object_are_malformed(payload: str) -> None:
    """Likewise for the claims."""
    assert refusal(compact(HEADER, payload)) == "malformed"


def spellings(token: bytes) -> dict[str, bytes]:
    """Return other spellings of a token, each of which some decoder takes for the same."""
    header, payload, signature = token.split(b".")
    return {
        "padded signature": token + b"==", "padded header": b".".join([header + b"=", payload, signature]),
        "line end": token + b"\n", "leading space": b" " + token, "space inside": header + b". " + payload + b".c2ln",
        "standard alphabet": token.replace(b"-", b"+").replace(b"_", b"/") + b"+",
        "no signature part": header + b"." + payload, "a fourth part": token + b".", "a fifth part": token + b"..",
        "empty": b"", "dots": b"..", "nul": token + b"\x00", "not ascii": token + b"\xc3\xa9",
        "json form": json.dumps({"protected": header.decode(), "payload": payload.decode()}).encode(),
        "last character": token[:-1] + bytes([token[-1] + 1]),
    }  # fmt: skip


@pytest.mark.parametrize("spelling", spellings(b"e30.e30.c2ln"))
def test_a_token_has_one_spelling(spelling: str) -> None:
    """A cache or a deny list by the token's text sees another token."""
    token = compact(HEADER, signature=b64url(bytes(64)))
    assert refusal(spellings(token)[spelling]) == "malformed"


def test_a_token_has_a_largest_size() -> None:
    """Nothing is decoded of a longer one."""
    largest = compact(HEADER, signature="")
    largest += b"A" * ((LARGEST_TOKEN_BYTES - len(largest)) // 4 * 4)
    assert parse_token(largest)
    assert refusal(largest + b"A" * 8) == "oversized"


@pytest.mark.parametrize("depth", [17, 1000, 2900])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_a_nested_token_is_malformed_and_costs_no_stack(depth: int, opening: str, closing: str) -> None:
    """As deep as the largest token can be."""
    deep = '{"a":' + opening * depth + "1" + closing * depth + "}"
    token = compact(HEADER, deep)
    assert refusal(token) == ("malformed" if len(token) <= LARGEST_TOKEN_BYTES else "oversized")
    assert refusal(compact('{"alg":"ES256","kid":"a","typ":"at+jwt",' + deep[1:])) in ("malformed", "oversized")


def test_many_different_headers_do_not_grow_the_memory() -> None:
    """The header cache is keyed by what a stranger sends."""
    from keyturn.contract import tokens  # noqa: PLC0415 - its cache is looked at here only

    for number in range(2000):
        parse_token(compact(HEADER | {"kid": f"kid-{number}"}))
    assert len(tokens._headers) <= 512


def objection(**changes: Any) -> str | None:
    """Return why claims are refused; a change to `...` drops the claim."""
    claims = {name: value for name, value in (CLAIMS | changes).items() if value is not ...}
    try:
        check_claims(claims, issuer="https://issuer.example", now=NOW, skew_seconds=SKEW)
    except InvalidToken as error:
        return error.reason
    return None


def test_good_claims_raise_no_objection() -> None:
    """Also with everything optional, with several audiences, and with moments that have decimals."""
    assert objection() is None
    assert objection(nbf=int(NOW), scope="read write", aud=["a", "https://api.example"], iat=NOW - 0.5) is None
    assert objection(scope="", nbf=None, sid="s", extra={"deep": [1]}) is None


@pytest.mark.parametrize("name", ["iss", "sub", "client_id", "jti", "aud", "exp", "iat"])
@pytest.mark.parametrize("value", [..., None, [], {}, True])
def test_a_claim_that_is_required_cannot_be_absent_or_of_another_type(name: str, value: object) -> None:
    """RFC 9068, 2.2."""
    assert objection(**{name: value}) == "claims"


@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
@pytest.mark.parametrize("value", ["1800000300", True, -1, -0.5, 1e11, 10**30, [1], {}])
def test_a_moment_is_a_number_of_unix_seconds(name: str, value: object) -> None:
    """Text, truth values, the past before 1970, and milliseconds."""
    assert objection(**{name: value}) == "claims"


@pytest.mark.parametrize("value", [1, [], [1], ["a", None], {"a": 1}, [["a"]]])
def test_an_audience_is_one_or_several_strings(value: object) -> None:
    """An empty list is for nobody (RFC 7519, 4.1.3)."""
    assert objection(aud=value) == "claims"
    assert not is_audience(value)


@pytest.mark.parametrize("value", [1, ["read"], None, " read", "read ", "read\n", True])
def test_a_scope_is_a_space_separated_string(value: object) -> None:
    """A list, as some issuers write it, would be another claim."""
    assert objection(scope=value) == "claims"


def test_another_issuer_is_refused_however_alike() -> None:
    """Compared byte for byte."""
    for issuer in ("https://issuer.example/", "https://ISSUER.example", "https://issuer.example:443", ""):
        assert objection(iss=issuer) == "issuer"


@pytest.mark.parametrize(
    ("claim", "just_good", "just_bad", "reason"),
    [
        ("exp", NOW - SKEW + 0.001, NOW - SKEW, "expired"),
        ("iat", NOW + SKEW, NOW + SKEW + 0.001, "not_yet_valid"),
        ("nbf", NOW + SKEW, NOW + SKEW + 0.001, "not_yet_valid"),
    ],
)
def test_moments_are_forgiven_the_skew_and_not_more(claim: str, just_good: float, just_bad: float, reason: str) -> None:
    """At the limit and just beyond."""
    assert objection(**{claim: just_good}) is None
    assert objection(**{claim: just_bad}) == reason


def test_audiences_are_a_tuple_always() -> None:
    """One or many."""
    assert audiences({"aud": "a"}) == ("a",)
    assert audiences({"aud": ["a", "b"]}) == ("a", "b")
    assert audiences({}) == ()
