"""What a doctor makes of the facts: one finding for each question, with the mend where one is needed; pure."""

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from keyturn.cli.facts import Facts, LaneFacts
from keyturn.cli.tables import moment, plain
from keyturn.contract.events import FORMATS
from keyturn.contract.keys import Phase
from keyturn.contract.positions import Lane
from keyturn.contract.trust import IdentityKind
from keyturn.verifier.freshness import State

_MOST_NAMED = 8


class Level(StrEnum):
    """How a question came out; `unknown` where the facts are not to be had."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"


class Result(NamedTuple):
    """What was asked, how it came out, what was seen, and how to mend it."""

    check: str
    level: Level
    seen: str
    mend: str = ""


def examine(facts: Facts) -> list[Result]:
    """Return the findings, in the order in which one cause explains the next."""
    checks: tuple[Callable[[Facts], Iterator[Result]], ...] = (
        _store, _rights, _eviction, _durability, _trust, _format, _lanes, _clock, _sealed, _presence, _archive,
        _services,
    )  # fmt: skip
    return [result for check in checks for result in check(facts)]


def _store(facts: Facts) -> Iterator[Result]:
    mend = "see that the server runs and [redis] names it; give each process the password of its user"
    if not facts.users:
        yield Result("store", Level.UNKNOWN, "no password of a user of the store can be read here", mend)
    if well := [user for user, one in facts.users.items() if one.trouble is None]:
        yield Result("store", Level.OK, f"logged in as {_some(well)}")
    for user, one in facts.users.items():
        if one.trouble is not None:
            yield Result(f"store as {user}", Level.FAIL, one.trouble, mend)


def _rights(facts: Facts) -> Iterator[Result]:
    if not facts.separate_users:
        yield Result(
            "access list", Level.WARN, "every process logs in as one user, whose theft gives everything",
            "load the users.acl of `keyturn init` into the server, and set [redis] credentials",
        )  # fmt: skip
        return
    reached = {user: one for user, one in facts.users.items() if one.trouble is None}
    if well := [user for user, one in reached.items() if not one.lacks and not one.exceeds]:
        yield Result("access list", Level.OK, f"as it must be, as far as was tried: {_some(well)}")
    for user, one in reached.items():
        wrong = [f"must not, and may: {', '.join(one.exceeds)}"] if one.exceeds else []
        wrong += [f"must, and may not: {', '.join(one.lacks)}"] if one.lacks else []
        if wrong:
            mend = "load the users.acl of `keyturn init` into the server (ACL LOAD)"
            yield Result(f"access list of {user}", Level.FAIL, "; ".join(wrong), mend)


def _eviction(facts: Facts) -> Iterator[Result]:
    policy = None if facts.server is None else facts.server.maxmemory_policy
    if policy is None:
        yield _untold("eviction", "the server does not tell its maxmemory-policy")
        return
    well = policy == "noeviction"
    mend = "set maxmemory-policy noeviction: another one lets the server forget revocations"
    yield Result("eviction", Level.OK if well else Level.FAIL, f"maxmemory-policy {plain(policy)}", _if(not well, mend))


def _durability(facts: Facts) -> Iterator[Result]:
    server = facts.server
    if server is None or server.append_only is None or server.append_fsync is None:
        yield _untold("durability", "the server does not tell how it writes to its disk")
        return
    local = server.append_only and server.append_fsync == "always"
    replicas = server.replicas or 0
    replicated = replicas > 0 and (server.min_replicas_to_write or 0) > 0
    seen = f"appendonly {'yes' if server.append_only else 'no'}, appendfsync {plain(server.append_fsync)}, "
    seen += f"{replicas} replicas, min-replicas-to-write {server.min_replicas_to_write or 0}"
    if facts.durable and not (local and replicas == 0):
        mend = "set appendonly yes and appendfsync always on a server without replicas, or take redis.durable out"
        yield Result("durability", Level.FAIL, f"{seen}; redis.durable says otherwise", mend)
    elif not local:
        mend = "set appendonly yes and appendfsync always: else a crash can lose what was acknowledged"
        yield Result("durability", Level.WARN, seen, mend)
    elif replicas and not replicated:
        mend = "set min-replicas-to-write 1: else a failover can lose what was acknowledged"
        yield Result("durability", Level.WARN, seen, mend)
    else:
        yield Result("durability", Level.OK, seen)


def _trust(facts: Facts) -> Iterator[Result]:
    if facts.trust is None:
        mend = "start keyservice with the trust document that the pinned root signed"
        if facts.trust_trouble is None:
            yield _untold("trust document", "the store could not be asked")
        else:
            yield Result("trust document", Level.FAIL, facts.trust_trouble, mend)
        return
    document = facts.trust.document
    left = document.expires_at - facts.now
    seen = f"version {document.version} of {plain(document.issuer)}, expires {moment(document.expires_at)}"
    if document.dev:
        seen += ", marked dev"
    soon = facts.trust.expires_soon(facts.now)
    mend = _if(soon, "sign a new one: `keyturn trust renew`")
    level = Level.FAIL if left <= 0 else Level.WARN if soon else Level.OK
    yield Result("trust document", level, seen + (", HAS EXPIRED" if left <= 0 else ""), mend)


def _format(facts: Facts) -> Iterator[Result]:
    if facts.trust is None:
        yield _untold("feed format", "there is no trust document to say what publishers write")
        return
    written, known = facts.trust.document.feed_format, ", ".join(map(str, FORMATS))
    well = written in FORMATS
    seen = f"publishers write {written}, this version reads {known}"
    yield Result("feed format", Level.OK if well else Level.FAIL, seen, _if(not well, "upgrade this host's Keyturn"))


def _lanes(facts: Facts) -> Iterator[Result]:
    for lane in Lane:
        one, name = facts.lanes.get(lane), f"lane {lane}"
        if one is None:
            yield _untold(name, "the store could not be asked")
        elif one.top is None:
            yield Result(
                name,
                Level.FAIL,
                "it never began",
                f"set bootstrap in the section of its publisher for the very first start: {_publisher(lane)}",
            )
        elif one.top_place is None:
            yield Result(
                name,
                Level.FAIL,
                f"the store names no position: {plain(one.top)[:80]}",
                "restart its publisher, and look who else writes into the store",
            )
        elif one.held == (0, 0):
            yield Result(
                name,
                Level.FAIL,
                _with("no snapshot that a new verifier could begin with", one),
                "its publisher mends the snapshot within a minute; see that it runs",
            )
        elif one.held < one.top_place:
            seen = f"a new verifier gets to {_place(one.held)} and not to {_place(one.top_place)}"
            yield Result(
                name,
                Level.FAIL,
                _with(seen, one),
                "`keyturn feed tail` shows what stands in the way; upgrade this version if it cannot read it",
            )
        else:
            seen = f"a new verifier gets from the snapshot to the newest place, {_place(one.held)}"
            level = Level.WARN if one.complaints else Level.OK
            yield Result(name, level, _with(seen, one), _if(one.complaints, "look who else writes into the store"))


def _clock(facts: Facts) -> Iterator[Result]:
    skew, stale, expired = (
        facts.freshness.skew_seconds, facts.freshness.stale_after_seconds, facts.freshness.expired_after_seconds
    )  # fmt: skip
    for lane, one in facts.lanes.items():
        name = f"clock and lane {lane}"
        if one.said_at is None:
            yield _untold(name, "there is no newest statement that can be believed")
            continue
        silence = facts.now - one.said_at
        if silence < -skew:
            seen = f"the newest statement was signed {-silence:.1f} s ahead of this clock, more than {skew:g} s"
            yield Result(name, Level.FAIL, seen, "set the clocks of this host and of the publisher by NTP")
        elif silence > stale:
            seen = f"the newest statement is {silence:.1f} s old, more than {stale:g} s"
            mend = f"see that {_publisher(lane)} runs and is ready, and set this host's clock by NTP"
            yield Result(name, Level.FAIL if silence > expired else Level.WARN, seen, mend)
        else:
            yield Result(name, Level.OK, f"the newest statement is {max(0.0, silence):.1f} s old")


def _sealed(facts: Facts) -> Iterator[Result]:
    if facts.sealed is None or facts.lanes.get(Lane.KEYS) is None:
        yield _untold("sealed keys", "no user that may read them can log in from here")
        return
    signing = [key.kid for key in facts.keys if key.phase in (Phase.PUBLISHED, Phase.ACTIVE)]
    missing = [kid for kid in signing if kid not in facts.sealed]
    if missing:
        mend = "restore the store, or rotate to a key that is sealed and revoke these"
        yield Result("sealed keys", Level.FAIL, f"{_some(missing)} cannot sign: no sealed record", mend)
    elif not any(key.phase is Phase.ACTIVE for key in facts.keys):
        yield Result("sealed keys", Level.FAIL, "no key is active", "see that worker and keyservice run")
    else:
        yield Result("sealed keys", Level.OK, f"all {len(signing)} keys that sign, or will, are there")


def _presence(facts: Facts) -> Iterator[Result]:
    if facts.reports is None or facts.trust is None or len(facts.lanes) < len(Lane):
        yield _untold("verifiers", "no user that may read reports can log in from here")
        return
    live_seconds = facts.freshness.expired_after_seconds + facts.freshness.skew_seconds
    live = [one for one in facts.reports if not one.goodbye and facts.now - one.at < live_seconds]
    tops = {lane: one.top_place or (0, 0) for lane, one in facts.lanes.items()}
    unwell = [f"{one.verifier} is {one.state}" for one in live if one.state != State.FRESH]
    unwell += [
        f"{one.verifier} lags" for one in live
        if one.state == State.FRESH and (one.keys < tops[Lane.KEYS] or one.revocations < tops[Lane.REVOCATIONS])
    ]  # fmt: skip
    identities = facts.trust.document.identities.values()
    named = sum(one.kind is IdentityKind.VERIFIER for one in identities)
    seen = f"{len(live)} live of {named} that the root names"
    if unwell:
        yield Result(
            "verifiers", Level.FAIL, f"{seen}; {_some(unwell)}", "see docs/runbooks/sidecar-stale-or-expired.md"
        )
    elif not live:
        yield Result("verifiers", Level.WARN, seen, "start a sidecar, or see why none reports")
    else:
        yield Result("verifiers", Level.OK, f"{seen}, all fresh and at the newest place")


def _archive(facts: Facts) -> Iterator[Result]:
    archive = facts.archive
    if archive is None:
        return  # None is kept, and need not be.
    if archive.trouble is not None:
        mend = "mend it: until then nothing is archived, and the store forgets nothing and fills up"
        yield Result("archive", Level.FAIL, archive.trouble, mend)
        return
    ends = f", up to {_some(archive.ends)}" if archive.ends else ""
    yield Result("archive", Level.OK, f"{archive.segments} segments in {archive.directory}{ends}")


def _services(facts: Facts) -> Iterator[Result]:
    for name, one in facts.services.items():
        if one.ready:
            yield Result(name, Level.OK, one.detail)
        elif one.ready is None:
            mend = "start it, or take its section out of this configuration where it runs elsewhere"
            yield Result(name, Level.FAIL, one.detail, mend)
        else:
            yield Result(name, Level.FAIL, f"not ready: {one.detail}", "its log says more")


def _untold(check: str, seen: str) -> Result:
    return Result(check, Level.UNKNOWN, seen, "mend what stands above, or ask from a host that can")


def _publisher(lane: Lane) -> str:
    return "keyservice" if lane is Lane.KEYS else "revocation"


def _place(place: tuple[int, int]) -> str:
    return f"{place[0]}:{place[1]}"


def _with(seen: str, lane: LaneFacts) -> str:
    return f"{seen}: {_some(lane.complaints)}" if lane.complaints else seen


def _some(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return plain(", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else ""))


def _if(needed: object, mend: str) -> str:
    return mend if needed else ""
