"""Status lists as draft-ietf-oauth-status-list-21 has them, held against its vectors and a decoder of our own."""

import base64
from itertools import pairwise

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from keyturn.contract.errors import MalformedInput
from keyturn.contract.selectors import names_of
from keyturn.contract.statuslists import (
    BITS,
    SIZE,
    ListedToken,
    Shuffle,
    StatusList,
    list_claims,
    list_uri,
    listed_names,
    reference,
)
from tests.contract.statusdecoder import Unacceptable, status_in, status_of, unpacked

ISSUER = "https://issuer.example"
# Section 4.1: two bytes, B9 A3.
SMALL = [1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1]
# Appendix C.1: 2^20 entries of one bit, of which these are set; the DEFLATE stream in hexadecimal.
LARGE = (0, 1993, 25460, 159495, 495669, 554353, 645645, 723232, 854545, 934534, 1000345)
LARGE_HEX = """
78daeddc010dc0200c0041a88249400ad2903e0f4bba00bd93f002beb7a2a2010000a91e09000000000000000000000000000000807296
04000000000000000000000000000000000000000000000000000000000000000000000000000000005c6f4800000000000000fc2c2400
00000000000000000000be1b12000000000000000000ecaa4b000000000000000000000000000000009b0b0900000000000000000038de
9400000000000000002a30cc010000000080642f0bd8011b
"""


def encoded(indices: list[int], size: int) -> str:
    """Return the list in which these are revoked."""
    statuses = StatusList(size)
    for index in indices:
        statuses.set(index)
    return statuses.encoded()


def test_the_drafts_small_example_is_encoded_byte_for_byte() -> None:
    """Sections 4.1 and 4.2: least significant bit first, ZLIB, base64url."""
    assert encoded([index for index, status in enumerate(SMALL) if status], 16) == "eNrbuRgAAhcBXQ"


def test_the_drafts_large_vector_decodes_alike() -> None:
    """Appendix C.1; compressors differ in their choices, so that what is unpacked is compared."""
    theirs = base64.urlsafe_b64encode(bytes.fromhex(LARGE_HEX.replace("\n", ""))).decode().rstrip("=")
    assert unpacked(encoded(list(LARGE), 2**20)) == unpacked(theirs)
    assert all(status_of({"bits": 1, "lst": theirs}, index) == (index in LARGE) for index in (0, 1, 7, 1993, 1000345))


@given(st.sets(st.integers(0, 127)))
@example(set())
@example(set(range(128)))
def test_a_decoder_of_another_maker_reads_what_was_set(revoked: set[int]) -> None:
    """Section 8.3, step 6, at every index."""
    claim = {"bits": BITS, "lst": encoded(sorted(revoked), 128)}
    assert {index for index in range(128) if status_of(claim, index)} == revoked


@given(st.sets(st.integers(0, 255), max_size=30), st.integers(0, 255))
def test_what_is_set_stays_set_and_counts_once(revoked: set[int], again: int) -> None:
    """The version says when a list has to be signed anew: with each bit that changed, and only then."""
    statuses = StatusList(256)
    for index in (*revoked, *revoked):
        statuses.set(index)
    assert statuses.version == len(revoked)
    statuses.set(again)
    assert statuses.version == len(revoked | {again})
    assert {index for index in range(256) if statuses.is_set(index)} == revoked | {again}


@pytest.mark.parametrize("index", [-1, SIZE, SIZE + 7])
def test_an_index_out_of_range_is_refused(index: int) -> None:
    """Checklist: a bit of another token must not be taken for this one's (section 8.3, step 6)."""
    statuses = StatusList()
    with pytest.raises(MalformedInput):
        statuses.set(index)
    with pytest.raises(MalformedInput):
        statuses.is_set(index)
    with pytest.raises(MalformedInput):
        Shuffle(b"seed").index(index)
    with pytest.raises(Unacceptable):
        status_of({"bits": 1, "lst": statuses.encoded()}, index)


def test_a_list_has_whole_bytes() -> None:
    """Section 13.4."""
    for size in (0, -8, 12):
        with pytest.raises(ValueError, match="whole bytes"):
            StatusList(size)


@settings(max_examples=20)
@given(st.binary(min_size=16, max_size=16))
def test_each_index_is_given_once_whatever_the_seed(seed: bytes) -> None:
    """Section 13.3: no index may be given to two tokens. A network of this form loses none, and these show it."""
    shuffle = Shuffle(seed)
    turns = [*range(512), *range(SIZE - 512, SIZE)]
    indices = {shuffle.index(turn) for turn in turns}
    assert len(indices) == len(turns)
    assert all(0 <= index < SIZE for index in indices)


def test_the_whole_of_a_list_is_given_away() -> None:
    """Every index of one list, once."""
    shuffle = Shuffle(b"one")
    assert len({shuffle.index(turn) for turn in range(SIZE)}) == SIZE


def test_the_order_of_issue_is_not_to_be_seen_in_the_indices() -> None:
    """Section 12.5.1: neighbours in time are not neighbours in the list, and each seed has an order of its own."""
    first, second = ([shuffle.index(turn) for turn in range(4096)] for shuffle in (Shuffle(b"1st"), Shuffle(b"2nd")))
    steps = [abs(after - before) for before, after in pairwise(first)]
    assert SIZE / 4 < sum(steps) / len(steps) < SIZE / 2  # A third of the list, if it is random.
    assert sum(after > before for before, after in pairwise(first)) in range(1800, 2300)
    assert len(set(first) & set(second)) < 4096 / 16  # By chance 64.


def test_the_claims_are_those_of_the_draft() -> None:
    """Section 5.1: `sub` is the `uri` of the tokens, `exp` and `ttl` bind, `aggregation_uri` leads to all lists."""
    statuses = StatusList()
    statuses.set(7)
    uri = list_uri(ISSUER, "abc")
    claims = list_claims(
        statuses.encoded(), uri=uri, now=1000.9, life_seconds=60.0, ttl_seconds=5.0, aggregation=f"{ISSUER}/statuslists"
    )
    assert claims.keys() == {"sub", "exp", "ttl", "status_list"}
    assert (claims["sub"], claims["exp"], claims["ttl"]) == ("https://issuer.example/statuslists/abc", 1060, 5)
    assert claims["status_list"].keys() == {"bits", "lst", "aggregation_uri"}
    header = {"typ": "statuslist+jwt"}
    signed = {**claims, "iat": 1000}
    for index, status in ((6, 0), (7, 1), (8, 0)):
        token = {"status": reference(ISSUER, "abc", index)}
        assert status_in(token, header, signed, 1059.0) == status
        for broken in (({**token}, header, signed, 1060.0), (token, {"typ": "JWT"}, signed, 1001.0)):
            with pytest.raises(Unacceptable):
                status_in(*broken)
    with pytest.raises(Unacceptable):
        status_in({"status": reference(ISSUER, "other", 7)}, header, signed, 1001.0)


@given(
    st.lists(st.sampled_from(["https://a.example", "urn:b", "c"]), min_size=1, max_size=3),
    st.sampled_from([None, "s1"]),
)
def test_a_listed_token_has_every_name_of_the_token(audience: list[str], sid: str | None) -> None:
    """Else a selector would revoke the token at every verifier and not in the list."""
    claims = {
        "iss": ISSUER, "exp": 2000, "jti": "j", "grant_id": "01890a5d-ac96-774b-bcce-b302099a8057", "sub": "alice",
        "client_id": "shop", "aud": audience[0] if len(audience) == 1 else audience, "scope": "read",
    }  # fmt: skip
    if sid is not None:
        claims["sid"] = sid
    listed = ListedToken.of(claims, 5).claims(ISSUER)
    assert names_of(listed, key=b"k" * 16) == names_of(claims, key=b"k" * 16)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["01890a5d-ac96-774b-bcce-b302099a8057", "018bcfe5-687b-7f0f-8e01-0123456789ab", "none"]),
            st.text(max_size=3), st.none() | st.text(max_size=2), st.lists(st.sampled_from("abc"), max_size=3),
        ),
        max_size=5,
    ),
    st.sampled_from([b"k" * 16, b"other"]),
)  # fmt: skip
def test_many_listed_tokens_have_the_names_that_each_has(
    drawn: list[tuple[str, str, str | None, list[str]]], key: bytes
) -> None:
    """A list shows what verifiers say: by the same names, though they are worked out together."""
    tokens = [
        ListedToken(
            index=index, exp=2000.0, jti=f"jti-{name}", grant_id=grant_id, sub=name, client_id=name, aud=tuple(aud),
            sid=sid,
        )
        for index, (grant_id, name, sid, aud) in enumerate(drawn)
    ]  # fmt: skip
    each = [names_of(token.claims(ISSUER), key=key) for token in tokens]
    assert listed_names(tokens, ISSUER, key=key) == each
    event("without a moment" if any(names.whole_seconds for names in each) else "each has its moment")
    event("some with sid" if len({token.sid is None for token in tokens}) > 1 else "all alike")
