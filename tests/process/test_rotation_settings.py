"""`[rotation]` as an operator writes it: read into the rules, or refused with the numbers."""

import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from keyturn.contract.errors import ConfigurationError
from keyturn.contract.keys import Use
from keyturn.contract.rotation import RotationPolicy, Window
from keyturn.process.rotation import WeeklyWindow, rotation_policies
from keyturn.process.settings import Settings
from keyturn.process.values import Unfit
from keyturn.verifier.freshness import Freshness


def policies(text: str, **sections: Any) -> dict[Use, RotationPolicy]:
    """Read `[rotation]` and the sections beside it."""
    return rotation_policies(Settings({"rotation": tomllib.loads(text), **sections}, {}, beside=Path()), Freshness())


def moment(text: str) -> float:
    """Return a moment in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def test_every_setting_reaches_the_rules() -> None:
    """A setting that is read and dropped is worse than one that is refused."""
    policy = policies(
        'algorithms = ["ES256", "RS256"]\nactive = "7d"\nactive_of = ["RS256=90d"]\nwindow = "sat,sun 02:00-04:30"\n'
        'token = "10m"\nlease = 6\ndistribution = "20m"\ncache = 60\nbarrier = "time"\ndeadline = "2h"\n'
        'at_deadline = "hold"\nstandbys = 3\n'
    )[Use.ACCESS]
    assert policy.algorithms == ("ES256", "RS256")
    assert (policy.period_seconds("ES256"), policy.period_seconds("RS256")) == (7 * 86_400, 90 * 86_400)
    assert policy.window == Window(days=(5, 6), start_seconds=7_200, length_seconds=9_000)
    assert (policy.token_seconds, policy.lease_seconds, policy.distribution_seconds) == (600, 6, 1_200)
    assert (policy.cache_seconds, policy.barrier, policy.deadline_seconds) == (60, "time", 7_200)
    assert (policy.at_deadline, policy.standbys) == ("hold", 3)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("distribution = 100", "distribution 100 s < expired 900 s \\+ skew 2 s"),
        ('barrier = "reports"', "barrier reports with cache 300 s"),
        ('active = "10m"', "active 600 s \\(ES256\\) <= distribution"),
        ('active_of = ["EdDSA=1d"]', "EdDSA is not one of the algorithms"),
        ("lease = 1", "lease 1 s <= skew 2 s"),
        ('algorithms = ["HS256"]', "HS256"),
        ('window = "someday"', "window"),
        ('active_of = ["RS256"]', "names no algorithm and period"),
    ],
)
def test_a_configuration_that_breaks_a_rule_is_refused_with_its_numbers(text: str, says: str) -> None:
    """Rule 5: at the start, not at the first outage."""
    with pytest.raises(ConfigurationError, match=says):
        policies(text)


def test_each_use_has_a_period_and_a_life_of_its_own_and_shares_the_rest() -> None:
    """Status lists live for hours and access tokens for minutes: one T for both would keep a leaked key for long."""
    shared = 'algorithms = ["ES256", "RS256"]\nactive_of = ["RS256=90d"]\ncache = 60\nbarrier = "time"\nstandbys = 3\n'
    of_use = {"algorithms": ["EdDSA", "ES256"], "active": "5d", "token": "12h", "standbys": 2}
    told = policies(shared, status_keys=of_use)
    access, status, introspection = (told[use] for use in (Use.ACCESS, Use.STATUS, Use.INTROSPECTION))
    assert [use for use, policy in told.items() if policy.use is use] == list(Use)
    assert (status.algorithms, status.period_seconds("EdDSA")) == (("EdDSA", "ES256"), 5 * 86_400)
    assert (status.token_seconds, status.standbys) == (43_200, 2)
    assert (introspection.algorithms, introspection.period_seconds("ES256")) == (("ES256",), 30 * 86_400)
    assert (introspection.token_seconds, introspection.standbys) == (300, 1)
    for one in (status, introspection):
        assert (one.barrier, one.cache_seconds, one.publication_seconds) == ("time", 60, access.publication_seconds)


@pytest.mark.parametrize("section", ["introspection_keys", "status_keys"])
@pytest.mark.parametrize(
    ("own", "says"),
    [
        ({"active": "10m"}, "active 600 s \\(ES256\\) <= distribution"),
        ({"token": 0}, "token 0 s <= 0 s"),
        ({"algorithms": ["HS256"]}, "HS256"),
        ({"algorithms": ["ES256", "ES256"]}, "one is named twice"),
        ({"standbys": 0}, ""),
        ({"lease": 1}, "no such setting"),
    ],
)
def test_every_use_has_to_keep_the_inequalities(section: str, own: dict[str, Any], says: str) -> None:
    """Rule 5 for each use: a status key that goes while its lists live is as bad as an access key that does."""
    with pytest.raises(ConfigurationError, match=rf"{says}.*\({section}"):
        policies("", **{section: own})


@pytest.mark.parametrize(
    ("text", "within", "without"),
    [
        ("02:00-04:00", ["2026-11-24T02:00:00", "2026-11-28T03:59:59"], ["2026-11-24T01:59:59", "2026-11-24T04:00:00"]),
        ("mon-fri 22:00-02:00", ["2026-11-27T23:00:00", "2026-11-28T01:59:59"], ["2026-11-28T22:30:00"]),
        ("sun-mon 00:00-24:00 UTC", ["2026-11-29T00:00:00", "2026-11-30T23:59:59"], ["2026-12-01T00:00:00"]),
    ],
)
def test_a_window_holds_at_its_hours_and_reaches_over_midnight(
    text: str, within: list[str], without: list[str]
) -> None:
    """Operators write windows over midnight, and at the turn of the week."""
    window = WeeklyWindow.parse(text).window
    assert all(window.holds(moment(one)) for one in within)
    assert not any(window.holds(moment(one)) for one in without)


@pytest.mark.parametrize("text", ["", "25:00-26:00", "10:60-11:00", "xyz 10:00-11:00", "10:00-10:00", "mon 10:00"])
def test_what_is_no_window_is_refused(text: str) -> None:
    """A window that was misread would let keys change at noon."""
    with pytest.raises(Unfit):
        WeeklyWindow.parse(text)
