"""`authorization.signin_url`: refused at start where users could not be sent there safely."""

from pathlib import Path

import pytest

from authorization.settings import AuthorizationSettings
from keyturn.contract.errors import ConfigurationError
from keyturn.process.settings import Settings
from tests.building import write_secret


def read(directory: Path, url: str) -> AuthorizationSettings:
    """Read the section with that page."""
    write_secret(directory / "identity.jwk", "{}")
    table = {"identity_file": "identity.jwk", "signer": "unix:/run/x.sock", "signin_url": url}
    return Settings({"authorization": table}, {}, beside=directory).section(AuthorizationSettings)


@pytest.mark.parametrize(
    "url", ["https://login.example", "https://login.example:8443/in?from=kt", "http://127.0.0.1:3000/in"]
)
def test_a_page_with_tls_or_on_this_machine_will_do(tmp_path: Path, url: str) -> None:
    """As an issuer's."""
    assert read(tmp_path, url).signin_url == url


@pytest.mark.parametrize(
    "url",
    [
        "", "login.example", "http://login.example/", "https://", "https://u:p@login.example/", "https://login.example/#x",
        "https://login.example/ x", "https://login.example/\r\nX: y", "javascript:alert(1)", "https://login.example:x/",
        "https://login.example/?login_challenge=x", "https://login.example/\u00e9",
    ],
)  # fmt: skip
def test_any_other_is_refused_by_name(tmp_path: Path, url: str) -> None:
    """It gets challenges, and its address goes into a header."""
    with pytest.raises(ConfigurationError) as refused:
        read(tmp_path, url)
    assert refused.value.setting == "authorization.signin_url"
