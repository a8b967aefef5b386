"""Every attack that is tried: what he does, and what an operator is told of it."""

from typing import NamedTuple

from keyturn.contract.positions import Lane
from tests.faults import attacks_on_the_feed as feed
from tests.faults import attacks_on_the_store as store
from tests.faults.intruder import other_role, role, stranger
from tests.faults.withstanding import Attack

REFUSED, LOST, BEHIND = "statement_refused", "feed_lost", "cannot_catch_up"


class Row(NamedTuple):
    """An attack in the table."""

    does: str
    attack: Attack
    notices: tuple[str, ...]  # Log events, each by somebody.


ATTACKS = (
    Row("forges a revocation by a key of his own", feed.forged_revocation(stranger), (REFUSED,)),
    Row("forges a revocation by the stolen key of the other role", feed.forged_revocation(other_role), (REFUSED,)),
    Row("carries a truly signed revocation into the other lane", feed.forged_revocation(
        lambda fleet, _lane: role(fleet, Lane.REVOCATIONS), of=Lane.KEYS), (REFUSED,)),
    Row("forges a signing key by a key of his own", feed.forged_key(stranger), (REFUSED,)),
    Row("forges a signing key by the stolen key of the other role", feed.forged_key(other_role), (REFUSED,)),
    Row("signs heads for the present position by a key of his own", feed.forged_head, (REFUSED,)),
    Row("names the position 9:9:x", feed.far_position, (BEHIND,)),
    Row("names a position that is none", feed.no_position, (REFUSED,)),
    Row("dates the heads 4.9 s ahead in another beater's name", feed.other_beater, ("replica_state",)),
    Row("rings with the events of long ago, newest first", feed.replayed_events, ()),
    Row("puts everything back as it was before a revocation", feed.yesterday, ()),
    Row("swaps the two newest events of the stream", feed.reordered, ()),
    Row("deletes every event", feed.truncated, ()),
    Row("puts the first snapshot back, and deletes every event", feed.first_snapshot, ()),
    Row("swaps heads, snapshots and streams of the lanes", feed.swapped_lanes, (REFUSED,)),
    Row("deletes the whole feed", feed.emptied, ()),
    Row("puts another type in the place of each key", store.wrong_types, (LOST,)),
    Row("puts 9 MiB in the place of each statement", store.huge_values, (REFUSED,)),
    Row("fills the memory", store.full, ()),
    Row("locks a sidecar out", store.locked_out("sidecar-2"), (LOST,)),
    Row("takes the doorbell from the sidecars", store.deaf, (LOST,)),
    Row("locks the publisher of revocations out", store.locked_out("revocation"), (LOST,)),
    Row("writes a client into the trust document", store.edited_trust, ("trust_refused",)),
    Row("swaps and edits the sealed records of tokens", store.edited_records, ("record_unreadable",)),
    Row("puts sealed private keys under each other's names", store.swapped_keys, ()),
    Row("rings 20,000 times with nothing", store.flood, (REFUSED,)),  # The last: it is heard for long.
)  # fmt: skip
