"""Bugs that were put into the production code on purpose: the model must find each of them, and soon."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import keyturn.feed.presence
from keyservice.rotator import Rotator
from keyservice.signer import Signer
from keyturn.contract import rotation
from keyturn.contract.errors import BrokenChain, ForgedSignature, InvalidToken, PositionTaken
from keyturn.contract.events import SignedEvent
from keyturn.contract.positions import Position
from keyturn.contract.reports import Report, open_report
from keyturn.contract.rotation import Adoption, RotationPolicy
from keyturn.feed.log import NOTHING_BESIDE, Beside
from keyturn.feed.memory import MemoryFeed
from keyturn.feed.presence import PresenceWatch
from keyturn.verifier.verifier import TokenVerifier
from tests.rotation.facts import Broken
from tests.rotation.histories import History

MOST_HISTORIES = 40
FIRST_SEED = 1000
Plant = Callable[[pytest.MonkeyPatch], None]


def forgets_the_cache(patch: pytest.MonkeyPatch) -> None:
    """Early activation: the time rule leaves C out, and its half of D."""
    patch.setattr(RotationPolicy, "publication_seconds", property(lambda self: self.distribution_seconds / 2))


def overlooks_laggards(patch: pytest.MonkeyPatch) -> None:
    """Early activation: nobody is waited for."""
    patch.setattr(Adoption, "laggards", lambda _self, _place: [])


def waits_for_one_alone(patch: pytest.MonkeyPatch) -> None:
    """Early activation: one report stands for all."""
    laggards = Adoption.laggards
    patch.setattr(Adoption, "laggards", lambda self, place: laggards(self, place)[1:])


def removes_early(patch: pytest.MonkeyPatch) -> None:
    """Early removal: T is forgotten."""
    removable_at = rotation.removable_at
    patch.setattr(rotation, "removable_at", lambda key, rules: removable_at(key, rules) - key.token_seconds)


def removes_late(patch: pytest.MonkeyPatch) -> None:
    """Late removal: a retired key stays in the JWKS for another T."""
    removable_at = rotation.removable_at
    patch.setattr(rotation, "removable_at", lambda key, rules: removable_at(key, rules) + key.token_seconds)


def declares_dead_too_soon(patch: pytest.MonkeyPatch) -> None:
    """Wrong liveness: a verifier that can still serve counts as gone."""
    live = PresenceWatch._live

    def shorter(self: PresenceWatch) -> dict[str, Any]:
        horizon = self._clock.boottime() - self._live_seconds / 4
        return {name: seen for name, seen in live(self).items() if seen.boottime > horizon}

    patch.setattr(PresenceWatch, "_live", shorter)


def trusts_an_unknown_set(patch: pytest.MonkeyPatch) -> None:
    """Wrong liveness: a worker that has just started believes that it sees everybody, without having looked."""
    patch.setattr(PresenceWatch, "complete", True)


def trusts_what_it_saw_long_ago(patch: pytest.MonkeyPatch) -> None:
    """Wrong liveness: who has not looked for long takes everybody for dead (as it was before this model found it)."""
    patch.setattr(keyturn.feed.presence, "_LOOKED_WITHIN_SECONDS", float("inf"))
    decides_without_looking(patch)


def decides_without_looking(patch: pytest.MonkeyPatch) -> None:
    """Wrong liveness: a verifier that began since the last look is not waited for (likewise)."""
    look, decide, deciding = PresenceWatch.look, Rotator._decide, list[PresenceWatch]()

    async def blindly(self: Rotator, *asked: Any) -> Any:
        deciding.append(self._watch)
        try:
            return await decide(self, *asked)
        finally:
            deciding.remove(self._watch)

    async def unless_deciding(self: PresenceWatch) -> None:
        if self not in deciding:
            await look(self)

    patch.setattr(Rotator, "_decide", blindly)
    patch.setattr(PresenceWatch, "look", unless_deciding)


def loses_the_standby(patch: pytest.MonkeyPatch) -> None:
    """Lost standby: an emergency makes no new one."""
    emergency = rotation.emergency

    def without(*arguments: Any) -> Any:
        found = emergency(*arguments)
        return found if found is None or found.activate_new else rotation.Transition(changes=found.changes)

    patch.setattr("keyservice.rotator.emergency", without)


def signs_without_a_lease(patch: pytest.MonkeyPatch) -> None:
    """Sign after lease: it is never looked at."""
    patch.setattr(Signer, "_leased", lambda _self: True)


def looks_at_the_lease_once(patch: pytest.MonkeyPatch) -> None:
    """Sign after lease: a process that was stopped between look and signature signs all the same."""
    leased, signed = Signer._leased, Signer._signed
    inside: list[Signer] = []

    def remembering(self: Signer, *arguments: Any) -> list[str]:
        inside.append(self)
        return signed(self, *arguments)

    def once(self: Signer) -> bool:
        if self in inside:
            inside.remove(self)
            return True
        return leased(self)

    patch.setattr(Signer, "_signed", remembering)
    patch.setattr(Signer, "_leased", once)


def accepts_replays(patch: pytest.MonkeyPatch) -> None:
    """Report replay accepted: an old goodbye, or an old word on another place, counts as new."""
    patch.setattr(Report, "order", property(lambda _self: _Newest()))


class _Newest(tuple[str, int]):
    """Comes after everything."""

    __slots__ = ()

    def __le__(self, other: object) -> bool:
        return False


def believes_forged_reports(patch: pytest.MonkeyPatch) -> None:
    """Forged report accepted: whoever writes in a verifier's name is believed."""

    def open_any(compact: bytes, verifier: str, signers: Any) -> Report:
        try:
            return open_report(compact, verifier, signers)
        except ForgedSignature:
            return Report(
                verifier=verifier, incarnation="0", count=0, at=9e9, keys=(9, 9), revocations=(9, 9), state="fresh"
            )

    patch.setattr(keyturn.feed.presence, "open_report", open_any)
    patch.setattr(Report, "order", property(lambda _self: _Newest()))


def appends_anywhere(patch: pytest.MonkeyPatch) -> None:
    """Two workers make two: the store no longer compares before it adds."""
    append = MemoryFeed.append

    async def regardless(
        self: MemoryFeed, event: SignedEvent, *, after: Position, beside: Beside = NOTHING_BESIDE
    ) -> None:
        try:
            await append(self, event, after=after, beside=beside)
        except PositionTaken:
            chain = self._chains[event.event.lane]
            chain.position = str(after)
            await append(self, event, after=after, beside=beside)

    patch.setattr(MemoryFeed, "append", regardless)


def refuses_tokens_of_the_lease(patch: pytest.MonkeyPatch) -> None:
    """Wrong limit: verifiers refuse what a retired key signed within its lease."""
    check = TokenVerifier._check_key_limits

    def strictly(self: TokenVerifier, claims: Any, key: Any) -> None:
        check(self, claims, key)
        if key.record.retiring_at is not None and claims["iat"] > key.record.retiring_at:
            raise InvalidToken("key_limits")

    patch.setattr(TokenVerifier, "_check_key_limits", strictly)


PLANTS: dict[Plant, set[str]] = {
    forgets_the_cache: {"whoever could serve holds the key that signs", "a cached JWKS holds the key that signs"},
    overlooks_laggards: {"whoever could serve holds the key that signs"},
    waits_for_one_alone: {"whoever could serve holds the key that signs"},
    removes_early: {"a key is removed after its tokens", "no verifier rejects a good token"},
    removes_late: {"a retired key is removed in time"},
    declares_dead_too_soon: {"whoever could serve holds the key that signs"},
    trusts_an_unknown_set: {"whoever could serve holds the key that signs"},
    trusts_what_it_saw_long_ago: {"whoever could serve holds the key that signs"},
    decides_without_looking: {"whoever could serve holds the key that signs"},
    loses_the_standby: {"standbys stand"},
    signs_without_a_lease: {"nothing is signed without a lease"},
    looks_at_the_lease_once: {"nothing is signed without a lease"},
    accepts_replays: {"whoever could serve holds the key that signs"},
    believes_forged_reports: {"whoever could serve holds the key that signs"},
    refuses_tokens_of_the_lease: {"no verifier rejects a good token"},
}


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found(
    plant: Plant, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    """By the invariant that it breaks, within the histories that a run has time for."""
    plant(monkeypatch)
    number, noticed = until_noticed()
    record_property("histories", number)
    print(f"{plant.__name__}: found by history {number}: {noticed}")
    assert isinstance(noticed, Broken)
    assert noticed.invariant in PLANTS[plant]


def test_two_workers_that_are_not_kept_apart_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the compare-and-set the chain breaks, and whoever notices first says so."""
    appends_anywhere(monkeypatch)
    number, noticed = until_noticed()
    print(f"appends_anywhere: found by history {number}: {noticed}")
    assert isinstance(noticed, Broken | BrokenChain)


def until_noticed() -> tuple[int, Exception]:
    """Play histories until one breaks something; return how many that took, and what was noticed."""
    for number in range(1, MOST_HISTORIES + 1):
        try:
            asyncio.run(History(FIRST_SEED + number).play())
        except (Broken, BrokenChain) as noticed:
            return number, noticed
    raise AssertionError(f"not found by {MOST_HISTORIES} histories")
