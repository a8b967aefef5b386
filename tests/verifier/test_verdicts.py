"""From a token to a verdict: phases of keys and policies, and what a verdict shows."""

from typing import Any

import pytest

from keyturn.contract import keys as k
from keyturn.contract.errors import ConfigurationError, InvalidToken
from keyturn.contract.rotation import APPEND_SECONDS
from keyturn.verifier.freshness import State
from keyturn.verifier.policy import Policy
from keyturn.verifier.verdict import Kind, Verdict
from tests.verifier.court import ACTIVE, READ, SKEW, Court, inactive
from tests.world import AUDIENCE, LEASE_SECONDS, policy


@pytest.mark.parametrize("alg", ["ES256", "ES384", "EdDSA", "RS256", "PS256"])
async def test_a_token_of_each_algorithm_is_active_and_its_verdict_carries_the_claims(court: Court, alg: str) -> None:
    """What a gateway hands on to the API."""
    await court.keys.append(court.world.first_key(alg))
    token = court.world.mint(sub="bob")
    verdict = court.verifier.judge(token, READ)
    assert (verdict.kind, verdict.reason, verdict.state) == (Kind.ACTIVE, "active", State.FRESH)
    assert verdict.claims["sub"] == "bob"
    assert court.verifier.claims(token, READ) == verdict.claims


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"aud": "https://other.example"}, "audience"), ({"aud": ["https://other.example"]}, "audience"),
        ({"aud": AUDIENCE + "/"}, "audience"), ({"scope": "write"}, "insufficient_scope"),
        ({"scope": None}, "insufficient_scope"), ({"scope": "reader"}, "insufficient_scope"),
        ({"scope": "READ"}, "insufficient_scope"), ({"scope": ""}, "insufficient_scope"),
    ],
)  # fmt: skip
def test_a_policy_asks_for_its_audience_and_each_of_its_scopes(
    court: Court, changes: dict[str, Any], reason: str
) -> None:
    """A token for somebody else, or for less, is no token here; its claims are not shown."""
    verdict = court.verifier.judge(court.world.mint(**changes), READ)
    assert (verdict.kind, verdict.reason, dict(verdict.claims)) == (Kind.INACTIVE, reason, {})
    with pytest.raises(InvalidToken, match=reason):
        court.verifier.claims(court.world.mint(**changes), READ)


def test_one_of_several_audiences_is_enough_and_all_scopes_are_needed(court: Court) -> None:
    """RFC 7519, 4.1.3."""
    both = policy(scopes=("read", "write"))
    assert court.judge(court.world.mint(aud=["https://other.example", AUDIENCE]), both) == ACTIVE
    assert court.judge(court.world.mint(scope="read"), both) == inactive("insufficient_scope")


def test_a_policy_without_an_audience_or_with_a_strange_scope_cannot_be_made() -> None:
    """It would accept tokens made for others (RFC 8725, 3.9)."""
    for audience, scopes in (("", ()), (AUDIENCE, ("read write",)), (AUDIENCE, ("",)), (AUDIENCE, ("l\u00e9",))):
        with pytest.raises(ConfigurationError):
            Policy(audience=audience, scopes=scopes)


async def test_the_phase_of_its_key_decides(court: Court) -> None:
    """Published and retiring keys vouch; removed ones do not, and revoked ones are rejected by name."""
    kid, token = court.world.signing_kid, court.world.mint()
    standby = court.world.new_key()
    await court.keys.append([standby])
    early = court.world.mint(kid=standby.kid)
    assert court.judge(early) == ACTIVE  # Its activation may be on its way to us.
    changes: list[k.KeyChange] = [k.Retired(kid=kid), court.world.activation(standby.kid)]
    await court.keys.append(changes)
    assert court.judge(token) == ACTIVE
    await court.keys.append([k.Removed(kid=kid)])
    assert court.judge(token) == inactive("key_removed")
    await court.keys.append([k.Revoked(kid=standby.kid)])
    assert court.judge(early) == inactive("key_revoked")
    await court.keys.append([k.Revoked(kid=kid)])
    assert court.judge(token) == inactive("key_revoked")


def test_a_key_that_was_never_published_is_unknown(court: Court) -> None:
    """Who asks may catch up once and ask again; the name of the reason is part of that agreement."""
    assert court.judge(court.world.mint(kid=court.world.new_key().kid)) == inactive("unknown_kid")


async def test_a_key_of_another_use_signs_no_access_token(court: Court) -> None:
    """Answers and status lists are signed by keys of their own."""
    for use in (k.Use.INTROSPECTION, k.Use.STATUS):
        published = court.world.new_key(use=use)
        await court.keys.append([published])
        assert court.judge(court.world.mint(kid=published.kid)) == inactive("algorithm")


async def test_what_is_dated_after_its_keys_time_is_refused(court: Court) -> None:
    """A key that leaks after its last day signs nothing that counts: iat > sign_until + G + S."""
    await court.keys.append(court.world.first_key(sign_seconds=100))
    record = court.member.replica.keys.get(court.world.signing_kid)
    assert record is not None
    assert record.sign_until is not None
    latest = record.sign_until + LEASE_SECONDS + SKEW
    await court.advance(latest - court.clock.now() + 1)
    assert court.judge(court.world.mint(iat=int(latest) - 1)) == ACTIVE
    assert court.judge(court.world.mint(iat=latest)) == ACTIVE
    assert court.judge(court.world.mint(iat=latest + 0.5)) == inactive("key_limits")
    for allow_expired in (True, False):
        with pytest.raises(InvalidToken, match="key_limits"):
            court.verifier.genuine(court.world.mint(iat=latest + 0.5), allow_expired=allow_expired)


async def test_a_key_that_retired_early_vouches_for_nothing_that_is_dated_later(court: Court) -> None:
    """A retired key that leaks must not mint tokens until its removal: iat > retiring_at + G + S.

    What its retirement may need to reach the store is granted, since a signer signs until then.
    """
    await court.keys.append(court.world.first_key())
    old = court.world.signing_kid
    before = court.world.mint(kid=old)
    await court.keys.append([k.Retired(kid=old), *court.world.first_key()])
    retired = court.clock.now()
    latest = retired + APPEND_SECONDS + LEASE_SECONDS + SKEW
    await court.advance(latest - retired + 2)
    assert court.judge(before) == ACTIVE
    assert court.judge(court.world.mint(kid=old, iat=int(latest))) == ACTIVE
    assert court.judge(court.world.mint(kid=old, iat=int(latest) + 1)) == inactive("key_limits")


def test_a_sender_constrained_token_does_not_pass_as_bearer(court: Court) -> None:
    """Whoever stole it lacks the key that it is bound to (RFC 9449, 7.2; RFC 8705, 3)."""
    for cnf in ({"jkt": "thumb"}, {"x5t#S256": "thumb"}, {}, "x", 0):
        assert court.judge(court.world.mint(cnf=cnf)) == inactive("bound")


async def test_a_verdict_shows_nothing_of_the_token(court: Court) -> None:
    """Verdicts are logged."""
    verdict = court.verifier.judge(court.world.mint(sub="a-secret-subject"), READ)
    assert isinstance(verdict, Verdict)
    assert "secret" not in repr(verdict)


async def test_genuine_tells_who_signed_and_nothing_else(court: Court) -> None:
    """Revoking must work for tokens that are expired, or not valid yet, or of a retiring key; never for forged ones."""
    now = court.clock.now()
    expired, early = court.world.mint(exp=int(now) - 100), court.world.mint(nbf=int(now) + 100)
    for token in (expired, early):
        with pytest.raises(InvalidToken):
            court.verifier.genuine(token)
        assert court.verifier.genuine(token, allow_expired=True)["sub"] == "alice"
    with pytest.raises(InvalidToken, match="signature"):
        court.verifier.genuine(expired[:-8] + b"AAAAAAAA", allow_expired=True)
    await court.keys.append([k.Retired(kid=court.world.signing_kid)])
    assert court.verifier.genuine(early, allow_expired=True)["sub"] == "alice"
