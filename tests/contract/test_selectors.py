"""What a revocation names, how it is read, and when it may be forgotten."""

from collections.abc import Callable
from hashlib import blake2b
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn import entropy
from keyturn.contract.errors import InvalidSelector
from keyturn.contract.revocations import RevocationIndex
from keyturn.contract.selectors import (
    LONGEST_VALUE,
    Entry,
    Selector,
    SelectorKind,
    grant_moment,
    hashed,
    hashed_all,
    names_of,
    parse_selector,
)

ISSUER, NOW, KEY = "https://issuer.example", 1_800_000_000.0, b"the hash key of tests"


def parsed(members: dict[str, Any]) -> Selector:
    """Return the selector that an operator's JSON means."""
    return parse_selector(members, issuer=ISSUER, now=NOW, skew_seconds=2.0)


@pytest.mark.parametrize("member", ["jti", "grant_id", "sid"])
def test_a_token_grant_or_session_is_named_for_good(member: str) -> None:
    """Without a moment."""
    assert parsed({member: "x"}) == Selector(iss=ISSUER, kind=SelectorKind(member), value="x")
    assert parsed({member: "x", "iss": "https://other.example"}).iss == "https://other.example"


@pytest.mark.parametrize("member", ["sub", "client_id", "aud"])
def test_a_party_is_named_up_to_a_moment_which_defaults_to_now(member: str) -> None:
    """Seconds with decimals."""
    assert parsed({member: "x"}).before == NOW
    assert parsed({member: "x", "before": NOW - 0.25}).before == NOW - 0.25
    assert parsed({member: "x", "before": 1}).before == 1.0


def test_everything_is_named_only_on_purpose() -> None:
    """An empty selector, which a typing error makes, must not log everybody out."""
    assert parsed({"before": NOW}) == Selector(iss=ISSUER, kind=SelectorKind.ALL, before=NOW)
    for members in ({}, {"iss": ISSUER}, {"all": "x"}, {"all": ""}):
        with pytest.raises(InvalidSelector):
            parsed(members)


@pytest.mark.parametrize(
    "members",
    [
        {"jti": "a", "sub": "b"}, {"sub": "a", "client_id": "b", "before": NOW}, {"jti": "a", "before": NOW},
        {"jti": ""},
        {"jti": None}, {"jti": 7}, {"jti": ["a"]}, {"sub": "x" * (LONGEST_VALUE + 1)}, {"sub": "a", "device": "b"},
        {"sub": "a", "iss": ""}, {"sub": "a", "iss": None}, {"sub": "a", "before": None}, {"sub": "a", "before": "now"},
        {"sub": "a", "before": True}, {"sub": "a", "before": 0}, {"sub": "a", "before": -1},
        {"sub": "a", "before": 1e11}, {"sub": "a", "before": NOW * 1000}, {"sub": "a", "before": NOW + 2.01},
        {"sub": "a", "before": 10**400}, {"before": NOW + 60}, {"kind": "jti", "value": "a"},
    ],
    ids=str,
)  # fmt: skip
def test_what_names_nothing_too_much_something_unknown_or_the_future_is_refused(members: dict[str, Any]) -> None:
    """A revocation that does something else than it seems to is worse than an error."""
    with pytest.raises(InvalidSelector):
        parsed(members)


def test_a_cutoff_may_lie_as_far_ahead_as_clocks_may_differ() -> None:
    """And no farther: grants made until then would be dead at birth."""
    assert parsed({"sub": "a", "before": NOW + 2}).before == NOW + 2


def test_names_of_different_kinds_issuers_and_keys_have_different_hashes() -> None:
    """A subject called like a client must not be revoked with it."""
    made = {hashed(key, kind, iss, value) for key in (KEY, b"other") for kind in SelectorKind
            for iss in (ISSUER, "https://other.example") for value in ("a", "b", "")}  # fmt: skip
    assert len(made) == 2 * len(SelectorKind) * 2 * 3


def test_no_name_of_one_issuer_is_a_name_of_another() -> None:
    """Users choose some of their names: run together, `/tenant` and `alice` would be the subject of two issuers."""
    together = [(ISSUER, "/tenant/alice"), (f"{ISSUER}/tenant", "/alice"), (f"{ISSUER}/tenant/alice", "")]
    assert len({hashed(KEY, SelectorKind.SUBJECT, iss, value) for iss, value in together}) == 3
    selectors = [Selector(iss=iss, kind=SelectorKind.SUBJECT, value=value) for iss, value in together]
    assert len(set(hashed_all(KEY, selectors))) == 3


def test_a_name_of_the_greatest_length_is_one() -> None:
    """RFC 7519, 4.1.2 sets no limit to a `sub`; ours is told in the reference, and reached by those who use it."""
    assert parsed({"sub": "x" * LONGEST_VALUE}).value == "x" * LONGEST_VALUE


def test_text_that_is_no_unicode_can_be_hashed() -> None:
    """A lonely surrogate in a foreign token must not raise."""
    assert hashed(KEY, SelectorKind.SUBJECT, ISSUER, "\ud800") != hashed(KEY, SelectorKind.SUBJECT, ISSUER, "\ud801")


TEXTS = st.text(max_size=3) | st.sampled_from(["a", "\ud800", "\0", "a\0b"])
CLAIMS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("iss", "jti", "grant_id", "sid", "sub", "client_id"), TEXTS | st.none() | st.integers()),
        "aud": TEXTS | st.lists(TEXTS | st.integers(), max_size=3) | st.none(), "iat": st.integers(0, 9),
    },
)  # fmt: skip


@given(CLAIMS, st.sampled_from([KEY, b"other"]))
def test_the_names_of_a_token_are_the_hashes_of_its_claims(claims: dict[str, Any], key: bytes) -> None:
    """Snapshots and other versions hold these hashes: they are BLAKE2b of kind, issuer and value, whatever is kept."""

    def plainly(kind: str, value: str) -> int:
        text = "\0".join((kind, str(claims.get("iss", "")), value)).encode("utf-8", "surrogatepass")
        return int.from_bytes(blake2b(text, digest_size=8, key=key).digest(), "big")

    audience = claims.get("aud")
    parties = [*((kind, claims.get(kind)) for kind in ("sub", "client_id"))]
    parties += [("aud", one) for one in ([audience] if isinstance(audience, str) else audience or ())]
    exact = [(kind, claims.get(kind)) for kind in ("jti", "grant_id", "sid")]
    for _ in range(2):  # The second time from what is kept.
        names = names_of(claims, key=key)
        assert names.exact == tuple(plainly(kind, value) for kind, value in exact if isinstance(value, str))
        assert names.cutoffs[0] == plainly("all", "")
        assert names.cutoffs[1:] == tuple(plainly(kind, value) for kind, value in parties if isinstance(value, str))


def uuid_of(number: int, version: int, variant: int) -> UUID:
    """Return a UUID with that version and variant in its bits."""
    return UUID(int=number & ~(15 << 76 | 3 << 62) | version << 76 | variant << 62)


@given(
    st.builds(uuid_of, st.integers(0, 2**128 - 1), st.sampled_from([4, 7, 7]), st.sampled_from([1, 2, 2, 3])),
    st.sampled_from([str, lambda uuid: str(uuid).upper(), lambda uuid: uuid.hex, lambda uuid: f"{{{uuid}}}",
                     lambda uuid: uuid.urn, lambda uuid: f"{uuid}\n", lambda uuid: str(uuid)[:-1] + "\u0663",
                     lambda uuid: str(uuid).replace("0", "_")]),
)  # fmt: skip
def test_a_grants_moment_is_what_its_uuid_says(uuid: UUID, spelled: Callable[[UUID], str]) -> None:
    """However it is spelled, and where it is none (RFC 9562, 5.7): the short way agrees with the library's reading."""
    text = spelled(uuid)
    try:
        read = UUID(text)
    except ValueError:
        assert grant_moment(text) is None
        return
    assert grant_moment(text) == ((read.int >> 80) / 1000 if read.version == 7 else None)


@given(st.floats(0, 2**38, allow_nan=False))
def test_a_grants_moment_is_its_millisecond_rounded_down(moment: float) -> None:
    """Never later than the sign-in, so that a cutoff catches what it should."""
    told = grant_moment(entropy.uuid7(moment))
    assert told is not None
    assert told <= moment + 1e-4
    assert moment - told < 0.0011


@pytest.mark.parametrize(
    "grant_id",
    [None, 7, "", "x", "018bcfe5-687b-4f0f-8e01-0123456789ab", "018bcfe5-687b-7f0f-0e01-0123456789ab", ["a"]],
)
def test_what_is_no_version_7_uuid_tells_no_moment(grant_id: object) -> None:
    """Then the whole-second `iat` counts, and fails closed."""
    assert grant_moment(grant_id) is None
    names = names_of({"iss": ISSUER, "iat": 5, "grant_id": grant_id}, key=KEY)
    assert (names.granted_at, names.whole_seconds) == (5.0, True)


def test_a_token_without_any_moment_is_older_than_every_cutoff() -> None:
    """Nothing known means nothing spared."""
    for iat in (None, "5", [5]):
        assert names_of({"iss": ISSUER, "iat": iat}, key=KEY).granted_at == 0.0


def entry(value: str, *, until: float, before: float | None = None) -> Entry:
    """Return a revocation of a token, or of a subject up to a moment."""
    kind = SelectorKind.JTI if before is None else SelectorKind.SUBJECT
    return Entry(selector=Selector(iss=ISSUER, kind=kind, value=value, before=before), until=until)


def revokes(index: RevocationIndex, value: str, granted_at: float = 0.0) -> bool:
    """Say whether the index names a token, or a subject's grant."""
    claims = {"iss": ISSUER, "jti": value, "sub": value, "grant_id": entropy.uuid7(granted_at)}
    return index.revokes(names_of(claims, key=index.key))


def test_of_two_cutoffs_the_later_counts_in_either_order() -> None:
    """Also where the later one runs out first."""
    for first, second in ((10.0, 20.0), (20.0, 10.0)):
        index = RevocationIndex(KEY)
        index.add(entry("alice", before=first, until=5000 - first))
        index.add(entry("alice", before=second, until=5000 - second))
        assert revokes(index, "alice", 19.9)
        assert not revokes(index, "alice", 20.1)
        assert len(index) == 1
        index.prune(4979)
        assert revokes(index, "alice", 19.9)


ENTRIES = st.lists(
    st.tuples(st.integers(0, 5), st.floats(0, 3000), st.none() | st.floats(0, 3000)), min_size=1, max_size=30
)


@given(ENTRIES, st.lists(st.floats(0, 4000), max_size=6))
def test_nothing_is_forgotten_before_its_time_and_all_of_it_some_time_after(
    entries: list[tuple[int, float, float | None]], moments: list[float]
) -> None:
    """Buckets are dropped whole: never early, and at most one bucket late."""
    index, forgotten = RevocationIndex(KEY), 0
    for number, until, before in entries:
        index.add(entry(f"n{number}", until=until, before=before))
    held = len(index)
    for now in sorted(moments):
        forgotten += index.prune(now)
        for number, until, before in entries:
            if until > now:
                assert revokes(index, f"n{number}", 0.0) or before == 0
    assert len(index) == held - forgotten
    assert len(list(index.rows())) == len(index)
    index.prune(3000 + 301)
    assert len(index) == 0
    assert not any(revokes(index, f"n{number}") for number in range(6))


@given(ENTRIES, ENTRIES)
def test_rows_carry_everything_into_another_index(
    entries: list[tuple[int, float, float | None]], more: list[tuple[int, float, float | None]]
) -> None:
    """A snapshot is as good as the events."""
    index, copy = RevocationIndex(KEY), RevocationIndex(KEY)
    for number, until, before in entries:
        index.add(entry(f"n{number}", until=until, before=before))
    for row in index.rows():
        copy.add_hashed(*row)
    for number, until, before in more:
        for one in (index, copy):
            one.add(entry(f"n{number}", until=until, before=before))
    assert sorted(index.rows(), key=str) == sorted(copy.rows(), key=str)
