"""The keys of another issuer: when they are read, how long they are believed, and what a stranger can make us do."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from keyturn import entropy
from keyturn.contract.encoding import encode_json
from keyturn.contract.errors import InvalidToken, IssuerKeysUnavailable
from keyturn.contract.issuers import STALE_SECONDS, ForeignIssuer, IssuerKey
from keyturn.contract.jwk import public_jwk
from keyturn.verifier.issuers import COOL_DOWN_SECONDS, IssuerKeys
from keyturn.verifier.keysources import KeysTold, SourceFailed
from tests.clocks import ManualClock
from tests.waiting import eventually

AGE = 300.0
PROVIDER = ForeignIssuer(name="workforce", url="https://login.example/", token_seconds=3600, algorithms=("ES256",))
JWKS = [{"kid": f"k{number}", **public_jwk(entropy.new_key("ES256").public_key())} for number in range(3)]


class Provider:
    """A source that tells keys, fails or keeps silent, as a test wants it."""

    def __init__(self) -> None:
        self.told: bytes | None = encode_json({"keys": JWKS[:1]})
        self.asked = 0
        self.answers = asyncio.Event()
        self.answers.set()

    async def read(self) -> KeysTold:
        """Answer."""
        self.asked += 1
        await self.answers.wait()
        if self.told is None:
            raise SourceFailed("it is away")
        return KeysTold(self.told, AGE)


class Desk:
    """Keys over a provider, on a clock that the test moves."""

    def __init__(self) -> None:
        self.clock, self.provider, self.noted = ManualClock(), Provider(), list[tuple[str, dict[str, Any]]]()
        self.keys = IssuerKeys(
            PROVIDER, self.provider, self.clock, note=lambda event, **facts: self.noted.append((event, facts))
        )

    def find(self, kid: str = "k0", alg: str = "ES256") -> IssuerKey | str:
        """Return the key, or the code or reason for which there is none."""
        try:
            return self.keys.find(kid, alg, self.clock.boottime())
        except IssuerKeysUnavailable as error:
            return error.code
        except InvalidToken as error:
            return error.reason

    async def pass_time(self, seconds: float) -> None:
        """Let time pass in steps, as the keys' own task sees it."""
        for _ in range(int(seconds)):
            await eventually(lambda: self.clock.sleepers)
            self.clock.advance(1)
            await self.clock.sleep(0)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    """Return keys whose task runs, once they were read."""
    desk = Desk()
    task = asyncio.create_task(desk.keys.run())
    await eventually(lambda: desk.keys.trouble is None)
    yield desk
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_keys_are_read_at_the_start_and_again_before_they_run_out(desk: Desk) -> None:
    """RFC 9111: as long as the source says, and in the background, so that no token waits."""
    assert isinstance(desk.find(), IssuerKey)
    await desk.pass_time(AGE * 0.79)
    assert desk.provider.asked == 1
    desk.provider.told = encode_json({"keys": JWKS[1:2]})
    await desk.pass_time(AGE * 0.23)
    assert desk.provider.asked == 2
    assert (isinstance(desk.find(), IssuerKey), isinstance(desk.find("k1"), IssuerKey)) == (False, True)
    assert [event for event, _ in desk.noted] == ["issuer_keys_changed", "issuer_keys_changed"]


def test_nothing_is_said_before_the_keys_were_read() -> None:
    """Unknown is not inactive."""
    assert Desk().find() == "issuer_keys_unavailable"


async def test_keys_outlive_their_source_for_a_time_and_no_longer(desk: Desk) -> None:
    """A provider's outage must not stop the API, nor must who cuts us off keep a withdrawn key alive for ever."""
    desk.provider.told = None
    await desk.pass_time(AGE + 5)
    assert desk.keys.trouble == "it is away"
    desk.clock.advance(STALE_SECONDS - 6)
    assert isinstance(desk.find(), IssuerKey)
    desk.clock.advance(2)
    assert desk.find() == "issuer_keys_unavailable"
    desk.provider.told = encode_json({"keys": JWKS[:1]})
    await desk.pass_time(70)
    assert isinstance(desk.find(), IssuerKey)
    assert [event for event, _ in desk.noted] == ["issuer_keys_changed", "issuer_unreachable"]


async def test_while_the_source_is_away_it_is_asked_less_and_less(desk: Desk) -> None:
    """At most once a minute in the end."""
    desk.provider.told = None
    await desk.pass_time(AGE + 60)
    asked = desk.provider.asked
    await desk.pass_time(300)
    assert 4 <= desk.provider.asked - asked <= 11


async def test_a_set_that_cannot_be_used_does_not_replace_a_good_one(desk: Desk) -> None:
    """Whoever garbles an answer must not log everybody out."""
    desk.provider.told = b'{"keys":[]}'
    await desk.pass_time(AGE + 5)
    assert isinstance(desk.find(), IssuerKey)
    assert "no key" in str(desk.keys.trouble)


async def test_an_unknown_kid_is_unknown_until_the_issuer_was_asked(desk: Desk) -> None:
    """The provider rotated early: its new tokens are good, and what it never told is refused for certain."""
    await desk.pass_time(COOL_DOWN_SECONDS + 1)
    assert desk.find("k1") == "issuer_keys_unavailable"
    desk.provider.told = encode_json({"keys": JWKS[:2]})
    await desk.keys.renew()
    assert isinstance(desk.find("k1"), IssuerKey)
    assert (desk.find("k2"), desk.provider.asked) == ("unknown_kid", 2)


async def test_what_find_lacked_is_looked_for_soon_even_if_nobody_waits(desk: Desk) -> None:
    """A library that may not wait gets its answer with the next try."""
    await desk.pass_time(COOL_DOWN_SECONDS + 1)
    desk.provider.told = encode_json({"keys": JWKS[:2]})
    assert desk.find("k1") == "issuer_keys_unavailable"
    await desk.pass_time(2)
    assert isinstance(desk.find("k1"), IssuerKey)


async def test_a_thousand_invented_kids_ask_the_issuer_once_in_ten_seconds(desk: Desk) -> None:
    """A stranger must not be able to make us flood the provider."""
    await desk.pass_time(COOL_DOWN_SECONDS + 1)
    for number in range(1000):
        desk.find(f"invented {number}")
    desk.provider.answers.clear()
    asking = [asyncio.create_task(desk.keys.renew()) for _ in range(1000)]
    await eventually(lambda: desk.provider.asked == 2)
    desk.provider.answers.set()
    await asyncio.gather(*asking)
    for _ in range(100):
        await desk.keys.renew()
    assert desk.provider.asked == 2
    desk.provider.told = None
    desk.clock.advance(COOL_DOWN_SECONDS)
    for _ in range(100):
        await desk.keys.renew()
    assert (desk.provider.asked, desk.find("k1")) == (3, "issuer_keys_unavailable")


async def test_a_key_is_used_for_its_algorithm_alone(desk: Desk) -> None:
    """RFC 8725, 3.1."""
    assert desk.find(alg="RS256") == "algorithm"


async def test_who_stops_waiting_does_not_stop_the_others(desk: Desk) -> None:
    """A client that goes away must not cancel what the next one waits for."""
    await desk.pass_time(COOL_DOWN_SECONDS + 1)
    desk.provider.answers.clear()
    first, second = (asyncio.create_task(desk.keys.renew()) for _ in range(2))
    await eventually(lambda: desk.provider.asked == 2)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    desk.provider.answers.set()
    await asyncio.wait_for(second, 5)
    assert desk.keys.trouble is None
