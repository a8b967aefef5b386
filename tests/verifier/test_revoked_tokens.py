"""Which tokens a revocation names, told by the moment of their grant."""

import pytest

from keyturn import entropy
from keyturn.contract.selectors import SelectorKind
from tests.verifier.court import ACTIVE, READ, Court, inactive
from tests.world import AUDIENCE


@pytest.mark.parametrize(
    ("kind", "claim"),
    [(SelectorKind.JTI, "jti"), (SelectorKind.GRANT, "grant_id"), (SelectorKind.SESSION, "sid")],
)
async def test_a_token_grant_or_session_is_revoked_for_good(court: Court, kind: SelectorKind, claim: str) -> None:
    """And nobody else's."""
    token, other = court.world.mint(sid="session-1"), court.world.mint(sid="session-2")
    assert court.judge(token) == court.judge(other) == ACTIVE
    await court.revoke(kind, court.verifier.claims(token, READ)[claim])
    assert court.judge(token) == inactive("revoked")
    assert court.judge(other) == ACTIVE


CUTOFFS = [
    (SelectorKind.SUBJECT, "alice"), (SelectorKind.CLIENT, "shop"),
    (SelectorKind.AUDIENCE, AUDIENCE), (SelectorKind.ALL, ""),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value"), CUTOFFS)
async def test_a_cutoff_ends_every_descendant_of_earlier_grants_and_none_of_later(
    court: Court, kind: SelectorKind, value: str
) -> None:
    """However late a token was minted, the moment of sign-in counts; signing in again works at once."""
    grant, before = entropy.uuid7(court.clock.now()), court.clock.now() + 0.5
    await court.advance(1)
    late_child = court.world.mint(grant_id=grant)
    new_grant = court.world.mint()
    assert court.judge(late_child) == court.judge(new_grant) == ACTIVE
    await court.revoke(kind, value, before=before)
    assert court.judge(late_child) == inactive("revoked")
    assert court.judge(court.world.mint(grant_id=grant)) == inactive("revoked")
    assert court.judge(new_grant) == ACTIVE


async def test_a_cutoff_spares_the_others(court: Court) -> None:
    """Another subject, another client, another of several audiences."""
    await court.revoke(SelectorKind.SUBJECT, "bob", before=court.clock.now() + 1)
    await court.revoke(SelectorKind.CLIENT, "other", before=court.clock.now() + 1)
    await court.revoke(SelectorKind.AUDIENCE, "https://other.example", before=court.clock.now() + 1)
    assert court.judge(court.world.mint()) == ACTIVE
    assert court.judge(court.world.mint(aud=[AUDIENCE, "https://other.example"])) == inactive("revoked")
    assert court.judge(court.world.mint(sub="other", client_id="bob")) == ACTIVE  # A name of one kind is no other.


async def test_within_one_millisecond_the_cutoff_itself_is_not_before_itself(court: Court) -> None:
    """A grant that is stamped one millisecond after the cutoff lives, the one a millisecond before dies."""
    before = court.clock.now() + 0.250
    await court.revoke(SelectorKind.SUBJECT, "alice", before=before)
    await court.advance(1)
    for offset, expected in ((-0.001, "revoked"), (0.0, "active"), (0.001, "active")):
        token = court.world.mint(grant_id=entropy.uuid7(before + offset + 1e-6))
        assert court.judge(token)[1] == expected


async def test_a_token_without_a_grant_compares_whole_seconds_and_fails_closed(court: Court) -> None:
    """Its iat says only the second: within the cutoff's second it could be from before."""
    before = court.clock.now() + 0.5  # Half a second into a second.
    await court.revoke(SelectorKind.SUBJECT, "alice", before=before)
    await court.advance(2)
    second = int(before)
    for grant_id in (None, "not-a-uuid", 7, "018bcfe5-687b-4f0f-8e01-0123456789ab"):
        ages = {
            iat: court.judge(court.world.mint(grant_id=grant_id, iat=iat))[1]
            for iat in (second - 1, second, second + 1)
        }
        assert ages == {second - 1: "revoked", second: "revoked", second + 1: "active"}
    await court.revoke(SelectorKind.SUBJECT, "alice", before=float(second + 1))
    assert court.judge(court.world.mint(grant_id=None, iat=second + 1)) == inactive("revoked")  # A tie.


async def test_the_latest_cutoff_is_told_so_that_a_new_grant_can_be_later(court: Court) -> None:
    """An issuer whose clock is behind would else make grants that are dead at birth."""
    claims = court.world.claims()
    replica, now = court.member.replica, court.clock.now()
    assert replica.latest_cutoff(claims) == 0
    await court.revoke(SelectorKind.SUBJECT, "alice", before=now - 5)
    await court.revoke(SelectorKind.CLIENT, "shop", before=now + 1)
    await court.revoke(SelectorKind.SUBJECT, "bob", before=now + 2)
    assert replica.latest_cutoff(claims) == now + 1
