"""Rows P11 and P12: what a million revocations take in memory and in time, and how soon a follower begins with them."""

import asyncio
import gc
import struct
import sys
import tracemalloc
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.issuer import ISSUER
from benchmarks.load import SERVER_CPU, pinned
from benchmarks.rounds import Row
from keyturn import entropy
from keyturn.cli.provisioning import Plan, provision
from keyturn.clock import SystemClock
from keyturn.contract.encoding import decode_object
from keyturn.contract.envelope import StatementKey
from keyturn.contract.events import RevocationsSnapshot, sign_snapshot
from keyturn.contract.jwk import load_ed25519_private
from keyturn.contract.positions import Lane
from keyturn.contract.revocations import RevocationIndex
from keyturn.contract.selectors import TokenNames
from keyturn.contract.snapshots import pack, unpack
from keyturn.contract.trust import open_trust
from keyturn.feed.publisher import bootstrap
from keyturn.feed.redis import RedisFeed
from keyturn.process.redis import connect
from keyturn.verifier.follower import Follower
from keyturn.verifier.freshness import Freshness
from keyturn.verifier.replica import Replica
from stack.server import EmbeddedServer

COUNT, ROUNDS, LOOK_UPS = 1_000_000, 7, 50_000
MOST_BYTES, LONGEST_LOOK_UP_US, LONGEST_START_SECONDS = 16.0, 2.0, 0.7
TOGETHER = 64  # Revocations that arrive in one event.
_SPREAD_SECONDS = 3600  # Over which they run out.


def measure(directory: Path) -> list[Row]:
    """Measure memory and look-ups, then starts from a real store."""
    names = _random_names(COUNT)
    with pinned(SERVER_CPU):
        rows = _memory(names)
    return [*rows, asyncio.run(_starts(directory / "home", names))]


def _memory(names: Sequence[int]) -> list[Row]:
    clock, now = SystemClock(), SystemClock().now()
    index, pauses = RevocationIndex(entropy.token_bytes(16)), []
    gc.collect()  # It looks at our own million names once, and that is no pause of the index.
    for start in range(0, len(names), TOGETHER):
        began = clock.boottime()
        _add(index, names[start : start + TOGETHER], now)
        pauses.append(clock.boottime() - began)
    others = _random_names(LOOK_UPS)
    times = {"held": names[::-1][:LOOK_UPS], "not held": others}
    looked = {what: median(_look(index, asked, what == "held") for _ in range(ROUNDS)) for what, asked in times.items()}
    ordered = array("Q", sorted(names))
    yardstick = median(_bisect(ordered, times["held"]) for _ in range(ROUNDS))
    packed = pack([index])
    steps = _longest_step(packed.sections[0].hash_key, index)
    tracemalloc.start()
    traced = RevocationIndex(index.key)
    for start in range(0, len(names), TOGETHER):
        _add(traced, names[start : start + TOGETHER], now)
    size = tracemalloc.get_traced_memory()[0] / len(names)
    tracemalloc.stop()
    slowest = max(looked.values())
    pauses.sort()
    facts = {
        **{f"look-up of a hash that is {what}, us": round(one, 2) for what, one in looked.items()},
        "bisection in one sorted array of all, us": round(yardstick, 2),
        f"arrival of {TOGETHER} together, median us": round(median(pauses) * 1e6, 1),
        f"arrival of {TOGETHER} together, 99.9 % us": round(pauses[int(len(pauses) * 0.999)] * 1e6, 1),
        "longest pause while 1 million arrive, ms": round(pauses[-1] * 1e3, 2),
        "longest step of loading 1 million, ms": round(steps * 1e3, 2),
    }
    return [
        Row(
            id="P11", what="bytes for each of 1 million revocations that came one by one", goal=f"<= {MOST_BYTES:.2f}",
            figure=round(size, 2), holds=size <= MOST_BYTES, facts=facts,
        ),
        Row(
            id="P11 (look-up)", what="look-up among 1 million revocations, the slower of held and not held, us",
            goal=f"<= {LONGEST_LOOK_UP_US:.2f}", figure=round(slowest, 2), holds=slowest <= LONGEST_LOOK_UP_US,
        ),
    ]  # fmt: skip


def _add(index: RevocationIndex, names: Sequence[int], now: float) -> None:
    index.add_tokens(names, [now + (name & 0xFF) * _SPREAD_SECONDS / 256 for name in names])


def _look(index: RevocationIndex, names: Sequence[int], held: bool) -> float:
    """Return the microseconds that one look-up takes."""
    clock, asked = SystemClock(), [TokenNames((name,), (), 0.0, False) for name in names]
    began = clock.boottime()
    found = sum(map(index.revokes, asked))
    took = clock.boottime() - began
    if found != (len(names) if held else 0):
        raise AssertionError("the index does not hold what it was given, or more")
    return took / len(names) * 1e6


def _bisect(hashes: "array[int]", names: Sequence[int]) -> float:
    """Return the microseconds that the plainest look-up takes, which can neither forget nor be put together quickly."""
    clock = SystemClock()
    began = clock.boottime()
    found = sum(hashes[bisect_left(hashes, name)] == name for name in names)
    took = clock.boottime() - began
    if found != len(names):
        raise AssertionError("the array does not hold what it was given")
    return took / len(names) * 1e6


def _longest_step(key: bytes, index: RevocationIndex) -> float:
    """Return the seconds that the longest step of merging all leaves into an empty index takes."""
    clock, longest = SystemClock(), 0.0
    (copy,) = unpack(*pack([index]))
    target = RevocationIndex(key)
    target.expect(exact=len(copy), cutoffs=0)
    began = clock.boottime()
    for number, leaf in copy.leaves(cutoffs=False):
        for _ in target.merge(number, leaf, cutoffs=False, whole=True):
            longest = max(longest, clock.boottime() - began)
            began = clock.boottime()
    return longest


async def _starts(home: Path, names: Sequence[int]) -> Row:
    """Let new followers begin, one after the other, with a store that holds a snapshot of all."""
    clock = SystemClock()
    now = clock.now()
    provision(home, Plan(issuer=ISSUER), now=now)
    index = RevocationIndex(entropy.token_bytes(16))
    for start in range(0, len(names), TOGETHER):
        _add(index, names[start : start + TOGETHER], now)
    packed = pack([index])
    key = StatementKey(load_ed25519_private(decode_object((home / "roles" / "revocations.jwk").read_bytes())))
    root = decode_object((home / "root.jwk").read_bytes())
    document = (home / "trust.jws").read_bytes()
    trust = open_trust(document, root=root, allow_dev=False)
    async with EmbeddedServer(home / "valkey") as server:
        redis, pubsub = (
            connect(server.url(), client_name="bench"),
            connect(server.url(), client_name="bench", subscribing=True),
        )
        feed = RedisFeed(redis, pubsub=pubsub)
        await feed.keep_trust(document)
        await bootstrap(feed, (home / "genesis" / "keys.jws").read_bytes(), trust, Lane.KEYS)
        snapshot = RevocationsSnapshot(epoch=1, sequence=0, at=now, trust=1, sections=packed.sections)
        began = clock.boottime()
        await feed.open_epoch(sign_snapshot(key, snapshot), after=None, chunks=packed.chunks)
        stored = clock.boottime() - began
        took = []
        for number in range(1, ROUNDS + 1):
            replica = Replica(issuer=ISSUER, freshness=Freshness())
            follower = Follower(feed, replica, clock, root=root)
            began = clock.boottime()
            task = asyncio.create_task(follower.run())
            await follower.ready()
            took.append(clock.boottime() - began)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if len(replica.indexes[0]) != len(names):
                raise AssertionError("a follower began with fewer revocations than there are")
            print(f"  start {number} of {ROUNDS}: {took[-1]:.3f} s", file=sys.stderr, flush=True)
        await redis.aclose()
        await pubsub.aclose()
    figure = median(took)
    facts = {
        "shortest start of a follower, s": round(min(took), 3),
        "longest start of a follower, s": round(max(took), 3),
        "storing a first snapshot of 1 million, s": round(stored, 3),
        "chunks of a snapshot of 1 million": len(packed.chunks),
    }
    return Row(
        id="P12", what="follower's start from a snapshot of 1 million revocations, s",
        goal=f"<= {LONGEST_START_SECONDS:.2f}", figure=round(figure, 3), holds=figure <= LONGEST_START_SECONDS,
        facts=facts,
    )  # fmt: skip


def _random_names(count: int) -> tuple[int, ...]:
    return struct.unpack(f"<{count}Q", entropy.token_bytes(8 * count))
