"""What a revocations snapshot is made of: a manifest that names chunks by their digests, and the chunks."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, NamedTuple, TypeAlias

import msgspec
from msgspec import Meta

from keyturn.contract.encoding import digest
from keyturn.contract.errors import ForgedSignature, MalformedInput, UnknownKind
from keyturn.contract.leaves import HASH_BYTES, MOMENT_BYTES, MOST_IN_A_LEAF, Leaf, unpack_leaf
from keyturn.contract.revocations import LAST_BUCKET, RevocationIndex

LARGEST_CHUNK_BYTES = MOST_IN_A_LEAF * (HASH_BYTES + MOMENT_BYTES)  # 256 KiB
MOST_CHUNKS = 16_384  # Of one kind in a section: at least 130 million revocations, in buckets of 57 days.
MOST_SECTIONS = 64  # Hash keys: one for each epoch whose revocations still matter.

Chunks: TypeAlias = Mapping[str, bytes]  # By digest.
NO_CHUNKS: Chunks = {}


class Chunk(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, array_like=True):
    """One chunk as a manifest names it: a leaf of that many entries of one expiry bucket."""

    digest: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{43}\Z")]
    bucket: Annotated[int, Meta(ge=0, le=LAST_BUCKET)]
    count: Annotated[int, Meta(ge=1, le=MOST_IN_A_LEAF)]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """All revocations that are hashed under one key; `exact` are tokens, grants and sessions."""

    hash_key: Annotated[bytes, Meta(min_length=16, max_length=64)]
    exact: Annotated[tuple[Chunk, ...], Meta(max_length=MOST_CHUNKS)] = ()
    cutoffs: Annotated[tuple[Chunk, ...], Meta(max_length=MOST_CHUNKS)] = ()


Sections: TypeAlias = Annotated[tuple[Section, ...], Meta(min_length=1, max_length=MOST_SECTIONS)]


class Packed(NamedTuple):
    """What a snapshot carries: the sections for its manifest, and the chunks that they name."""

    sections: tuple[Section, ...]
    chunks: Chunks


def pack(indexes: Iterable[RevocationIndex]) -> Packed:
    """Return all that these indexes hold. A bucket in which nothing changed has the chunks that it had."""
    chunks: dict[str, bytes] = {}
    sections = []
    for index in indexes:
        named: dict[bool, list[Chunk]] = {False: [], True: []}
        for cutoffs, of_kind in named.items():
            for bucket, leaf in index.leaves(cutoffs=cutoffs):
                of_kind.append(Chunk(digest=leaf.digest, bucket=bucket, count=len(leaf.names)))
                chunks[leaf.digest] = leaf.packed()
        sections.append(Section(hash_key=index.key, exact=tuple(named[False]), cutoffs=tuple(named[True])))
    return Packed(tuple(sections), chunks)


def unpack_chunk(chunk: Chunk, raw: bytes, *, cutoffs: bool) -> Leaf:
    """Return the leaf that a chunk carries.

    Raises ForgedSignature for bytes that the manifest does not name, and UnknownKind where it names what cannot be
    read: its signer vouches for that, and passing over it could hide a revocation.
    """
    width = HASH_BYTES + (MOMENT_BYTES if cutoffs else 0)
    # The size first: bytes of any other are not worth their digest.
    if len(raw) != chunk.count * width or digest(raw) != chunk.digest:
        raise ForgedSignature("a chunk that its manifest does not name")
    try:
        return unpack_leaf(raw, cutoffs=cutoffs, known_digest=chunk.digest)
    except MalformedInput as error:
        raise UnknownKind(f"a chunk that this version cannot read: {error}") from error


def digests_of(sections: Iterable[Section]) -> list[str]:
    """Name every chunk of these sections once, in order."""
    return list(dict.fromkeys(chunk.digest for section in sections for chunk in (*section.exact, *section.cutoffs)))


def repeats_a_key(sections: Sequence[Section]) -> bool:
    """Say whether two sections have one hash key: what such a snapshot lacks could not be told."""
    return len({section.hash_key for section in sections}) < len(sections)


def unpack(sections: Iterable[Section], chunks: Chunks) -> tuple[RevocationIndex, ...]:
    """Return indexes that hold all that these sections name.

    Raises ForgedSignature for a chunk that is missing or another one, UnknownKind for one that cannot be read.
    """
    indexes = []
    for section in sections:
        index = RevocationIndex(section.hash_key)
        expect(index, section)
        for cutoffs, named in ((False, section.exact), (True, section.cutoffs)):
            for chunk in named:
                leaf = unpack_chunk(chunk, chunks.get(chunk.digest, b""), cutoffs=cutoffs)
                for _ in index.merge(chunk.bucket, leaf, cutoffs=cutoffs, whole=True):
                    pass
        indexes.append(index)
    return tuple(indexes)


def expect(index: RevocationIndex, section: Section) -> None:
    """Make room in an empty index for all that a section names."""
    index.expect(
        exact=sum(chunk.count for chunk in section.exact), cutoffs=sum(chunk.count for chunk in section.cutoffs)
    )
