"""`[issuers.NAME]`: what is read, and what is refused with its mend."""

from pathlib import Path
from typing import Any

import pytest

from keyturn.contract.errors import ConfigurationError
from keyturn.contract.issuers import NO_TYPE, ForeignIssuer
from keyturn.process.issuers import read_issuers
from keyturn.process.settings import Settings

OURS = "https://issuer.example"
GOOD = {"url": "https://a.example", "token": "1h"}


def known(**sections: dict[str, Any]) -> dict[str, ForeignIssuer]:
    """Read the sections of issuers."""
    return dict(read_issuers(Settings({"issuers": sections}, {}, beside=Path("/etc/keyturn")), own=OURS))


def test_an_issuer_is_read_with_all_that_can_be_said() -> None:
    """Its `iss` byte for byte, as providers write it: with a slash at the end, or a path."""
    one = known(
        workforce={
            "url": "https://login.example/tenant/", "jwks_file": "jwks.json", "algorithms": ["ES256"], "token": "2h",
            "types": ["JWT", "application/AT+jwt", "absent"], "claims": ["client_id=azp", "scope=scp"],
            "audience": "our-client", "stale_keys": "5m",
        }
    )["workforce"]  # fmt: skip
    assert (one.name, one.url, one.token_seconds) == (
        "workforce", "https://login.example/tenant/", 7200.0,
    )  # fmt: skip
    assert one.types == {"jwt", "at+jwt", NO_TYPE}
    assert one.header_types == {"jwt", "application/jwt", "at+jwt", "application/at+jwt", NO_TYPE}
    assert one.claims == {"client_id": "azp", "scope": "scp"}
    assert (one.algorithms, one.audience) == (("ES256",), "our-client")
    assert (one.jwks, one.stale_seconds) == (Path("/etc/keyturn/jwks.json"), 300.0)


def test_without_more_only_access_tokens_by_rs256_are_taken() -> None:
    """What most providers sign with (RFC 9068, 2.1 and 4), and nothing looser by default."""
    one = known(a=GOOD)["a"]
    assert one.types == {"at+jwt"}
    assert one.algorithms == ("RS256",)
    assert one.claims == {}
    assert known() == {}


@pytest.mark.parametrize(
    ("section", "setting"),
    [
        ({"url": ""}, "a.url"), ({"token": 0}, "a.token"), ({"token": "8d"}, "a.token"),
        ({"url": "http://a.example"}, "a.url"), ({"url": "a.example"}, "a.url"),
        ({"url": "https://a.example?q"}, "a.url"),
        ({"url": "https://u:secret@a.example"}, "a.url"), ({"url": OURS}, "a.url"), ({"url": "https://[::1"}, "a.url"),
        ({"jwks": "http://a.example/keys"}, "a.jwks"), ({"jwks": "/etc/keys.json"}, "a.jwks"),
        ({"jwks": "https://a.example/k", "jwks_file": "k"}, "a.jwks_file"), ({"algorithms": []}, "a.algorithms"),
        ({"algorithms": ["none"]}, "a.algorithms"), ({"algorithms": ["HS256"]}, "a.algorithms"),
        ({"types": []}, "a.types"),
        ({"types": ["a b"]}, "a.types"), ({"claims": ["azp"]}, "a.claims"), ({"claims": ["aud=x"]}, "a.claims"),
        ({"claims": ["iat=x"]}, "a.claims"), ({"claims": ["client_id="]}, "a.claims"),
        ({"stale_keys": "1s"}, "a.stale_keys"),
        ({"leeway": "1s"}, "a.leeway"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_named(section: dict[str, Any], setting: str) -> None:
    """One line at the start, and no password in it."""
    with pytest.raises(ConfigurationError) as caught:
        known(a=GOOD | section)
    assert caught.value.setting == f"issuers.{setting}"
    assert "secret" not in str(caught.value)


def test_names_and_numbers_of_issuers_are_bounded() -> None:
    """A policy calls ours `own`, and two sections of one issuer would contradict each other."""
    for sections in (
        {"own": GOOD}, {"A b": GOOD}, {"a": GOOD, "b": GOOD},
        {f"n{number}": {"url": f"https://{number}.example", "token": "1h"} for number in range(17)},
    ):  # fmt: skip
        with pytest.raises(ConfigurationError) as caught:
            known(**sections)
        assert caught.value.setting.startswith("issuers")
