"""What a snapshot of revocations is made of, and what of it is refused."""

import struct
from collections.abc import Callable, Sequence

import msgspec
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from keyturn.contract.encoding import digest
from keyturn.contract.errors import ForgedSignature, UnknownKind
from keyturn.contract.leaves import MOST_IN_A_LEAF, PARTED_BEYOND
from keyturn.contract.revocations import BUCKET_SECONDS, RevocationIndex
from keyturn.contract.snapshots import LARGEST_CHUNK_BYTES, Chunk, Section, pack, unpack, unpack_chunk

KEY, OTHER_KEY = b"the hash key of tests", b"another key, of another epoch"
NAMES = st.integers(0, 2**64 - 1)
ROWS = st.lists(st.tuples(NAMES, st.none() | st.floats(-1e11, 1e11), st.floats(0, 20 * BUCKET_SECONDS)), max_size=40)


def index_of(rows: Sequence[tuple[int, float | None, float]], key: bytes = KEY) -> RevocationIndex:
    """Return an index of (hash, before, until)."""
    index = RevocationIndex(key)
    for row in rows:
        index.add_hashed(*row)
    return index


def many(count: int, *, until: float = 1000.0, start: int = 0) -> RevocationIndex:
    """Return an index of so many tokens, whose hashes are spread evenly."""
    step = 2**64 // count
    return index_of([(start + number * step, None, until) for number in range(count)])


def chunk_of(raw: bytes, *, count: int, bucket: int = 1) -> Chunk:
    """Return what a manifest says of those bytes."""
    return Chunk(digest=digest(raw), bucket=bucket, count=count)


@given(ROWS, ROWS)
def test_what_was_packed_is_read_again_under_each_key(
    rows: list[tuple[int, float | None, float]], older: list[tuple[int, float | None, float]]
) -> None:
    """A new follower begins there; what it lacked would be accepted."""
    indexes = (index_of(rows), index_of(older, OTHER_KEY))
    packed = pack(indexes)
    read = unpack(packed.sections, packed.chunks)
    event(f"chunks: {len(packed.chunks)}")
    assert [index.key for index in read] == [KEY, OTHER_KEY]
    for index, copy in zip(indexes, read, strict=True):
        assert sorted(index.rows(), key=str) == sorted(copy.rows(), key=str)
        assert len(index) == len(copy)


def test_a_bucket_in_which_nothing_changed_keeps_its_chunks() -> None:
    """So that the next snapshot stores, and a follower that was cut off reads, only what is new."""
    index = many(3 * PARTED_BEYOND)
    first = pack([index])
    index.add_hashed(5, None, 9000.0)
    second = pack([index])
    assert len(first.chunks) >= 3
    assert len(second.chunks.keys() - first.chunks.keys()) == 1
    assert first.chunks.keys() < second.chunks.keys()
    index.add_hashed(6, None, 1000.0)
    assert len(pack([index]).chunks.keys() - second.chunks.keys()) == 1


@pytest.mark.parametrize("order", [1, -1, 7919])
def test_chunks_depend_on_what_is_revoked_and_not_on_when_it_came(order: int) -> None:
    """Two publishers of one lane would else replace each other's chunks in turn."""
    rows = [(number * 0x9E3779B97F4A7C15 % 2**64, None, 1000.0) for number in range(4 * PARTED_BEYOND)]
    shuffled = rows[::order] if abs(order) == 1 else [rows[at * order % len(rows)] for at in range(len(rows))]
    packed = pack([index_of(shuffled)])
    assert packed.chunks.keys() == pack([index_of(rows)]).chunks.keys()
    assert len(packed.chunks) > 2


def test_no_chunk_is_larger_than_its_limit_however_alike_the_hashes_are() -> None:
    """Who may choose names, and knows the hash key, may choose hashes with the same beginning."""
    index = RevocationIndex(KEY)
    for number in range(2 * PARTED_BEYOND + 1):
        index.add_hashed(2**63 + number, float(number), 1000.0)
    packed = pack([index])
    assert len(packed.chunks) > 2
    assert max(map(len, packed.chunks.values())) <= LARGEST_CHUNK_BYTES == 256 * 1024
    (copy,) = unpack(packed.sections, packed.chunks)
    assert list(copy.rows()) == list(index.rows())


def test_the_bytes_are_little_endian_hashes_and_then_moments() -> None:
    """Other languages will read it, too."""
    packed = pack([index_of([(2, 1.5, 100.0), (1, 2.5, 200.0), (7, None, 300.0)])])
    section = packed.sections[0]
    assert packed.chunks[section.cutoffs[0].digest] == struct.pack("<QQdd", 1, 2, 2.5, 1.5)
    assert packed.chunks[section.exact[0].digest] == struct.pack("<Q", 7)
    assert [chunk.bucket for chunk in (*section.exact, *section.cutoffs)] == [1, 1]


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index.add_hashed(7, None, 1000.0), lambda index: index.add_hashed(7, 1.0, 1000.0),
        lambda index: index.add_hashed(3, 9.0, 1000.0), lambda index: index.add_hashed(3, None, 9000.0),
        lambda index: index.add_hashed(3, 1.0, 9000.0), lambda index: index.add_tokens([7, 8], [1000.0, 1000.0]),
        lambda index: index.add_tokens(list(range(10, 10 + PARTED_BEYOND)), [1000.0] * PARTED_BEYOND),
    ],
    ids=["a token", "a cutoff", "a later moment", "a token moves", "a cutoff moves", "tokens", "a leaf parts"],
)  # fmt: skip
def test_a_chunk_is_named_by_its_bytes_whatever_has_become_of_its_leaf(
    change: Callable[[RevocationIndex], None],
) -> None:
    """A digest from before would be signed all the same, and no new follower could start from that snapshot."""
    index = index_of([(number, before, 1000.0) for number in range(1, 6) for before in (None, 1.0)])
    before = pack([index])
    change(index)
    after = pack([index])
    assert after.chunks.keys() != before.chunks.keys()
    assert all(digest(raw) == name for name, raw in after.chunks.items())


def test_a_hash_in_two_chunks_of_a_bucket_is_held_once() -> None:
    """Its signer vouches for both: held twice, it would be counted twice, and one of the two never be forgotten."""
    raws = [struct.pack("<QQ", 1, 2), struct.pack("<QQ", 2, 3)]
    section = Section(hash_key=KEY, exact=tuple(chunk_of(raw, count=2) for raw in raws))
    (index,) = unpack([section], {digest(raw): raw for raw in raws})
    assert sorted(name for name, _, _ in index.rows()) == [1, 2, 3]
    assert len(index) == 3


def test_bytes_that_the_manifest_does_not_name_are_refused() -> None:
    """The store is in anybody's hands; only the manifest is signed."""
    raw = struct.pack("<QQ", 1, 2)
    chunk = chunk_of(raw, count=2)
    assert list(unpack_chunk(chunk, raw, cutoffs=False).names) == [1, 2]
    for spoilt in (raw[:-8], raw + bytes(8), raw[::-1], bytes(16), b""):
        with pytest.raises(ForgedSignature):
            unpack_chunk(chunk, spoilt, cutoffs=False)


def test_a_chunk_of_another_count_than_the_manifest_tells_is_refused() -> None:
    """Its size is known before a single byte is read."""
    raw = struct.pack("<QQ", 1, 2)
    for count in (1, 3):
        with pytest.raises(ForgedSignature):
            unpack_chunk(chunk_of(raw, count=count), raw, cutoffs=False)


@pytest.mark.parametrize(
    ("raw", "count", "cutoffs"),
    [
        (struct.pack("<QQ", 2, 1), 2, False),
        (struct.pack("<QQ", 1, 1), 2, False),
        (struct.pack("<Qd", 1, float("nan")), 1, True),
        (struct.pack("<Qd", 1, float("inf")), 1, True),
    ],
)
def test_a_named_chunk_that_cannot_be_read_expires_its_reader(raw: bytes, count: int, cutoffs: bool) -> None:
    """Its signer vouches for it: what it says may be a revocation, and a search would not find it."""
    with pytest.raises(UnknownKind):
        unpack_chunk(chunk_of(raw, count=count), raw, cutoffs=cutoffs)


def test_a_missing_chunk_is_no_empty_one() -> None:
    """Withholding one must not take its revocations back."""
    packed = pack([many(10)])
    with pytest.raises(ForgedSignature):
        unpack(packed.sections, {})


@pytest.mark.parametrize(
    "row",
    [
        ["x" * 42, 1, 1], ["x" * 44, 1, 1], ["x" * 42 + "=", 1, 1], ["x" * 43 + "\n", 1, 1], ["x" * 43, -1, 1],
        ["x" * 43, 2**41, 1], ["x" * 43, 1, 0], ["x" * 43, 1, MOST_IN_A_LEAF + 1], ["x" * 43, 1, 1, 1], ["x" * 43, 1],
    ],
)  # fmt: skip
def test_a_manifest_says_nothing_beyond_its_limits(row: list[object]) -> None:
    """A digest becomes a name in the store, a count an allocation."""
    msgspec.convert({"hash_key": "A" * 24, "exact": [["x" * 43, 1, 1]]}, Section)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"hash_key": "A" * 24, "exact": [row]}, Section)
