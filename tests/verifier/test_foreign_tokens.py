"""Tokens of other issuers: bound to their keys, under the same revocations, and only where a policy takes them."""

from typing import Any

import pytest

from keyturn import entropy
from keyturn.contract.errors import InvalidToken, IssuerKeysUnavailable
from keyturn.contract.issuers import NO_TYPE, STALE_SECONDS
from keyturn.contract.positions import Lane
from keyturn.contract.selectors import Entry, Selector, SelectorKind
from keyturn.verifier.issuers import COOL_DOWN_SECONDS, IssuerKeys
from keyturn.verifier.verdict import Kind
from keyturn.verifier.verifier import TokenVerifier
from tests.clocks import ManualClock
from tests.verifier.abroad import KEYS_GOOD_SECONDS, URL, Abroad
from tests.verifier.court import ACTIVE, Court, inactive
from tests.world import ISSUER, World, policy

UNKNOWN = (Kind.UNKNOWN, "issuer_keys_unavailable")
BOTH = policy(scopes=("read",), issuers=frozenset({ISSUER, URL}))
THEIRS = policy(issuers=frozenset({URL}))


class Border(Court):
    """A court that knows another issuer."""

    abroad: Abroad
    foreign: IssuerKeys

    async def revoke_abroad(self, kind: SelectorKind, value: str = "", *, before: float | None = None) -> None:
        """Publish one revocation of that issuer's tokens."""
        selector = Selector(iss=self.abroad.issuer.url, kind=kind, value=value, before=before)
        await self.revocations.append([Entry(selector=selector, until=self.clock.now() + 7200)])

    def ask(self, token: bytes) -> tuple[Kind, str]:
        """Return kind and reason under a policy that takes both issuers."""
        return self.judge(token, BOTH)


async def border_of(**members: Any) -> Border:
    """Return a court at which both issuers have one key."""
    clock = ManualClock()
    world = await World(clock=clock).begin()
    member = await world.caught_up()
    border = Border(world, member, clock)
    await border.keys.append(world.first_key())
    border.abroad = Abroad(clock, **members)
    border.foreign = IssuerKeys(border.abroad.issuer, border.abroad, clock)
    await border.foreign.renew()
    border.verifier = TokenVerifier(member.replica, clock, issuers=[border.foreign])
    return border


@pytest.fixture
async def border() -> Border:
    """Return such a court."""
    return await border_of()


def test_a_foreign_token_passes_with_its_claims_under_our_names(border: Border) -> None:
    """What the API hears of caller and scope must not depend on who issued the token."""
    verdict = border.verifier.judge(border.abroad.mint(), BOTH)
    assert (verdict.kind, verdict.claims["iss"], verdict.claims["sub"]) == (Kind.ACTIVE, URL, "alice")
    assert (verdict.claims["client_id"], verdict.claims["scope"]) == ("shop", "read")
    assert border.verifier.judge(border.abroad.mint(), BOTH) is not verdict


async def test_a_policy_takes_only_the_issuers_that_it_names(border: Border) -> None:
    """By default ours alone: describing an issuer lets nobody in yet."""
    ours, theirs = border.world.mint(), border.abroad.mint()
    assert (border.judge(ours), border.judge(theirs)) == (ACTIVE, inactive("issuer"))
    assert (border.judge(ours, BOTH), border.judge(theirs, BOTH)) == (ACTIVE, ACTIVE)
    assert (border.judge(ours, THEIRS), border.judge(theirs, THEIRS)) == (inactive("issuer"), ACTIVE)
    assert (border.judge(ours), border.judge(theirs)) == (ACTIVE, inactive("issuer"))


def test_a_key_vouches_for_its_own_issuer_alone(border: Border) -> None:
    """RFC 8725, 3.8: neither issuer can make a token of the other, whatever kid it writes."""
    ours, theirs = border.world.signing_kid, border.abroad._world.signing_kid
    for kid in (ours, theirs):
        assert border.ask(border.abroad.mint(iss=ISSUER, header={"kid": kid, "typ": "at+jwt"}))[0] is Kind.INACTIVE
        forged = border.world.mint(iss=URL, header={"kid": kid, "typ": "JWT"})
        assert border.ask(forged)[0] is Kind.INACTIVE
    for iss in ("https://login.example/tenant", URL + "/", URL.upper(), [URL], None, 7, {"a": URL}):
        assert border.ask(border.abroad.mint(iss=iss))[0] is Kind.INACTIVE


@pytest.mark.parametrize("typ", ["at+jwt", None, "", "logout+jwt", "secevent+jwt", "JWT "])
def test_only_the_types_that_its_description_names_are_taken(border: Border, typ: str | None) -> None:
    """RFC 8725, 3.11: a logout token of the same key is no access token."""
    assert border.ask(border.abroad.mint(header={"typ": typ})) == inactive("type")
    assert border.ask(border.world.mint(header={"typ": "JWT"})) == inactive("type")


async def test_a_header_without_typ_is_taken_where_the_description_says_so() -> None:
    """Some providers send none; `typ` that is empty or no text is still refused."""
    border = await border_of(types=frozenset({NO_TYPE}))
    assert border.ask(border.abroad.mint(header={"typ": None})) == ACTIVE
    others: tuple[Any, ...] = ("", "JWT", 0, [], False)
    for typ in others:
        assert border.ask(border.abroad.mint(header={"typ": typ})) == inactive("type")


@pytest.mark.parametrize(
    "header", [{"alg": "none"}, {"alg": "HS256"}, {"jwk": {}}, {"jku": URL}, {"crit": ["x"]}, {"kid": None}], ids=str
)
def test_the_form_is_as_strict_as_for_our_own(border: Border, header: dict[str, Any]) -> None:
    """One parser: what it refuses of ours it refuses of theirs."""
    assert border.ask(border.abroad.mint(header=header))[0] is Kind.INACTIVE


def test_a_changed_token_is_refused(border: Border) -> None:
    """And takes no room in the cache."""
    head, payload, signature = border.abroad.mint().split(b".")
    other = border.abroad.mint(sub="root").split(b".")[1]
    assert border.ask(b".".join([head, other, signature])) == inactive("signature")
    assert border.ask(b".".join([head, payload, signature[:-4] + b"AAAA"]))[0] is Kind.INACTIVE
    assert len(border.verifier) == 0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"exp": None}, "claims"), ({"iat": None}, "claims"), ({"sub": None}, "claims"), ({"scp": 7}, "claims"),
        ({"aud": "https://other.example"}, "audience"), ({"scp": ["write"]}, "insufficient_scope"),
        ({"scp": None}, "insufficient_scope"), ({"cnf": {"jkt": "x"}}, "bound"), ({"nonce": "n"}, "type"),
        ({"jti": 7}, "claims"),
    ],
    ids=str,
)  # fmt: skip
def test_what_a_foreign_token_lacks_or_says_too_much_is_refused(
    border: Border, changes: dict[str, Any], reason: str
) -> None:
    """Deny by default."""
    assert border.ask(border.abroad.mint(**changes)) == inactive(reason)


async def test_a_token_dies_at_its_time_also_from_the_cache(border: Border) -> None:
    """`exp` is asked on every hit."""
    token = border.abroad.mint(exp=int(border.clock.now()) + 20)
    assert border.ask(token) == ACTIVE
    await border.advance(21)
    assert border.ask(token) == ACTIVE  # Within the skew.
    await border.advance(2)
    assert border.ask(token) == inactive("expired")


@pytest.mark.parametrize(
    ("kind", "value", "claims"),
    [
        (SelectorKind.JTI, "j", {"jti": "j"}), (SelectorKind.SESSION, "s", {"sid": "s"}),
        (SelectorKind.SUBJECT, "alice", {}), (SelectorKind.CLIENT, "shop", {}),
        (SelectorKind.AUDIENCE, "https://api.example", {}), (SelectorKind.ALL, "", {}),
    ],
    ids=str,
)  # fmt: skip
async def test_each_selector_ends_a_foreign_token_at_once(
    border: Border, kind: SelectorKind, value: str, claims: dict[str, Any]
) -> None:
    """Out of the cache, too; and neither another issuer's tokens of that name nor ours."""
    token, ours, spared = border.abroad.mint(**claims), border.world.mint(**claims), border.abroad.mint(
        sub="bob", azp="other", aud=["https://api.example", "x"], iat=int(border.clock.now()) + 1
    )  # fmt: skip
    assert (border.ask(token), border.ask(ours), border.ask(spared)) == (ACTIVE, ACTIVE, ACTIVE)
    cutoff = kind not in (SelectorKind.JTI, SelectorKind.SESSION)
    await border.revoke_abroad(kind, value, before=border.clock.now() + 0.5 if cutoff else None)
    assert (border.ask(token), border.ask(ours), border.ask(spared)) == (inactive("revoked"), ACTIVE, ACTIVE)
    assert border.ask(token) == inactive("revoked")


async def test_a_party_is_found_by_the_name_that_the_provider_uses_and_by_the_one_we_show() -> None:
    """Its own events name the `sub` that it writes; an operator sees what settings put in its place."""
    for named in ("pairwise-1", "object-1"):
        border = await border_of(claims={"sub": "oid"})
        token = border.abroad.mint(sub="pairwise-1", oid="object-1", scope="read", scp=None)
        assert border.verifier.judge(token, BOTH).claims["sub"] == "object-1"
        await border.revoke_abroad(SelectorKind.SUBJECT, named, before=border.clock.now())
        assert border.ask(token) == inactive("revoked")


async def test_a_cutoff_takes_its_whole_second_along_and_spares_the_next(border: Border) -> None:
    """Their `iat` has no fraction: in doubt the token dies, and a sign-in a second later works."""
    border.clock.advance(0.9)
    await border.beat()
    token, later = border.abroad.mint(), border.abroad.mint(iat=int(border.clock.now()) + 1)
    await border.revoke_abroad(SelectorKind.SUBJECT, "alice", before=int(border.clock.now()) + 0.1)
    assert (border.ask(token), border.ask(later)) == (inactive("revoked"), ACTIVE)


async def test_a_grant_id_of_theirs_moves_no_cutoff(border: Border) -> None:
    """Whoever can choose a claim at the provider must not date his token after every cutoff."""
    token = border.abroad.mint(grant_id=entropy.uuid7(border.clock.now() + 86_400))
    await border.revoke_abroad(SelectorKind.SUBJECT, "alice", before=border.clock.now())
    assert border.ask(token) == inactive("revoked")


async def test_a_key_that_left_the_set_takes_its_cached_tokens_along(border: Border) -> None:
    """The provider withdrew it, perhaps since it was stolen."""
    token, kid = border.abroad.mint(), border.abroad._world.signing_kid
    border.abroad.rotate()
    await border.advance(COOL_DOWN_SECONDS)
    await border.foreign.renew()
    assert (border.ask(token), border.ask(border.abroad.mint())) == (ACTIVE, ACTIVE)
    del border.abroad.told[kid]
    await border.advance(COOL_DOWN_SECONDS)
    await border.foreign.renew()
    assert (border.ask(token), border.ask(border.abroad.mint())) == (inactive("unknown_kid"), ACTIVE)


async def test_another_key_under_the_same_kid_voids_what_the_first_signed(border: Border) -> None:
    """A verdict rests on its key, and not on a name."""
    token, kid = border.abroad.mint(), border.abroad._world.signing_kid
    assert border.ask(token) == ACTIVE
    other = border.abroad.rotate()
    border.abroad.told = {kid: border.abroad.told[other] | {"kid": kid}}
    await border.advance(COOL_DOWN_SECONDS)
    await border.foreign.renew()
    assert border.ask(token) == inactive("signature")
    assert border.ask(token) == inactive("signature")


async def test_keys_that_are_too_old_make_their_tokens_unknown_and_leave_ours_alone(border: Border) -> None:
    """Not knowing is not "no", in the cache and out of it."""
    token, fresh = border.abroad.mint(exp=int(border.clock.now()) + 3600), border.abroad.mint()
    assert border.ask(token) == ACTIVE
    border.abroad.reachable = False
    border.foreign.usable_until = border.clock.boottime() + 100
    await border.advance(99)
    assert (border.ask(token), border.ask(border.world.mint())) == (ACTIVE, ACTIVE)
    await border.advance(1)
    assert [border.ask(one) for one in (token, fresh, border.world.mint())] == [UNKNOWN, UNKNOWN, ACTIVE]
    with pytest.raises(IssuerKeysUnavailable, match="workforce") as caught:
        border.verifier.claims(token, BOTH)
    assert caught.value.silence_seconds == 100
    border.abroad.reachable = True
    await border.foreign.renew()
    assert border.ask(token) == ACTIVE
    assert border.foreign.usable_until - border.clock.boottime() == KEYS_GOOD_SECONDS + STALE_SECONDS


async def test_an_unknown_key_is_unknown_before_the_issuer_was_asked_and_inactive_after(border: Border) -> None:
    """The provider may have rotated since we asked."""
    stranger = border.abroad.mint(header={"kid": "invented"})
    await border.advance(COOL_DOWN_SECONDS)
    assert border.ask(stranger) == UNKNOWN
    await border.foreign.renew()
    assert border.ask(stranger) == inactive("unknown_kid")
    with pytest.raises(InvalidToken):
        border.verifier.claims(stranger, BOTH)
    await border.advance(COOL_DOWN_SECONDS)
    assert border.judge(stranger) == inactive("issuer")  # Nobody is asked where the policy does not take them.
    assert not border.foreign._wanted


async def test_pushes_and_changes_of_keys_void_nothing_that_stands(border: Border) -> None:
    """The second answer costs no signature, whatever was pushed in between."""
    token = border.abroad.mint()
    for _ in range(2):
        assert border.ask(token) == ACTIVE
    await border.revoke_abroad(SelectorKind.SUBJECT, "bob", before=border.clock.now())
    border.abroad.rotate()
    await border.advance(COOL_DOWN_SECONDS)
    await border.foreign.renew()
    for _ in range(3):
        assert border.ask(token) == ACTIVE
    figures = border.verifier.figures
    assert (figures.misses, figures.rechecks, figures.hits) == (1, 1, 3)


async def test_an_expired_replica_says_nothing_of_foreign_tokens_either(border: Border) -> None:
    """A revocation may have passed us by."""
    token = border.abroad.mint()
    assert border.ask(token) == ACTIVE
    border.clock.advance(border.world.freshness.expired_after_seconds + 1)
    assert border.ask(token) == (Kind.UNKNOWN, "replica_expired")


async def test_a_new_epoch_under_another_hash_key_finds_them_still(border: Border) -> None:
    """Names are hashed anew for each index."""
    token = border.abroad.mint()
    assert border.ask(token) == ACTIVE
    snapshot = border.world.genesis(Lane.REVOCATIONS, epoch=2, hash_key=b"the key of the second epoch")
    held = border.member.replica.position(Lane.REVOCATIONS)
    assert await border.world.feed.open_epoch(snapshot, after=str(held))
    await border.member.follower._read_all()
    assert border.ask(token) == ACTIVE
    await border.revoke_abroad(SelectorKind.SUBJECT, "alice", before=border.clock.now())
    assert border.ask(token) == inactive("revoked")
