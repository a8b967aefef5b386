"""Row P14: what a check costs as revocations grow, and a rotation as followers grow."""

import asyncio
import sys
from pathlib import Path
from statistics import median

from benchmarks.issuer import ISSUER, TOKEN_SECONDS
from benchmarks.load import LOAD_CPU, SERVER_CPU, pinned
from benchmarks.rotation_orders import HURRY_SECONDS, rotations
from benchmarks.rounds import Row
from keyturn import entropy
from keyturn.cli.newclients import DEFAULT_AUDIENCE
from keyturn.cli.provisioning import Plan, provision
from keyturn.clock import SystemClock
from keyturn.contract.encoding import b64url, decode_object, encode_json
from keyturn.contract.envelope import StatementKey
from keyturn.contract.events import KeysSnapshot, RevocationsSnapshot, Snapshot, sign_snapshot
from keyturn.contract.jwk import ALGORITHMS, load_ed25519_private, public_jwk, thumbprint
from keyturn.contract.keys import KeyRecord, Use
from keyturn.contract.positions import Lane
from keyturn.contract.revocations import RevocationIndex
from keyturn.contract.snapshots import Section
from keyturn.contract.trust import open_trust
from keyturn.verifier.freshness import Freshness
from keyturn.verifier.policy import Policy
from keyturn.verifier.replica import Replica
from keyturn.verifier.verdict import Kind
from keyturn.verifier.verifier import TokenVerifier

REVOCATIONS = (1, 1_000, 1_000_000, 10_000_000)
LARGEST_GIB = 2  # Free memory that ten million revocations want, with room to spare.
ROUNDS, CHECKS = 9, 1_000
FLATTEST = 1.15
FOLLOWERS, ROTATIONS = (1, 50, 500), 20
_SPREAD_SECONDS = 3600  # Over which the revocations run out.


def measure(directory: Path) -> list[Row]:
    """Measure both growths."""
    with pinned(SERVER_CPU):
        checks = _checks(directory / "verifier")
    with pinned(LOAD_CPU):
        return [checks, _orders(directory)]


def _checks(home: Path) -> Row:
    """Judge tokens that are not cached, and cached ones after a step of the feed, under each number of revocations."""
    replica, tokens = _replica(home)
    indexes = {count: _index(count) for count in REVOCATIONS if count < REVOCATIONS[-1] or _free_gib() > LARGEST_GIB}
    took: dict[tuple[str, int], list[float]] = {(how, count): [] for how in ("check", "re-check") for count in indexes}
    for _ in range(ROUNDS):
        for count, index in indexes.items():
            replica.indexes = (index,)
            took["check", count].append(_judge(replica, tokens, cached=False))
            took["re-check", count].append(_judge(replica, tokens, cached=True))
    microseconds = {what: median(rounds) * 1e6 for what, rounds in took.items()}
    figure = max(microseconds["check", count] / microseconds["check", REVOCATIONS[0]] for count in indexes)
    facts = {f"{how} under {count:,} revocations, us": round(one, 2) for (how, count), one in microseconds.items()}
    what = f"check of an ES256 token under {max(indexes):,} revocations / under 1 (flat)"
    return Row(
        id="P14 (verify)", what=what, goal=f"<= {FLATTEST:.2f}", figure=round(figure, 3), holds=figure <= FLATTEST,
        facts=facts,
    )  # fmt: skip


def _orders(directory: Path) -> Row:
    """Rotate in a hurry, so that each order waits for reports, with ever more followers.

    Those that one process cannot serve are in two, half of them on the services' CPU: the figure is rather too high.
    """
    milliseconds: dict[int, float] = {}
    for followers in FOLLOWERS:
        home = directory / f"{followers}"
        taken = asyncio.run(rotations(home, followers=followers, count=ROTATIONS, pause_seconds=HURRY_SECONDS))
        milliseconds[followers] = sum(taken.seconds) / len(taken.seconds) * 1000
        print(f"  {followers} followers: {milliseconds[followers]:.1f} ms", file=sys.stderr, flush=True)
    most = FOLLOWERS[-1]
    figure = milliseconds[most] / milliseconds[1]
    facts = {f"rotation with {count} followers, mean ms": round(one, 1) for count, one in milliseconds.items()}
    what = f"rotation with {most} followers / with 1 (grows no faster than followers)"
    return Row(
        id="P14 (rotate)", what=what, goal=f"<= {most}", figure=round(figure, 2), holds=figure <= most, facts=facts
    )


def _judge(replica: Replica, tokens: list[bytes], *, cached: bool) -> float:
    """Return seconds a token: by a verifier that has seen none of them, or all of them before the feed moved on."""
    clock, policy = SystemClock(), Policy(audience=DEFAULT_AUDIENCE)
    verifier = TokenVerifier(replica, clock)
    if cached:
        for token in tokens:
            verifier.judge(token, policy)
        replica.generation += 1
    began = clock.boottime()
    for token in tokens:
        if verifier.judge(token, policy).kind is not Kind.ACTIVE:
            raise AssertionError("a good token was rejected")
    return (clock.boottime() - began) / len(tokens)


def _index(count: int) -> RevocationIndex:
    """Return an index of so many single tokens, which run out over the next hour."""
    index, now = RevocationIndex(entropy.token_bytes(16)), SystemClock().now()
    for start in range(0, count, 4096):
        names = entropy.token_bytes(8 * min(4096, count - start))
        for offset in range(0, len(names), 8):
            index.add_hashed(
                int.from_bytes(names[offset : offset + 8], "big"), None, now + names[offset] * _SPREAD_SECONDS / 256
            )
    return index


def _replica(home: Path) -> tuple[Replica, list[bytes]]:
    """Return a fresh replica with one key, and tokens of that key."""
    now, boottime = SystemClock().now(), SystemClock().boottime()
    provision(home, Plan(issuer=ISSUER), now=now)
    root = decode_object((home / "root.jwk").read_bytes())
    replica = Replica(issuer=ISSUER, freshness=Freshness(stale_after_seconds=3600, expired_after_seconds=7200))
    replica.adopt_trust(open_trust((home / "trust.jws").read_bytes(), root=root, allow_dev=False))
    key = entropy.new_key("ES256")
    jwk = public_jwk(key.public_key())
    kid, until = thumbprint(jwk), now + 86_400
    record = KeyRecord(
        kid=kid, alg="ES256", jwk=jwk, use=Use.ACCESS, token_seconds=TOKEN_SECONDS, published_at=now,
        published_place=(2, 0), active_at=now, sign_until=until, verify_until=until + TOKEN_SECONDS + 60,
    )  # fmt: skip
    snapshots: tuple[Snapshot, ...] = (
        KeysSnapshot(epoch=2, sequence=0, at=now, trust=1, keys=(record,)),
        RevocationsSnapshot(
            epoch=2, sequence=0, at=now, trust=1, sections=(Section(hash_key=entropy.token_bytes(16)),)
        ),
    )
    for lane, snapshot in zip(Lane, snapshots, strict=True):
        role = StatementKey(load_ed25519_private(decode_object((home / "roles" / f"{lane}.jwk").read_bytes())))
        replica.admit_snapshot(lane, sign_snapshot(role, snapshot).compact, now=now, boottime=boottime)
    header = b64url(encode_json({"alg": "ES256", "kid": kid, "typ": "at+jwt"}))
    tokens = []
    for number in range(CHECKS):
        claims = {
            "iss": ISSUER, "sub": f"service-account-{number}", "client_id": "client", "aud": DEFAULT_AUDIENCE,
            "scope": "read write", "iat": int(now), "exp": int(now + TOKEN_SECONDS), "jti": entropy.uuid7(now),
            "grant_id": entropy.uuid7(now),
        }  # fmt: skip
        signing_input = f"{header}.{b64url(encode_json(claims))}".encode("ascii")
        signature: bytes = ALGORITHMS["ES256"].sign(signing_input, key)
        tokens.append(signing_input + b"." + b64url(signature).encode("ascii"))
    return replica, tokens


def _free_gib() -> float:
    lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    kib = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    return kib / 1024**2
