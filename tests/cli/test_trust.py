"""`keyturn trust show|renew`: offline, in the directory that `keyturn init` made, one version after another."""

import json
from pathlib import Path
from typing import Any

import pytest

from keyturn.cli.provisioning import Plan, provision
from keyturn.clock import SystemClock
from keyturn.contract.envelope import StatementKey
from keyturn.contract.jwk import load_ed25519_private
from keyturn.contract.trust import Trust, open_trust, sign_trust
from keyturn.process.pinned import read_root
from tests.cli.conftest import Run

ISSUER = "https://issuer.example"
DAY = 86_400
CLOCK = SystemClock()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a directory as `keyturn init` makes it."""
    provision(tmp_path / "kt", Plan(issuer=ISSUER), now=CLOCK.now() - 1)
    return tmp_path / "kt"


def trust_in(home: Path, name: str = "trust.jws") -> Trust:
    """Return the document as a process that pins the directory's root reads it."""
    return open_trust((home / name).read_bytes(), root=read_root(home / "root.jwk"), allow_dev=False)


def entries(home: Path) -> set[str]:
    """Name the documents in the directory, half-written ones too."""
    return {path.name for path in home.iterdir() if "trust" in path.name}


def root_of(home: Path) -> StatementKey:
    """Return the root's private key."""
    return StatementKey(load_ed25519_private(json.loads((home / "root/private.jwk").read_text())))


def rewrite(home: Path, **changes: Any) -> None:
    """Put a changed document, signed by the root, in the place of the present one."""
    fields = {name: getattr(trust_in(home).document, name) for name in trust_in(home).document.__struct_fields__}
    document = type(trust_in(home).document)(**(fields | changes))
    (home / "trust.jws").write_bytes(sign_trust(root_of(home), document))


async def test_show_tells_everything_and_no_secret(run: Run, home: Path) -> None:
    """The page on which an operator decides; hashes of secrets are nobody's business."""
    ran = await run("trust", "show", "--dir", str(home), "--json")
    assert ran.status == 0
    told, trust = ran.json, trust_in(home)
    assert (told["version"], told["issuer"], told["expired"], told["dev"]) == (1, ISSUER, False, False)
    assert 364 < told["expires_in_days"] <= 365
    assert told["root"] == root_of(home).kid
    assert told["lowest_epoch"] == {"keys": 1, "revocations": 1}
    assert [len(kids) for kids in told["roles"].values()] == [1, 1]
    assert {name: one["may_sign"] for name, one in told["identities"].items() if one["may_sign"]} == {
        "authorization": ["at+jwt for any audience"],
        "introspection": ["token-introspection+jwt for any audience", "at+jwt for any audience"],
        "revocation": ["statuslist+jwt for any audience", "secevent+jwt for any audience"],
    }
    assert told["identities"]["sidecar-1"]["kind"] == "verifier"
    shown = await run("trust", "show", "--dir", str(home))
    for client in trust.document.clients.values():
        assert not client.secret_hash or client.secret_hash not in ran.out + shown.out
    assert "EXPIRE" not in shown.out


@pytest.mark.parametrize(("days", "status", "word"), [(-1, 1, "EXPIRED"), (29, 0, "EXPIRES SOON"), (31, 0, None)])
async def test_show_says_when_it_is_time(run: Run, home: Path, days: int, status: int, word: str | None) -> None:
    """Thirty days ahead there is time to fetch the root from its safe; afterwards every API is down."""
    rewrite(home, expires_at=CLOCK.now() + days * DAY)
    ran = await run("trust", "show", "--dir", str(home))
    assert ran.status == status
    assert ran.out.startswith(word) if word else "EXPIRE" not in ran.out


async def test_renew_signs_the_same_for_longer_and_keeps_the_old_one(run: Run, home: Path) -> None:
    """Nothing but version and times may change by it."""
    before = trust_in(home)
    ran = await run("trust", "renew", "--dir", str(home), "--days", "400", "--json")
    after = trust_in(home)
    assert (ran.status, ran.json["version"], after.version) == (0, 2, 2)
    assert after.document.expires_at == pytest.approx(CLOCK.now() + 400 * DAY, abs=60)
    same = set(before.document.__struct_fields__) - {"version", "issued_at", "expires_at"}
    assert all(getattr(after.document, name) == getattr(before.document, name) for name in same)
    assert (home / "trust-1.jws").read_bytes() == before.compact
    assert entries(home) == {"trust-1.jws", "trust.jws"}


async def test_an_expired_document_can_be_renewed(run: Run, home: Path) -> None:
    """That is when it is needed most."""
    rewrite(home, expires_at=CLOCK.now() - DAY)
    assert (await run("trust", "renew", "--dir", str(home))).status == 0
    assert (await run("trust", "show", "--dir", str(home))).status == 0


async def test_the_root_may_lie_elsewhere_and_must_be_the_right_one(run: Run, home: Path, tmp_path: Path) -> None:
    """It is kept offline; a document that another root signed would stop everybody."""
    away = tmp_path / "stick.jwk"
    (home / "root/private.jwk").rename(away)
    provision(tmp_path / "other", Plan(issuer=ISSUER), now=CLOCK.now())
    ran = await run("trust", "renew", "--dir", str(home))
    assert (ran.status, "--root-key" in ran.err) == (2, True)
    ran = await run("trust", "renew", "--dir", str(home), "--root-key", str(tmp_path / "other/root/private.jwk"))
    assert (ran.status, "another root" in ran.err) == (2, True)
    assert trust_in(home).version == 1
    assert not (home / "trust-1.jws").exists()
    assert (await run("trust", "renew", "--dir", str(home), "--root-key", str(away))).status == 0


async def test_a_root_that_others_can_read_is_refused(run: Run, home: Path) -> None:
    """It may have been read already."""
    (home / "root/private.jwk").chmod(0o644)
    ran = await run("trust", "renew", "--dir", str(home))
    assert (ran.status, "chmod 600" in ran.err) == (2, True)


async def test_a_document_that_the_root_did_not_sign_is_neither_shown_nor_renewed(
    run: Run, home: Path, tmp_path: Path
) -> None:
    """Signing what somebody else has written would be signing for him."""
    provision(tmp_path / "other", Plan(issuer=ISSUER), now=CLOCK.now())
    (home / "trust.jws").write_bytes((tmp_path / "other/trust.jws").read_bytes())
    for command in ("show", "renew"):
        ran = await run("trust", command, "--dir", str(home))
        assert (ran.status, "not to be believed" in ran.err) == (2, True)


async def test_a_clock_that_is_behind_the_document_signs_nothing(run: Run, home: Path) -> None:
    """It would issue a newer version with an older date, and perhaps one that has expired."""
    rewrite(home, issued_at=CLOCK.now() + DAY)
    ran = await run("trust", "renew", "--dir", str(home))
    assert (ran.status, "clock" in ran.err) == (2, True)


@pytest.mark.parametrize("days", ["0", "1097", "-1", "1.5", "ten"])
async def test_a_life_that_makes_no_sense_is_refused(run: Run, home: Path, days: str) -> None:
    """For ever is what expiry is there to prevent."""
    assert (await run("trust", "renew", "--dir", str(home), "--days", days)).status == 2
    assert trust_in(home).version == 1


async def test_the_directory_is_found_by_the_pinned_root(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As the other commands find their issuer."""
    assert (await run("trust", "show")).status == 2
    monkeypatch.setenv("KEYTURN_ROOT", str(home / "root.jwk"))
    assert (await run("trust", "show", "--json")).json["issuer"] == ISSUER
    assert (await run("trust", "show", "--dir", str(tmp_path / "nowhere"))).status == 2
