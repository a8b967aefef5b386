"""A directory that an older version of the stack made goes on to work."""

from pathlib import Path

import pytest

from keyturn.cli.provisioning import USERS
from keyturn.contract.errors import ConfigurationError
from stack.devenv import read_dev_env, write_dev_env
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


def test_users_sign_in_where_there_is_a_client_for_the_page(tmp_path: Path) -> None:
    """A directory from before has none: it goes on as it was, and `dev.env` names what is there."""
    orders = Orders(directory=tmp_path / "kt")
    prepare(orders, now=1.8e9)
    redis = {"url": "redis://127.0.0.1:1/0"}
    assert (
        settings_of(orders, redis, first_start=False)._tables["authorization"]["signin_url"]
        == f"{orders.issuer}/signin"
    )
    assert {"KEYTURN_APP_ID", "KEYTURN_SIGNIN_SECRET"} <= read_dev_env(write_dev_env(orders, "redis://x")).keys()
    (orders.directory / "clients/signin.secret").unlink()
    assert "signin_url" not in settings_of(orders, redis, first_start=False)._tables["authorization"]
    assert not {name for name in read_dev_env(write_dev_env(orders, "redis://x")) if "SIGNIN" in name or "APP" in name}


def test_a_page_of_the_operators_own_stays(tmp_path: Path) -> None:
    """Whoever builds a sign-in page tries it with `make up`."""
    orders = Orders(directory=tmp_path / "kt")
    prepare(orders, now=1.8e9)
    file = orders.directory / "keyturn.toml"
    file.write_text(
        file.read_text().replace("[authorization]\n", '[authorization]\nsignin_url = "http://127.0.0.1:3000/in"\n')
    )
    told = settings_of(orders, {"url": "redis://127.0.0.1:1/0"}, first_start=False)
    assert told._tables["authorization"]["signin_url"] == "http://127.0.0.1:3000/in"
