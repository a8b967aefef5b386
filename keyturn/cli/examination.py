"""Gathers what a doctor goes by: from the store as each of its users, from the feed, and from the processes."""

import asyncio
from collections.abc import Awaitable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio import Redis
from redis.exceptions import RedisError

from keyturn.cli.answers import CannotTell, WrongUsage
from keyturn.cli.environment import Environment
from keyturn.cli.facts import ArchiveFacts, Facts, LaneFacts, ServiceFacts, UserFacts
from keyturn.cli.origin import origin
from keyturn.cli.rights import may, rights_of
from keyturn.clock import Clock
from keyturn.contract.envelope import StatementType, statement_type
from keyturn.contract.errors import (
    ArchiveFailed,
    ConfigurationError,
    FeedUnavailable,
    MalformedInput,
    StoreUnavailable,
    TrustError,
)
from keyturn.contract.events import open_event, open_head, open_snapshot
from keyturn.contract.positions import Lane, parse_position
from keyturn.contract.reports import Report, open_report
from keyturn.contract.trust import IdentityKind, Trust
from keyturn.feed.archive import Archive, segments
from keyturn.feed.log import Top
from keyturn.feed.redis import RedisFeed
from keyturn.process.belonging import Pinned, require_ours
from keyturn.process.feeding import FeedSettings
from keyturn.process.following import connect_as
from keyturn.process.freshness import FreshnessSettings
from keyturn.process.pinned import read_root
from keyturn.process.redis import ServerFacts, server_facts, store_errors
from keyturn.process.settings import (
    IssuerSettings,
    RedisSettings,
    SectionPart,
    Settings,
    TrustSettings,
    is_loopback,
)
from keyturn.process.values import Listen, Secret
from keyturn.verifier.follower import Follower, unnoted
from keyturn.verifier.replica import Replica

SERVICES = ("authorization", "keyservice", "introspection", "revocation")
MOST_VERIFIERS_TRIED = 16  # Users of verifiers that are logged in as; there may be hundreds.
REPORT_PAUSE_SECONDS = 1.5  # After which a verifier has reported again.
_KEEPERS_OF_KEYS = ("keyservice", "worker")
_WATCHERS = (*_KEEPERS_OF_KEYS, "revocation")
_EVERYBODY = "everybody"  # Where the URL names the one user that there is.
_PORTS = {"authorization": 8401, "keyservice": 8402, "introspection": 8403, "revocation": 8404, "sidecar": 8410}


@dataclass(frozen=True, kw_only=True, slots=True)
class Patient:
    """What is looked at: the store, what is pinned, and the processes by name and URL."""

    store: RedisSettings
    pinned: Pinned
    fresh: FreshnessSettings
    services: Mapping[str, str]
    archive: Path | None = None


@dataclass
class _Lines:
    """Connections to the store by user, and what was found out about each."""

    clients: dict[str, Redis] = field(default_factory=dict)
    users: dict[str, UserFacts] = field(default_factory=dict)

    def one_of(self, *wanted: str) -> Redis | None:
        """Return a connection of one of these users, or of the only one that there is."""
        return next((self.clients[user] for user in (*wanted, _EVERYBODY) if user in self.clients), None)

    def any(self) -> Redis | None:
        """Return the connection that may ask most."""
        return self.one_of(*_WATCHERS) or next(iter(self.clients.values()), None)


def from_settings(settings: Settings) -> Patient:
    """Return what a configuration names; raises ConfigurationError."""
    trust, issuer = settings.section(TrustSettings), settings.section(IssuerSettings)
    listening = {name: _listening(settings, name) for name in (*SERVICES, "sidecar") if settings.has(name)}
    return Patient(
        store=settings.section(RedisSettings),
        pinned=Pinned(issuer=issuer.url, root=read_root(trust.root), allow_dev=trust.allow_dev),
        fresh=settings.section(FreshnessSettings),
        services=listening,
        archive=settings.section(FeedSettings).archive,
    )


def from_environment(environment: Environment) -> Patient:
    """Return what `dev.env` names; raises WrongUsage and ConfigurationError. On loopback a `dev` document will do."""
    issuer, root = environment.issuer, Path(environment.require("KEYTURN_ROOT"))
    parts = urlsplit(environment.require("KEYTURN_REDIS_URL"))
    try:
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise WrongUsage("KEYTURN_REDIS_URL is not a URL") from error
    place = (f"{parts.username}@" if parts.username else "") + host + (f":{port}" if port else "")
    bare = urlunsplit((parts.scheme, place, parts.path, "", ""))
    password = None if parts.password is None else Secret(parts.password.encode())
    return Patient(
        store=RedisSettings(url=bare, password=password),
        pinned=Pinned(issuer=issuer, root=read_root(root), allow_dev=is_loopback(urlsplit(issuer).hostname)),
        fresh=FreshnessSettings(),
        services={"issuer": issuer} | {f"sidecar {url}": url for url in environment.sidecars},
    )


def _listening(settings: Settings, name: str) -> str:
    @dataclass(frozen=True, kw_only=True, slots=True)
    class Place(SectionPart):
        SECTION: ClassVar[str] = name
        listen: Listen | None = None

    listen = settings.section(Place).listen or Listen(host="127.0.0.1", port=_PORTS[name])
    if listen.path is not None:
        return f"unix:{listen.path}"
    host = "127.0.0.1" if listen.host in ("0.0.0.0", "::", "") else listen.host  # noqa: S104 - asked, not listened on
    return f"http://{f'[{host}]' if ':' in host else host}:{listen.port}"


async def gather(patient: Patient, clock: Clock) -> Facts:
    """Find out all that can be found out; what cannot be is left open."""
    async with AsyncExitStack() as stack:
        lines = _Lines()
        await _log_in(stack, patient.store, lines)
        redis = lines.any()
        found: dict[str, Any] = {} if redis is None else await _from_store(redis, lines, patient, clock)
        services = await asyncio.gather(*(_ask(url) for url in patient.services.values()))
        return Facts(
            now=clock.now(), freshness=patient.fresh.freshness(), users=lines.users,
            archive=None if patient.archive is None else await asyncio.to_thread(look_into, patient.archive),
            separate_users=patient.store.credentials is not None, durable=patient.store.durable,
            services=dict(zip(patient.services, services, strict=True)), **found,
        )  # fmt: skip


async def _log_in(stack: AsyncExitStack, store: RedisSettings, lines: _Lines) -> None:
    for user in _users(store):
        try:
            redis = connect_as(stack, store, user)
            with store_errors(StoreUnavailable):
                await cast("Awaitable[Any]", redis.ping())
                lines.users[user] = UserFacts() if store.credentials is None else await _tried(redis, user)
                lines.clients[user] = redis
        except (ConfigurationError, StoreUnavailable, RedisError) as error:
            lines.users[user] = UserFacts(trouble=str(error))


def _users(store: RedisSettings) -> list[str]:
    """Return whom to log in as: services, and some of the verifiers, whose passwords lie here."""
    if store.credentials is None:
        return [_EVERYBODY]
    names = sorted(path.stem for path in store.credentials.glob("*.password") if path.stem != "default")
    services = [name for name in names if name in (*SERVICES, "worker")]
    return services + [name for name in names if name not in services][:MOST_VERIFIERS_TRIED]


async def _tried(redis: Redis, user: str) -> UserFacts:
    lacks, exceeds = [], []
    for right in rights_of(user):
        allowed = await may(redis, right.question)
        if right.must and not allowed:
            lacks.append(right.words)
        elif allowed and not right.must:
            exceeds.append(right.words)
    return UserFacts(lacks=tuple(lacks), exceeds=tuple(exceeds))


async def _from_store(redis: Redis, lines: _Lines, patient: Patient, clock: Clock) -> dict[str, Any]:
    feed, found = RedisFeed(redis, pubsub=redis), dict[str, Any]()
    try:
        found["server"] = await _server(redis)
        compact = await feed.trust()
        if compact is None:
            found["trust_trouble"] = "the store has no trust document"
        else:
            try:
                found["trust"] = require_ours(compact, patient.pinned)
            except ConfigurationError as error:
                found["trust_trouble"] = str(error)
        replica = Replica(issuer=patient.pinned.issuer, freshness=patient.fresh.freshness())
        found["lanes"] = await _begin(feed, replica, patient, clock)
        found["keys"] = replica.keys
        if (keeper := lines.one_of(*_KEEPERS_OF_KEYS)) is not None:
            found["sealed"] = frozenset(await RedisFeed(keeper, pubsub=keeper).sealed_keys())
        if (watcher := lines.one_of(*_WATCHERS)) is not None and "trust" in found:
            found["reports"] = await _reports(watcher, found["trust"], found["lanes"], clock)
    except (FeedUnavailable, StoreUnavailable):
        pass  # What was not found out is left open, and the checks say so.
    return found


async def _server(redis: Redis) -> ServerFacts:
    with store_errors(StoreUnavailable):
        return await server_facts(redis)


async def _begin(feed: RedisFeed, replica: Replica, patient: Patient, clock: Clock) -> dict[Lane, LaneFacts]:
    """Do what a verifier does that begins now, and say how far it gets."""
    complaints: dict[Lane, list[str]] = {lane: [] for lane in Lane}

    def note(event: str, **facts: object) -> None:
        if facts.get("lane") in complaints:
            complaints[Lane(str(facts["lane"]))].append(str(facts.get("reason", event)))

    tops = {lane: await feed.top(lane) for lane in Lane}
    follower = Follower(feed, replica, clock, root=patient.pinned.root, allow_dev=patient.pinned.allow_dev, note=note)
    await follower.catch_up()
    return {lane: _lane_facts(lane, top, replica, tuple(dict.fromkeys(complaints[lane]))) for lane, top in tops.items()}


def _lane_facts(lane: Lane, top: Top | None, replica: Replica, complaints: tuple[str, ...]) -> LaneFacts:
    held = replica.place(lane)
    if top is None:
        return LaneFacts(held=held, complaints=complaints)
    try:
        place = parse_position(top.position).place
    except MalformedInput:
        return LaneFacts(top=top.position, held=held, complaints=complaints)
    return LaneFacts(
        top=top.position, top_place=place, held=held, complaints=complaints,
        said_at=_said_at(lane, top.statement, replica.trust),
    )  # fmt: skip


def _said_at(lane: Lane, statement: bytes, trust: Trust) -> float | None:
    """Return when the newest statement was signed, None if the lane's role did not sign it."""
    signers = trust.role(lane)
    try:
        match statement_type(statement):
            case StatementType.EVENT:
                return open_event(statement, lane, signers).event.at
            case StatementType.HEAD:
                return open_head(statement, lane, signers).head.at
            case StatementType.SNAPSHOT:
                return open_snapshot(statement, lane, signers).snapshot.at
    except TrustError:
        return None
    return None


async def _reports(redis: Redis, trust: Trust, lanes: Mapping[Lane, LaneFacts], clock: Clock) -> list[Report]:
    """Return the verifiers' reports; where one lags, those of a moment later: it may not have reported yet."""
    reports = await _read_reports(redis, trust)
    tops = {lane: one.top_place or (0, 0) for lane, one in lanes.items()}
    if any(one.keys < tops[Lane.KEYS] or one.revocations < tops[Lane.REVOCATIONS] for one in reports):
        await clock.sleep(REPORT_PAUSE_SECONDS)
        reports = await _read_reports(redis, trust)
    return reports


async def _read_reports(redis: Redis, trust: Trust) -> list[Report]:
    identities = trust.document.identities
    names = [name for name, one in identities.items() if one.kind is IdentityKind.VERIFIER]
    reports = []
    for name, compact in (await RedisFeed(redis, pubsub=redis).reports(names)).items():
        try:
            reports.append(open_report(compact, name, trust.identity(name, IdentityKind.VERIFIER)))
        except TrustError:
            continue  # Not its word: as good as none.
    return reports


def look_into(directory: Path) -> ArchiveFacts:
    """Say what an archive holds: the next segment must follow the newest of its lane."""
    archive = Archive(directory, note=unnoted)
    try:
        archive.require_writable()
        found = segments(directory)
        newest = {lane: one.end() for lane, one in {one.lane: one for one in found}.items()}
    except (ConfigurationError, ArchiveFailed, OSError) as error:
        return ArchiveFacts(directory=str(directory), trouble=str(error))
    ends = tuple(f"{lane} {end.epoch}:{end.sequence}" for lane, end in newest.items())
    return ArchiveFacts(directory=str(directory), segments=len(found), ends=ends)


async def _ask(url: str) -> ServiceFacts:
    try:
        async with origin(url) as process:
            answer = await process.ask("GET", "/readyz", accept=(200, 503))
    except (CannotTell, WrongUsage) as error:
        return ServiceFacts(ready=None, detail=str(error))
    ready = answer.status == 200  # noqa: PLR2004 - HTTP
    return ServiceFacts(ready=ready, detail=f"ready at {url}" if ready else answer.problem)
