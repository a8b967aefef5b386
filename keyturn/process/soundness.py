"""What a server must be for a publisher to rely on it, and how durable what it acknowledges is."""

import re

from keyturn.contract.errors import ConfigurationError
from keyturn.feed.assurance import Durability
from keyturn.process.redis import ServerFacts

_WAITAOF_SINCE = (7, 2)


def usual_durability(facts: ServerFacts) -> Durability:
    """Say how durable an acknowledged write is without asking: on disk where each is before it is answered.

    A server that does not tell is not taken for more than it may be.
    """
    return Durability.LOCAL if facts.append_only and facts.append_fsync == "always" else Durability.MEMORY


def require_sound(facts: ServerFacts, *, durable: bool, required: Durability = Durability.MEMORY) -> None:
    """Refuse a server that forgets at will, a Cluster, and one that cannot be as durable as settings say.

    What it does not tell is not held against it. Raises ConfigurationError naming the server's setting, or ours. A
    weaker server of which nobody asked for more is for the receipts to name.
    """
    if facts.cluster:
        raise ConfigurationError(
            "this server is part of a Cluster, where a step of the feed does not stay in one place",
            setting="redis.url", mend="name a server outside it, alone or watched by sentinels, for the feed",
        )  # fmt: skip
    wanted = [("maxmemory-policy", facts.maxmemory_policy, "noeviction", "redis.url")]
    append_only = None if facts.append_only is None else "yes" if facts.append_only else "no"
    if durable:
        replicas = None if facts.replicas is None else str(facts.replicas)
        wanted += [
            ("appendonly", append_only, "yes", "redis.durable"),
            ("appendfsync", facts.append_fsync, "always", "redis.durable"),
            ("number of replicas", replicas, "0", "redis.durable"),
        ]
    if required is Durability.LOCAL:
        wanted.append(("appendonly", append_only, "yes", "redis.require"))
        if not _has_waitaof(facts.version):
            wanted.append(("appendfsync", facts.append_fsync, "always", "redis.require"))
    if required is Durability.REPLICATED and facts.min_replicas_to_write == 0:
        wanted.append(("min-replicas-to-write", "0", "1", "redis.require"))
    for name, found, needed, setting in wanted:
        if found is not None and found != needed:
            otherwise = "" if setting == "redis.url" else " or take that setting out"
            raise ConfigurationError(
                f"the server's {name} is {found}, by which it can lose what it has accepted",
                setting=setting, mend=f"make {name} {needed} in the server's configuration{otherwise}",
            )  # fmt: skip


def _has_waitaof(version: str | None) -> bool:
    found = re.match(r"(\d+)\.(\d+)", version or "")
    return found is None or (int(found[1]), int(found[2])) >= _WAITAOF_SINCE
