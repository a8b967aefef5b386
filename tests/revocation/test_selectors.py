"""`POST /revocations` and `GET /revocations/{seq}`: operators revoke by selector and see who obeys."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from keyturn import entropy
from keyturn.contract.errors import ConfigurationError, FeedUnavailable
from keyturn.contract.positions import Lane
from keyturn.process.metrics import Metrics
from keyturn.verifier.freshness import State
from revocation.app import RevocationService
from revocation.description import LONGEST_REASON
from tests.building import ADMIN, CLIENT, standing
from tests.revocation.conftest import PROVIDER, VERIFIER, Office, office_on, settings_of
from tests.waiting import eventually
from tests.world import World, new_statement_key


@pytest.mark.parametrize(
    ("member", "claims"),
    [
        ("jti", {"jti": "the-jti"}),
        ("grant_id", {"grant_id": "0190a8c0-0000-7000-8000-000000000000"}),
        ("sid", {"sid": "the-session"}),
        ("sub", {"sub": "mallory"}),
        ("client_id", {"client_id": "her-app"}),
        ("aud", {"aud": ["https://api.example", "https://old.example"]}),
    ],
)
async def test_each_selector_ends_what_it_names_and_nothing_else(
    office: Office, member: str, claims: dict[str, Any]
) -> None:
    """A selector that names too much locks out the innocent; too little, and the thief stays."""
    named, innocent = office.jwt(**claims), office.jwt()
    assert office.passes(named)
    value = claims[member] if isinstance(claims[member], str) else claims[member][1]
    status, told = await office.admin("POST", "/revocations?wait=all", {"selector": {member: value}})
    assert (status, told["adopted"], told["live"], told["lane"], told["epoch"]) == (200, 1, 1, "revocations", 1)
    assert not office.passes(named)
    assert office.passes(innocent)


async def test_a_cutoff_catches_later_tokens_of_an_old_grant_and_spares_a_new_one(office: Office) -> None:
    """Checklist 10, RFC 7009, 2.1: however late a descendant is minted it dies; a new sign-in works."""
    world = office.stage.world
    old_grant = entropy.uuid7(world.clock.now() - 60)
    status, _ = await office.admin("POST", "/revocations?wait=all", {"selector": {"sub": "alice"}})
    assert status == 200
    cutoff = office.stage.parts.replica.latest_cutoff(world.claims(sub="alice"))
    assert not office.passes(office.jwt(sub="alice", grant_id=old_grant))
    assert office.passes(office.jwt(sub="alice", grant_id=entropy.uuid7(cutoff + 0.002)))


async def test_everything_before_a_moment_can_be_ended(office: Office) -> None:
    """The last resort, `{"before"}` alone; it ends the operator's own token as well."""
    token, now = office.jwt(), office.stage.world.clock.now()
    await eventually(lambda: office.stage.world.clock.now() > now + 0.005)
    status, _ = await office.admin("POST", "/revocations?wait=all", {"selector": {"before": now + 0.004}})
    assert (status, office.passes(token)) == (200, False)


async def test_an_answer_without_waiting_says_where_the_revocation_stands(office: Office) -> None:
    """Accepted means durable; adoption can be asked for later by its sequence."""
    reason = "r" * LONGEST_REASON
    status, told = await office.admin("POST", "/revocations", {"selector": {"sub": "eve"}, "reason": reason})
    assert (status, told["sequence"], told["durability"]) == (200, 1, "local")
    assert [entry.reason for event in await office.events() for entry in event.entries] == [reason]

    async def adopted() -> bool:
        status, told = await office.admin("GET", "/revocations/1")
        return bool(status == 200 and told["adopted"] == 1 and not told["laggards"] and told["slowest_ms"] >= 0)

    await eventually(adopted)


async def test_verifiers_are_asked_to_report_at_once_exactly_where_somebody_waits(office: Office) -> None:
    """Not asked, they report within a second, and `wait=all` takes as long; asked for nobody, all write each time.

    Whoever waits: a client for its token, an operator for a selector, and one who names the order by a key.
    """
    body = {"selector": {"sub": "eve"}}
    for query in ("", "?wait=all", "?wait=quorum"):
        assert (await office.revoke(office.jwt(), query=query))[0] == 200
        assert (await office.admin("POST", f"/revocations{query}", body))[0] == 200
        assert (await office.admin("POST", f"/revocations{query}", body, key=f"order{query}"))[0] == 200
    assert [event.report for event in await office.events()] == [False] * 3 + [True] * 6


async def test_a_laggard_is_named(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator learns where it still passes: 202, with the verifier's name."""

    async def deaf(*_arguments: object) -> None:
        return None

    monkeypatch.setattr(office.verifier.follower, "_take", deaf)
    status, told = await office.admin("POST", "/revocations?wait=all&timeout=0.2", {"selector": {"sub": "eve"}})
    assert (status, told["adopted"], told["laggards"]) == (202, 0, [VERIFIER])


async def test_a_dry_run_revokes_nothing(office: Office) -> None:
    """An operator looks before leaping."""
    body = {"selector": {"sub": "eve", "before": 1_700_000_000.5}, "dry_run": True}
    status, told = await office.admin("POST", "/revocations", body)
    selector = {"iss": office.stage.world.issuer, "sub": "eve", "before": 1_700_000_000.5}
    assert (status, told["dry_run"], told["selector"], office.position) == (200, True, selector, (1, 0))


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"selector": {}},
        {"selector": "sub"},
        {"selector": {"sub": ""}},
        {"selector": {"sub": "a", "jti": "b"}},
        {"selector": {"subject": "a"}},
        {"selector": {"kid": "a"}},
        {"selector": {"sub": "a", "before": 9e9}},
        {"selector": {"jti": "a", "before": 1.0}},
        {"selector": {"sub": "a", "iss": "https://other.example"}},
        {"selector": {"sub": "a", "iss": PROVIDER.removesuffix("/")}},
        {"selector": {"grant_id": "a", "iss": PROVIDER}},
        {"selector": {"sub": "a"}, "reason": 1},
        {"selector": {"sub": "a"}, "reason": "r" * (LONGEST_REASON + 1)},
        {"selector": {"sub": "a"}, "dry_run": "yes"},
        {"selector": {"sub": "a"}, "dryrun": True},
    ],
)
async def test_a_selector_that_is_none_is_refused(office: Office, body: dict[str, Any]) -> None:
    """A mistyped selector must not revoke all, nor look as if it had revoked something."""
    status, told = await office.admin("POST", "/revocations", body)
    assert (status, told["status"], office.position) == (400, 400, (1, 0))
    assert told["detail"]


@pytest.mark.parametrize("member", ["jti", "sid", "sub", "client_id", "aud"])
async def test_tokens_of_an_issuer_that_is_configured_can_be_revoked(office: Office, member: str) -> None:
    """For as long as that issuer's tokens live, as settings say, and with the margins that ours have."""
    world = office.stage.world
    claims = {"iss": PROVIDER, "iat": int(world.clock.now()) - 1, member: "x"}
    for selector, expected in (({member: "x"}, False), ({member: "x", "iss": PROVIDER}, True)):
        status, _ = await office.admin("POST", "/revocations?wait=all", {"selector": selector})
        replica = office.verifier.replica
        assert (status, replica.revokes(replica.names(claims))) == (200, expected)
    body = {"selector": {member: "x", "iss": PROVIDER}, "dry_run": True}
    began = world.clock.now()
    _, told = await office.admin("POST", "/revocations", body)
    lasting = 7200 + 2 * office.stage.parts.skew_seconds + 5 + 60
    assert began + lasting <= told["until"] <= world.clock.now() + lasting


async def test_a_place_that_is_not_there_is_404(office: Office) -> None:
    """Adoption of what never happened is not "all"."""
    for sequence, expected in (("0", 404), ("1", 404), ("x", 400), ("²", 400), ("9" * 40, 400)):
        assert (await office.admin("GET", f"/revocations/{sequence}"))[0] == expected


async def test_only_an_admin_token_may(office: Office) -> None:
    """A stolen client secret or signing key must not end everybody's sessions."""
    body = {"selector": {"sub": "alice"}}
    assert (await office.admin("POST", "/revocations", body, client_id=CLIENT))[0] == 401
    assert (await office.admin("POST", "/revocations", body, scope="read"))[0] == 403
    assert (await office.admin("GET", "/revocations/1", client_id=CLIENT))[0] == 401
    signed = office.jwt(client_id=ADMIN, scope="keyturn:admin")
    for headers in ({}, {"Authorization": f"Bearer {signed}"}):
        for method, path in (("POST", "/revocations"), ("GET", "/revocations/1")):
            async with office.http.request(method, path, json=body, headers=headers) as response:
                assert response.status == 401
                assert "Bearer" in response.headers["WWW-Authenticate"]
                assert response.content_type == "application/problem+json"
    assert office.position == (1, 0)


async def test_a_dead_feed_is_503(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it was written is unknown then: never 200."""

    async def silent(*_arguments: object, **_options: object) -> None:
        raise FeedUnavailable("gone")

    monkeypatch.setattr("keyturn.feed.redis.RedisFeed.append", silent)
    status, told = await office.admin("POST", "/revocations", {"selector": {"sub": "a"}})
    assert (status, told["code"]) == (503, "feed_unavailable")


async def test_the_service_beats_so_that_verifiers_stay_fresh(office: Office) -> None:
    """The lane's heartbeat is the only proof that no revocation is being withheld."""
    replica, clock = office.verifier.replica, office.stage.world.clock
    before = replica._heard[Lane.REVOCATIONS].at
    await eventually(lambda: replica._heard[Lane.REVOCATIONS].at > before)
    await office.stage.world.publisher(Lane.KEYS, office.verifier).beat()
    await eventually(lambda: replica.state(clock.now(), clock.boottime()) is State.FRESH)


async def test_a_lane_that_never_began_is_begun_only_where_that_is_allowed(valkey: Redis, tmp_path: Path) -> None:
    """An emptied store must not silently become a fresh start in which every revocation is forgotten."""
    async with standing(valkey) as stage:
        await valkey.delete("keyturn:revocations:head", "keyturn:revocations:snapshot")
        behind = await World(
            feed=stage.parts.feed, clock=stage.world.clock, root=stage.world.root, roles=stage.world.roles
        ).caught_up()
        assert behind.replica.position(Lane.REVOCATIONS) is None
        for bootstrap in ("false", "true"):
            folder = tmp_path / bootstrap
            folder.mkdir()
            parts = replace(
                stage.parts, replica=behind.replica, follower=behind.follower, metrics=Metrics(process="tests")
            )
            service = RevocationService(settings_of(stage, folder, KEYTURN_REVOCATION__BOOTSTRAP=bootstrap), parts)
            begun = await service._begun()
            assert begun is (bootstrap == "true")
            assert ("bootstrap" in str(service.unready())) is (bootstrap == "false")
        assert behind.replica.position(Lane.REVOCATIONS) is not None


async def test_a_service_that_starts_before_its_trust_or_its_store_waits(
    valkey: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is started first: it begins nothing that nobody has vouched for, and does not end either."""
    async with standing(valkey) as stage:
        unread = stage.world.member()
        parts = replace(stage.parts, replica=unread.replica, follower=unread.follower, metrics=Metrics(process="tests"))
        service = RevocationService(settings_of(stage, tmp_path, KEYTURN_REVOCATION__BOOTSTRAP="true"), parts)
        assert not await service._begun()
        unread.replica.adopt_trust(stage.world.trust())

        async def away() -> None:
            raise FeedUnavailable("gone")

        with monkeypatch.context() as patch, capture_logs() as logs:
            patch.setattr(unread.follower, "catch_up", away)
            assert not await service._begun()
        assert "lane_not_begun" in [line["event"] for line in logs]
        await unread.follower._read_all()
        assert await service._begun()


async def test_a_store_that_may_forget_reports_vouches_for_nobody_at_once(
    valkey: Redis, valkey_url: str, tmp_path: Path
) -> None:
    """A verifier whose report was lost with the server is still there: who has not been heard may not be "all"."""
    async with office_on(valkey, valkey_url, tmp_path, KEYTURN_REDIS__DURABLE="false") as office:
        status, told = await office.admin("POST", "/revocations?wait=all&timeout=0.3", {"selector": {"sub": "eve"}})
        assert (status, told["laggards"]) == (202, [])


async def test_what_it_stands_on_is_a_reason_to_be_unready(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """What sends requests here has to learn that a 200 could not be vouched for, and why."""
    assert office.service.unready() is None
    for owner, reason in ((office.service._store, "the server forgets"), (type(office.stage.parts), "stale")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, "unready", lambda *_: reason)  # noqa: B023 - it is asked at once
            assert office.service.unready() == reason
            async with office.http.get("/readyz") as answer:
                assert (answer.status, (await answer.json())["reasons"]["revocation"]) == (503, reason)


async def test_a_verifier_counts_as_live_for_as_long_as_it_may_still_answer(office: Office) -> None:
    """Live is until E + S after the last report: counted out sooner, `wait=all` would say yes while it lets some in."""
    freshness = office.stage.parts.replica.freshness
    lasting = freshness.expired_after_seconds + freshness.skew_seconds
    assert office.service._watch._live_seconds == lasting


async def test_the_lane_is_not_trimmed_before_its_streams_have_been_told(office: Office) -> None:
    """RFC 8936, 1: who keeps a snapshot asks them; what they say is tested with them."""
    assert office.service._publisher._needed == office.service._streams.need


async def test_a_key_without_the_role_makes_the_service_unready(valkey: Redis, tmp_path: Path) -> None:
    """It would sign what every verifier refuses, and answer 200 for it."""
    async with standing(valkey) as stage:
        service = RevocationService(settings_of(stage, tmp_path), stage.parts)
        assert "role" not in str(service.unready())
        stage.world.roles[Lane.REVOCATIONS] = new_statement_key()
        stage.parts.replica.adopt_trust(stage.world.trust(version=2))
        assert "role" in str(service.unready())


@pytest.mark.parametrize("broken", ["role.jwk", "genesis.jws", "records.json"])
async def test_a_broken_file_is_named_at_the_start(valkey: Redis, tmp_path: Path, broken: str) -> None:
    """One clear line and exit status 2, and not a service that fails at the first revocation."""
    async with standing(valkey) as stage:
        settings = settings_of(stage, tmp_path)
        (tmp_path / broken).write_text("{}")
        if broken == "genesis.jws":
            (tmp_path / broken).unlink()
        with pytest.raises(ConfigurationError) as caught:
            RevocationService(settings, stage.parts)
    assert caught.value.setting.endswith("_file")
