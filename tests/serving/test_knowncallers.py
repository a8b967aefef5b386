"""Credentials that held are known again by a keyed hash, until the trust document changes."""

from keyturn.contract.trust import Client
from serving.knowncallers import MOST_KNOWN, KnownCallers
from tests.building import CLIENT, CLIENTS, RESOURCE
from tests.world import World


def test_who_was_known_is_known_by_the_same_bytes_only() -> None:
    """A cache must not let in who is almost right."""
    trust = World().trust()
    known: KnownCallers[Client] = KnownCallers()
    assert known.get(b"one", trust) is None
    known.keep(b"one", trust, CLIENTS[CLIENT])
    assert known.get(b"one", trust) is CLIENTS[CLIENT]
    assert known.get(b"one ", trust) is None


def test_a_new_trust_document_forgets_everybody() -> None:
    """Its client may be gone, or have another secret; and a slow look-up under the old one must not bring it back."""
    world = World()
    known: KnownCallers[Client] = KnownCallers()
    old, new = world.trust(), world.trust(version=2)
    assert known.get(b"one", old) is None
    known.keep(b"one", old, CLIENTS[CLIENT])
    assert known.get(b"one", new) is None
    known.keep(b"one", old, CLIENTS[CLIENT])
    assert known.get(b"one", new) is None
    assert len(known) == 0


def test_nothing_presented_is_kept_and_no_two_processes_keep_the_same() -> None:
    """A dump of the memory's tables must give no secret, nor a hash that can be compared with another's."""
    trust = World().trust()
    tables = []
    for _ in range(2):
        known: KnownCallers[Client] = KnownCallers()
        known.get(b"secret", trust)
        known.keep(b"secret", trust, CLIENTS[RESOURCE])
        tables.append(set(known._known))
    assert all(b"secret" not in name for table in tables for name in table)
    assert not tables[0] & tables[1]


def test_the_table_is_bounded() -> None:
    """The oldest makes way."""
    trust = World().trust()
    known: KnownCallers[Client] = KnownCallers()
    known.get(b"0", trust)
    for number in range(MOST_KNOWN + 1):
        known.keep(str(number).encode(), trust, CLIENTS[CLIENT])
    assert len(known) == MOST_KNOWN
    assert known.get(b"0", trust) is None
    assert known.get(str(MOST_KNOWN).encode(), trust) is not None
