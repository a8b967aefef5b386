"""What is sealed for one purpose opens for it, beside the same bytes, by any of the keys, and nowhere else."""

from dataclasses import replace

import pytest

from serving.records import RecordKeys
from serving.sealing import Sealer
from tests.building import new_record_keys

KEYS = new_record_keys()


def test_a_box_opens_beside_what_it_was_sealed_beside_and_nowhere_else() -> None:
    """Whoever can move a box must not be able to give it another meaning."""
    sealer = Sealer(KEYS, purpose=b"this")
    box = sealer.seal(b"content", beside=b"here")
    assert b"content" not in box
    assert box != sealer.seal(b"content", beside=b"here")
    assert sealer.open(box, beside=b"here") == b"content"
    assert sealer.open(box, beside=b"there") is None
    assert Sealer(KEYS, purpose=b"that").open(box, beside=b"here") is None
    assert Sealer(new_record_keys(), purpose=b"this").open(box, beside=b"here") is None


@pytest.mark.parametrize("length", [0, 5, 12, 27, 28])
def test_what_is_cut_or_changed_opens_nowhere(length: int) -> None:
    """A forged box is refused like any other; it raises nothing."""
    sealer = Sealer(KEYS, purpose=b"this")
    box = sealer.seal(b"c")
    assert sealer.open(box[:length]) is None
    assert sealer.open(box[:-1] + bytes([box[-1] ^ 1])) is None


def test_keys_are_taken_up_when_they_come_and_older_ones_still_open() -> None:
    """`keyturn records rotate` needs no restart, and what was sealed before it is not lost."""
    newer = replace(new_record_keys(), id="newer", older=(KEYS,))
    told: list[RecordKeys] = []
    sealer = Sealer(KEYS, purpose=b"this", renew=lambda: told.pop() if told else None)
    before = sealer.seal(b"before")
    by_another = Sealer(newer, purpose=b"this").seal(b"after")
    assert sealer.open(by_another) is None
    told.append(newer)
    assert sealer.open(by_another) == b"after"
    assert sealer.open(before) == b"before"
    assert Sealer(replace(newer, older=()), purpose=b"this").open(sealer.seal(b"own")) == b"own"


def test_names_are_of_one_purpose_under_each_key_the_newest_first() -> None:
    """Who writes takes the first, who looks takes all; a name of one purpose finds nothing of another's."""
    newer = replace(new_record_keys(), older=(KEYS,))
    old, new = Sealer(KEYS, purpose=b"this"), Sealer(newer, purpose=b"this")
    assert new.names("p:", b"secret")[1:] == old.names("p:", b"secret")
    assert new.names("p:", b"secret")[0] == Sealer(replace(newer, older=()), purpose=b"this").names("p:", b"secret")[0]
    assert not set(new.names("p:", b"secret")) & set(Sealer(newer, purpose=b"that").names("p:", b"secret"))


def test_who_seals_looks_for_newer_keys_first() -> None:
    """After a rotation nothing new may be written by a key that is about to be thrown away."""
    newer = replace(new_record_keys(), id="newer", older=(KEYS,))
    told = [newer]
    box = Sealer(KEYS, purpose=b"this", renew=lambda: told.pop() if told else None).seal(b"c")
    assert Sealer(replace(newer, older=()), purpose=b"this").open(box) == b"c"
