"""A directory that an older version of the stack made goes on to work."""

from pathlib import Path

import pytest

from keyturn.cli.provisioning import USERS
from keyturn.contract.errors import ConfigurationError
from stack.plan import Orders, prepare, settings_of


def test_the_services_users_get_the_rights_of_this_version(tmp_path: Path) -> None:
    """A store that denies what a service does now would answer 503 to each token request after an upgrade."""
    orders = Orders(directory=tmp_path / "kt")
    assert prepare(orders, now=1.8e9)
    path = orders.directory / "redis" / "users.acl"
    fresh = path.read_text()
    older = fresh.replace(USERS["authorization"], "-@all +get").replace(USERS["worker"], "-@all +ping")
    assert older != fresh
    path.write_text(older)
    assert not prepare(orders, now=1.8e9)
    assert path.read_text() == fresh  # Names, passwords and everybody else's rights as they were.
    assert path.stat().st_mode & 0o777 == 0o600
    path.unlink()
    with pytest.raises(ConfigurationError, match=r"users\.acl cannot be read"):
        prepare(orders, now=1.8e9)


def test_no_token_names_a_status_list_where_nobody_may_sign_one(tmp_path: Path) -> None:
    """A directory from before status lists has no identity of revocation's in its settings: lists would be 501."""
    orders = Orders(directory=tmp_path / "kt")
    prepare(orders, now=1.8e9)
    file = orders.directory / "keyturn.toml"
    for text, enabled in ((file.read_text(), True), (file.read_text().replace("signer =", "# signer ="), False)):
        file.write_text(text)
        told = settings_of(orders, {"url": "redis://127.0.0.1:1/0"}, first_start=False)
        assert told._tables["statuslists"]["enabled"] is enabled
