"""A cache of verdicts that changes nothing but the time it takes."""

import gc

import pytest

from keyturn.contract.errors import ReplicaExpired
from keyturn.contract.positions import Lane
from keyturn.contract.selectors import SelectorKind
from keyturn.verifier.verdict import Kind
from keyturn.verifier.verifier import TokenVerifier
from tests.verifier.court import ACTIVE, READ, SKEW, Court, inactive
from tests.world import policy


def test_time_is_asked_on_every_hit(court: Court) -> None:
    """A cached verdict must not outlive its token."""
    token = court.world.mint(exp=int(court.clock.now()) + 3)
    assert court.judge(token) == court.judge(token) == ACTIVE
    court.clock.advance(3 + SKEW - 0.01)
    assert court.judge(token) == ACTIVE
    assert court.verifier.figures.misses == 1
    court.clock.advance(0.02)
    assert court.judge(token) == inactive("expired")
    assert len(court.verifier) == 0


async def test_a_clock_that_is_set_back_brings_no_expired_token_back(court: Court) -> None:
    """Its revocation may be forgotten by then; what the publishers said of the time goes on to hold."""
    now = int(court.clock.now())
    short, long = court.world.mint(exp=now + 3), court.world.mint(exp=now + 300)
    assert court.judge(short) == court.judge(long) == ACTIVE
    await court.advance(2 * SKEW + 4)
    court.clock.set_wall(court.clock.now() - 3600)
    assert court.judge(short) == inactive("expired"), "in the cache"
    assert court.judge(court.world.mint(exp=now + 3, jti="another")) == inactive("expired"), "not in the cache"
    assert court.judge(long) == ACTIVE


async def test_the_cache_is_hit_checked_again_after_a_push_and_hit_again(court: Court) -> None:
    """A push costs one more look at the revocations, no signature."""
    token, figures = court.world.mint(), court.verifier.figures

    def count() -> tuple[int, int, int]:
        return figures.misses, figures.hits, figures.rechecks

    first = court.verifier.judge(token, READ)
    assert court.verifier.judge(token, READ) is first
    assert count() == (1, 1, 0)
    await court.revoke(SelectorKind.JTI, "another-token")
    assert court.verifier.judge(token, READ) is first
    assert court.verifier.judge(token, READ) is first
    assert count() == (1, 2, 1)
    await court.keys.append([court.world.new_key("EdDSA")])
    assert court.judge(token) == ACTIVE
    assert count() == (1, 2, 2)
    await court.revoke(SelectorKind.SUBJECT, "alice", before=court.clock.now() + 1)
    assert court.judge(token) == inactive("revoked")
    assert len(court.verifier) == 0


async def test_a_revocation_that_came_before_the_token_was_seen_counts_as_well(court: Court) -> None:
    """The first look is as good as every later one."""
    token = court.world.mint(jti="stolen")
    await court.revoke(SelectorKind.JTI, "stolen")
    assert court.judge(token) == inactive("revoked")
    assert court.judge(token) == inactive("revoked")
    assert len(court.verifier) == 0


async def test_a_cached_verdict_obeys_a_new_epochs_index(court: Court) -> None:
    """The hash key changes with the epoch: the names of cached tokens must be hashed anew."""
    token = court.world.mint()
    assert court.judge(token) == ACTIVE
    snapshot = court.world.genesis(Lane.REVOCATIONS, epoch=2, hash_key=b"the key of the second epoch")
    held = court.member.replica.position(Lane.REVOCATIONS)
    assert await court.world.feed.open_epoch(snapshot, after=str(held))
    await court.member.follower._read_all()
    assert court.judge(token) == ACTIVE
    await court.revoke(SelectorKind.SUBJECT, "alice", before=court.clock.now() + 1)
    assert court.judge(token) == inactive("revoked")


async def test_each_policy_has_its_own_verdict_of_a_cached_token(court: Court) -> None:
    """Equal names or members do not make two policies one; identity does."""
    token = court.world.mint(scope="read")
    alike, wide, other = policy(scopes=("read",)), policy(scopes=("admin",)), policy(audience="https://other.example")
    assert court.judge(token) == ACTIVE
    assert court.judge(token, wide) == inactive("insufficient_scope")
    assert court.judge(token, other) == inactive("audience")
    assert court.judge(token, alike) == ACTIVE
    assert court.verifier.judge(token, alike) is not court.verifier.judge(token, READ)
    assert court.verifier.figures.misses == 1
    for _ in range(200):
        assert court.judge(token, policy(scopes=("admin",))) == inactive("insufficient_scope")
    (checked,) = court.verifier._cache.values()
    assert len(checked.fresh) <= 64


def test_a_cached_verdict_shows_the_state_of_now(court: Court) -> None:
    """Stale answers are marked, expired replicas answer "unknown", whatever is cached."""
    token = court.world.mint()
    strict = policy(max_staleness_seconds=10)
    seen = []
    for _ in range(4):
        verdict = court.verifier.judge(token, READ)
        seen.append(
            (verdict.kind.value, verdict.reason, verdict.state.value, court.verifier.judge(token, strict).reason)
        )
        court.clock.advance(20 if seen[-1][2] == "stale" else 6)
    court.clock.advance(10)
    verdict = court.verifier.judge(token, READ)
    seen.append((verdict.kind.value, verdict.reason, verdict.state.value, court.verifier.judge(token, strict).reason))
    assert seen == [
        ("active", "active", "fresh", "active"), ("active", "active", "stale", "active"),
        ("active", "active", "stale", "replica_too_old_for_policy"),
        ("active", "active", "stale", "replica_too_old_for_policy"),
        ("unknown", "replica_expired", "expired", "replica_expired"),
    ]  # fmt: skip
    with pytest.raises(ReplicaExpired) as caught:
        court.verifier.claims(token, READ)
    assert caught.value.silence_seconds == pytest.approx(76)


def test_the_cache_is_bounded(court: Court) -> None:
    """A limit on everything that grows."""
    small = TokenVerifier(court.member.replica, court.clock, cached_tokens=8)
    tokens = [court.world.mint() for _ in range(20)]
    for _ in range(2):
        assert {small.judge(token, READ).kind for token in tokens} == {Kind.ACTIVE}
    assert len(small) == 8
    assert small.figures.evictions == 32


def test_refused_tokens_take_no_room(court: Court) -> None:
    """Strangers must not be able to push good tokens out."""
    good = court.world.mint()
    assert court.judge(good) == ACTIVE
    foreign = court.world.new_key().kid
    for number in range(50):
        court.judge(court.world.mint(kid=foreign, sub=f"s{number}"))
        court.judge(good[:-4] + b"AAAA")
        court.judge(b"a.b.c%d" % number)
        court.judge(court.world.mint(exp=1, iat=1))
    assert len(court.verifier) == 1


def test_no_collection_visits_what_is_cached(court: Court) -> None:
    """A full collection stops every answer: with a hundred thousand cached tokens it took 160 ms."""
    tokens = [court.world.mint(jti=f"token-{number}") for number in range(20)]
    for token in tokens:
        assert court.judge(token) == ACTIVE
    gc.collect()
    for cached in court.verifier._cache.values():
        verdicts = [*cached.fresh.values(), *cached.stale.values()]
        assert len(verdicts) == 1
        parts = [cached, cached.claims, cached.names, *cached.names, cached.fresh, cached.stale, *verdicts]
        assert [one for one in parts if gc.is_tracked(one)] == []
