"""What publishers refuse of a server, and what its settings promise of an acknowledged write."""

import pytest

from keyturn.contract.errors import ConfigurationError
from keyturn.feed.assurance import Durability
from keyturn.process.redis import ServerFacts
from keyturn.process.soundness import require_sound, usual_durability

MEMORY, LOCAL, REPLICATED = Durability


def test_a_server_that_forgets_is_refused() -> None:
    """What it acknowledged must be there after a crash; what it does not tell is not held against it."""
    weak = ServerFacts(maxmemory_policy="noeviction", append_only=True, append_fsync="everysec", replicas=2)
    require_sound(ServerFacts(), durable=True)
    require_sound(weak, durable=False)
    require_sound(ServerFacts(append_only=True, append_fsync="always", replicas=0), durable=True)
    for facts, durable, mend in (
        (ServerFacts(maxmemory_policy="allkeys-lru"), False, "maxmemory-policy noeviction"),
        (ServerFacts(append_only=False), True, "appendonly yes"),
        (ServerFacts(append_fsync="everysec"), True, "appendfsync always"),
        (ServerFacts(replicas=1), True, "number of replicas 0"),
    ):
        with pytest.raises(ConfigurationError, match=mend):
            require_sound(facts, durable=durable)


@pytest.mark.parametrize(
    ("facts", "durability"),
    [
        (ServerFacts(append_only=True, append_fsync="always", role="master", replicas=0), LOCAL),
        (ServerFacts(append_only=True, append_fsync="always", role="master", replicas=2), LOCAL),
        (ServerFacts(append_only=True, append_fsync="everysec", role="master", replicas=2), MEMORY),
        (ServerFacts(append_only=False, append_fsync="always", role="master", replicas=0), MEMORY),
        (ServerFacts(append_fsync="always"), MEMORY),
        (ServerFacts(), MEMORY),
    ],
)
def test_durability_is_never_said_better_than_the_server_keeps_it(facts: ServerFacts, durability: Durability) -> None:
    """`everysec` lost 62 acknowledged appends; that a replica is connected says nothing of a single event."""
    assert usual_durability(facts) is durability


@pytest.mark.parametrize(
    ("facts", "required", "mend"),
    [
        (ServerFacts(cluster=True), MEMORY, "outside it"),
        (ServerFacts(append_only=False, version="9.1.2"), LOCAL, "appendonly yes"),
        (ServerFacts(append_only=True, append_fsync="everysec", version="7.0.15"), LOCAL, "appendfsync always"),
        (ServerFacts(min_replicas_to_write=0, replicas=2), REPLICATED, "min-replicas-to-write 1"),
    ],
)
def test_a_server_that_cannot_keep_what_is_required_is_refused(
    facts: ServerFacts, required: Durability, mend: str
) -> None:
    """At start, naming the mend: not as a 503 for each order."""
    with pytest.raises(ConfigurationError, match=mend):
        require_sound(facts, durable=False, required=required)


@pytest.mark.parametrize(
    ("facts", "required"),
    [
        (ServerFacts(append_only=True, append_fsync="everysec", version="7.2.1"), LOCAL),
        (ServerFacts(append_only=True, append_fsync="always", version="7.0.15"), LOCAL),
        (ServerFacts(min_replicas_to_write=1, replicas=0), REPLICATED),
        (ServerFacts(), REPLICATED),
    ],
)
def test_a_server_that_can_keep_it_is_not(facts: ServerFacts, required: Durability) -> None:
    """A replica that is away now may be back soon: orders say so until then, and heartbeats go on if they can."""
    require_sound(facts, durable=False, required=required)
