"""A snapshot on its way into a replica: what of it is missing, what was checked, and the merging in bounded steps."""

from collections.abc import Iterator

from keyturn.contract.errors import ForgedSignature
from keyturn.contract.events import RevocationsSnapshot, SignedSnapshot
from keyturn.contract.leaves import Leaf
from keyturn.contract.positions import Lane
from keyturn.contract.revocations import RevocationIndex, has_ended
from keyturn.contract.snapshots import Chunk, Section, expect, unpack_chunk
from keyturn.contract.trust import Trust


class Loading:
    """A snapshot that the lane's role signed and that leads forward; pure.

    Revocations under a hash key that the replica holds are merged into its own index, so that only chunks are asked
    for that are not there already; others become an index of their own. What is merged counts before the snapshot is
    adopted: its signer revoked it.
    """

    def __init__(self, signed: SignedSnapshot, trust: Trust, held: tuple[RevocationIndex, ...]) -> None:
        self.signed, self.trust = signed, trust
        self.lane: Lane = signed.snapshot.lane
        self.indexes: tuple[RevocationIndex, ...] = ()
        self._leaves: dict[tuple[str, bool], Leaf] = {}  # Those that were checked.
        self._wanted: dict[str, list[tuple[Chunk, bool]]] = {}
        self._sections: tuple[Section, ...] = ()
        self._known_later = False
        if isinstance(signed.snapshot, RevocationsSnapshot):
            known = {index.key: index for index in reversed(held)}
            self._sections = signed.snapshot.sections
            self.indexes = tuple(known.get(section.hash_key) or _empty(section) for section in self._sections)
            for section, index in zip(self._sections, self.indexes, strict=True):
                self._want(section, index)

    @property
    def missing(self) -> list[str]:
        """Name the chunks that are still to be read."""
        return list(self._wanted)

    def take(self, digest: str, raw: bytes) -> None:
        """Check a chunk and keep it; one that is not missing is passed over.

        Raises ForgedSignature if it is another than the manifest names, UnknownKind if it cannot be read.
        """
        for chunk, cutoffs in self._wanted.get(digest, ()):
            self._leaves[digest, cutoffs] = unpack_chunk(chunk, raw, cutoffs=cutoffs)
        self._wanted.pop(digest, None)

    def steps(self) -> Iterator[None]:
        """Merge what was taken, a bounded step at a time; raises ForgedSignature if a chunk is missing."""
        if self._wanted:
            raise ForgedSignature(f"{len(self._wanted)} chunks of the snapshot are missing")
        for section, index in zip(self._sections, self.indexes, strict=True):
            whole = not len(index)
            for cutoffs, named in ((False, section.exact), (True, section.cutoffs)):
                for chunk in named:
                    leaf = self._leaves.pop((chunk.digest, cutoffs), None)
                    if leaf is None:
                        continue
                    for later in index.merge(chunk.bucket, leaf, cutoffs=cutoffs, whole=whole):
                        self._known_later |= later
                        yield

    def lacks(self, moment: float) -> bool:
        """Forget what has ended, and say whether an index of ours holds more than the snapshot under the same key.

        To be asked after the last step.
        """
        more = self._known_later
        for section, index in zip(self._sections, self.indexes, strict=True):
            index.prune(moment)
            named = (*section.exact, *section.cutoffs)
            more |= len(index) > sum(chunk.count for chunk in named if not has_ended(chunk.bucket, moment))
        return more

    def _want(self, section: Section, index: RevocationIndex) -> None:
        for cutoffs, named in ((False, section.exact), (True, section.cutoffs)):
            held = {(bucket, leaf.digest) for bucket, leaf in index.leaves(cutoffs=cutoffs)} if named else set()
            for chunk in named:
                if (chunk.bucket, chunk.digest) not in held:
                    self._wanted.setdefault(chunk.digest, []).append((chunk, cutoffs))


def _empty(section: Section) -> RevocationIndex:
    index = RevocationIndex(section.hash_key)
    expect(index, section)
    return index
