"""Base64url and JSON with one spelling for each value."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.contract.encoding import b64url, decode_object, encode_json, unb64url
from keyturn.contract.errors import MalformedInput

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@given(st.binary(max_size=80))
def test_what_we_encode_we_decode(raw: bytes) -> None:
    """The plain case, for every length."""
    assert unb64url(b64url(raw)) == raw == unb64url(b64url(raw).encode())
    assert b64url(raw).encode() == urlsafe_b64encode(raw).rstrip(b"=")


@given(st.text(ALPHABET, max_size=12))
def test_no_two_spellings_decode_to_the_same_bytes(text: str) -> None:
    """A deny list or cache keyed by a token's text could be walked around with the second one."""
    try:
        raw = unb64url(text)
    except MalformedInput:
        assert len(text) % 4 == 1 or b64url(urlsafe_b64decode(text + "=" * (-len(text) % 4))) != text
    else:
        assert b64url(raw) == text


@pytest.mark.parametrize("raw", [b"a", b"ab", b"abcd", b"abcde"])
def test_of_all_last_characters_that_decode_alike_one_is_accepted(raw: bytes) -> None:
    """Lenient decoders take sixteen, or four, last characters for the same bytes."""
    good = b64url(raw)
    accepted = []
    for last in ALPHABET:
        try:
            if unb64url(good[:-1] + last) == raw:
                accepted.append(last)
        except MalformedInput:
            pass
    assert accepted == [good[-1]]


@pytest.mark.parametrize(
    "text",
    [
        "YQ==",
        "YWI=",
        "YQ=",
        "=",
        "YQ\n",
        "\nYQ",
        " YQ",
        "Y Q",
        "YQ\x00",
        "Y+==",
        "Y/8",
        "Y+8",
        "YQ\u00e9",
        "Y",
        "\udcff",
    ],
)
def test_anything_but_the_bare_alphabet_is_refused(text: str) -> None:
    """Padding, white space, the other alphabet, a lonely character."""
    with pytest.raises(MalformedInput):
        unb64url(text)


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8") | st.sampled_from('":\\ ,{}'), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('a":\\ ', max_size=4), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


@given(
    st.dictionaries(st.text('ab":\\', max_size=3), VALUES, max_size=4),
    st.booleans(),
    st.sampled_from([(",", ":"), (", ", ": "), (",", " :"), (" ,\n", "\t:\r\n")]),
)
def test_every_object_without_duplicates_is_read_whatever_stands_in_its_strings(
    value: dict[str, Any], ascii_only: bool, separators: tuple[str, str]
) -> None:
    """A quick test for duplicates must not take the text of a value for a member."""
    raw = json.dumps(value, ensure_ascii=ascii_only, separators=separators).encode()
    assert decode_object(raw) == value


@pytest.mark.parametrize(
    "raw",
    [
        b'{"sub":":"}', b'{":":1}', b'{"scope":":read"}', b'{"a":[":",":"],"b":{":":":"}}', b'{"a":"\\":"}',
        b'{"a" : 1}',
    ],
)  # fmt: skip
def test_a_colon_in_a_string_is_no_member(raw: bytes) -> None:
    """A subject that begins with a colon is a good subject."""
    assert decode_object(raw) == json.loads(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":1,"a":2}', b'{"a":1,"a":1}', b'{"a" :1,"a":2}', b'{"a"\n:1,"a":2}', b'{"a":1,"a"\t:2}',
        b'{"a":1,"\\u0061":2}', b'{"\\u0061":1,"\\u0061":2}', b'{"b":{"a":1,"a":2}}', b'{"b":[[{"a":1,"a":2}]]}',
        b'{"b":{"a":1,"\\u0061" :2}}', b'{"a":":","a":1}', b'{"":1,"":2}', b'{"a":{"x":1},"a":{"x":1,"y":2}}',
        b'{"a":{"b":1,"c":2},"a":3}', b'{"sub":"x\\\\","sub":"y"}',
    ],
)  # fmt: skip
def test_a_member_name_that_stands_twice_is_refused_at_every_depth(raw: bytes) -> None:
    """Two readers would each believe another one (RFC 8725, 2.7)."""
    with pytest.raises(MalformedInput):
        decode_object(raw)


@given(st.lists(st.sampled_from(["a", "b", ":", '"', "\\"]), min_size=1, max_size=6), st.integers(0, 4), st.data())
def test_duplicates_are_found_however_they_are_spelled(names: list[str], wraps: int, data: st.DataObject) -> None:
    """With escapes, with white space, under other members, beside strings that look like members."""
    spelled = []
    for name in names:
        plain = json.dumps(name)
        escaped = '"' + "".join(f"\\u{ord(c):04x}" for c in name) + '"'
        colon = data.draw(st.sampled_from([":", " :", "\n:", ": "]))
        value = data.draw(st.sampled_from(["1", '":"', '"\\":"', "[]", "{}", '{"a":":"}']))
        spelled.append(data.draw(st.sampled_from([plain, escaped])) + colon + value)
    raw = "{" + ",".join(spelled) + "}"
    for _ in range(wraps):
        raw = '{"w":[' + raw + "]}"
    if len(set(names)) == len(names):
        assert decode_object(raw.encode()) == json.loads(raw)
    else:
        with pytest.raises(MalformedInput):
            decode_object(raw.encode())


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"null", b"[]", b'"a"', b"1", b"{", b'{"a":1}x', b'{"a":1}{"b":2}', b"\xef\xbb\xbf{}", b'{"a":NaN}',
        b'{"a":Infinity}', b'{"a":1e999}', b"{'a':1}", b'{"a":1,}', b'{"a":01}', b'{"a":"\xff"}', b'{"\xff":1}',
        b'{"a":"\n"}', b'{"a":"\\ud800"}', b'{"\\ud800":1}', b'{"a":' + b"9" * 6000 + b"}", b'{"a":"\\x41"}',
        b"\x00{}", b"{}\x00", "{}".encode("utf-16"),
    ],
)  # fmt: skip
def test_what_is_not_one_json_object_in_utf8_is_refused(raw: bytes) -> None:
    """Whatever two parsers could read differently."""
    with pytest.raises(MalformedInput):
        decode_object(raw)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
@pytest.mark.parametrize("escaped", [False, True])
def test_deep_nesting_is_refused_and_costs_no_stack(opening: str, closing: str, escaped: bool) -> None:
    """A token of brackets alone must not end the process."""
    note = '"\\u0061":1,' if escaped else ""
    for depth in (17, 3000, 100_000):
        raw = "{" + note + '"b":' + opening * depth + "1" + closing * depth + "}"
        with pytest.raises(MalformedInput):
            decode_object(raw.encode())
    assert decode_object(("{" + note + '"b":' + opening * 10 + "1" + closing * 10 + "}").encode())


def test_the_same_value_always_has_the_same_bytes() -> None:
    """A signature is over bytes."""
    assert (
        encode_json({"b": 1, "a": [1.5, None]}) == encode_json({"a": [1.5, None], "b": 1}) == b'{"a":[1.5,null],"b":1}'
    )
