"""`keyturn trust` gives roles, verifiers, services and the root other keys; files and document stay in step."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyturn.cli.provisioning import Plan, provision
from keyturn.clock import SystemClock
from keyturn.contract.credentials import secret_matches
from keyturn.contract.envelope import StatementKey
from keyturn.contract.errors import ForgedSignature, TrustError
from keyturn.contract.events import open_snapshot
from keyturn.contract.jwk import ed25519_private_jwk, load_ed25519_private, public_jwk
from keyturn.contract.positions import Lane
from keyturn.contract.roots import MOST_STEPS, split_bundle
from keyturn.contract.trust import IdentityKind, MaySign, Trust, open_trust, sign_trust
from keyturn.entropy import new_key, new_statement_key
from keyturn.process.pinned import read_root
from tests.cli.conftest import Run

ISSUER = "https://issuer.example"
CLOCK = SystemClock()


class Home:
    """A directory as `keyturn init` makes it."""

    def __init__(self, path: Path, run: Run, *, days_old: float = 0.001) -> None:
        """Provision it, so many days ago."""
        provision(path, Plan(issuer=ISSUER), now=CLOCK.now() - days_old * 86_400)
        self.path, self._run = path, run
        self.first_root = self.root

    async def trust(self, *argv: str, status: int = 0) -> Any:
        """Run a command of `trust` on it."""
        ran = await self._run("trust", *argv, "--dir", str(self.path), "--json")
        assert ran.status == status, ran.err
        return ran.json if ran.out else ran.err

    @property
    def root(self) -> dict[str, Any]:
        """Return the root that it pins."""
        return read_root(self.path / "root.jwk")

    def opened(self, root: dict[str, Any] | None = None) -> Trust:
        """Return the document as who pins that root reads it."""
        return open_trust((self.path / "trust.jws").read_bytes(), root=root or self.root, allow_dev=False)

    def key(self, name: str) -> StatementKey:
        """Return a private key, which nobody else may read."""
        path = self.path / name
        assert path.stat().st_mode & 0o777 == 0o600
        return StatementKey(load_ed25519_private(json.loads(path.read_text())))

    def files(self) -> dict[str, bytes]:
        """Return everything that is in it."""
        return {str(path.relative_to(self.path)): path.read_bytes() for path in self.path.rglob("*") if path.is_file()}


@pytest.fixture
def home(run: Run, tmp_path: Path) -> Home:
    """Return a new directory."""
    return Home(tmp_path / "kt", run)


@pytest.mark.parametrize("lane", Lane)
async def test_a_role_rotates_in_two_steps(home: Home, lane: Lane) -> None:
    """Between them both keys are good, so that no verifier ever meets a signature that it cannot believe."""
    old = home.key(f"roles/{lane}.jwk")
    told = await home.trust("rotate-role", lane)
    new = home.key(f"roles/{lane}.jwk")
    assert set(home.opened().role(lane)) == {old.kid, new.kid}
    assert (told["version"], told["kid"], len(told["then"])) == (2, new.kid, 3)
    assert home.key(f"roles/{lane}.old.jwk").kid == old.kid
    await home.trust("rotate-role", lane, "--finish")
    assert set(home.opened().role(lane)) == {new.kid}
    assert (home.opened().version, home.opened().lowest_epoch(lane)) == (3, 1)
    assert f"roles/{lane}.old.jwk" not in home.files()
    other = next(one for one in Lane if one is not lane)
    assert set(home.opened().role(other)) == {home.key(f"roles/{other}.jwk").kid}


async def test_a_step_of_a_rotation_that_does_not_fit_is_refused_and_changes_nothing(home: Home) -> None:
    """A third key, a finish without a beginning, a finish with the wrong key in the file."""
    before = home.files()
    assert "no rotation" in await home.trust("rotate-role", "keys", "--finish", status=2)
    assert home.files() == before
    await home.trust("rotate-role", "keys")
    begun = home.files()
    assert "--finish" in await home.trust("rotate-role", "keys", status=2)
    (home.path / "roles/keys.jwk").write_bytes(begun["roles/revocations.jwk"])
    assert "has not the role" in await home.trust("rotate-role", "keys", "--finish", status=2)
    assert home.files() == begun | {"roles/keys.jwk": begun["roles/revocations.jwk"]}


@pytest.mark.parametrize("lane", Lane)
async def test_a_stolen_role_key_loses_the_role_and_all_that_it_said(home: Home, lane: Lane) -> None:
    """Another key, a higher lowest epoch, and the genesis of that epoch by the new key."""
    stolen = home.key(f"roles/{lane}.jwk")
    told = await home.trust("revoke-role", lane)
    trust, new = home.opened(), home.key(f"roles/{lane}.jwk")
    assert new.kid != stolen.kid
    assert set(trust.role(lane)) == {new.kid}
    assert (trust.version, trust.lowest_epoch(lane), told["lowest_epoch"]) == (2, 2, 2)
    genesis = open_snapshot((home.path / f"genesis/{lane}.jws").read_bytes(), lane, trust.role(lane))
    assert (genesis.position.epoch, genesis.position.sequence, genesis.snapshot.trust) == (2, 0, 2)
    other = next(one for one in Lane if one is not lane)
    assert trust.lowest_epoch(other) == 1
    await home.trust("revoke-role", lane, "--epoch", "40")
    assert home.opened().lowest_epoch(lane) == 40
    assert "only goes up" in await home.trust("revoke-role", lane, "--epoch", "40", status=2)


async def test_a_role_that_is_being_rotated_can_be_revoked(home: Home) -> None:
    """A theft does not wait for the second step; both keys go."""
    await home.trust("rotate-role", "keys")
    await home.trust("revoke-role", "keys")
    assert set(home.opened().role(Lane.KEYS)) == {home.key("roles/keys.jwk").kid}
    assert "roles/keys.old.jwk" not in home.files()


async def test_the_root_hands_over_and_every_older_pin_leads_to_it(home: Home) -> None:
    """Whoever pins the first root, or the second, or the newest reads the same document."""
    pins = [home.first_root]
    for version in (2, 3):
        old = home.key("root/private.jwk")
        told = await home.trust("rotate-root")
        assert home.key(f"root/private-{version - 1}.jwk").kid == old.kid
        assert home.key("root/private.jwk").public == home.root
        assert told["root"] == home.key("root/private.jwk").kid
        assert read_root(home.path / f"root-{version - 1}.jwk") == pins[-1]
        pins.append(home.root)
    assert [home.opened(pin).version for pin in pins] == [3, 3, 3]
    for name, pin in (("trust-1.jws", pins[1]), ("trust-2.jws", pins[2])):
        with pytest.raises(ForgedSignature):
            open_trust((home.path / name).read_bytes(), root=pin, allow_dev=False)
    await home.trust("renew")
    assert [home.opened(pin).version for pin in pins] == [4, 4, 4]
    assert (await home.trust("show"))["root"] == home.key("root/private.jwk").kid


async def test_the_old_root_signs_nothing_more(home: Home) -> None:
    """By mistake it would make a document that nobody believes."""
    await home.trust("rotate-root")
    before = home.files()
    old = str(home.path / "root/private-1.jwk")
    assert "another root" in await home.trust("renew", "--root-key", old, status=2)
    assert home.files() == before


async def test_the_way_from_root_to_root_does_not_grow_for_ever(home: Home) -> None:
    """The oldest step is dropped: who pins the root before it must pin another."""
    for _ in range(MOST_STEPS + 1):
        await home.trust("rotate-root")
    assert len(split_bundle(home.opened().compact).steps) == MOST_STEPS
    with pytest.raises(TrustError):
        home.opened(home.first_root)
    assert home.opened(read_root(home.path / "root-2.jwk")).version == MOST_STEPS + 2


async def test_a_root_that_lies_elsewhere_hands_over_there(home: Home, tmp_path: Path) -> None:
    """A stick with the old root takes the new one; nothing private comes to lie in the directory."""
    stick = tmp_path / "stick"
    stick.mkdir()
    (home.path / "root/private.jwk").rename(stick / "root.jwk")
    await home.trust("rotate-root", "--root-key", str(stick / "root.jwk"))
    assert sorted(path.name for path in stick.iterdir()) == ["root-1.jwk", "root.jwk"]
    assert not list((home.path / "root").iterdir())
    await home.trust("renew", "--root-key", str(stick / "root.jwk"))


async def test_a_verifier_comes_and_goes(home: Home) -> None:
    """Identity, password and line of the access list, and nobody else's are touched."""
    acl = home.files()["redis/users.acl"].decode()
    await home.trust("add-verifier", "edge-7")
    assert home.opened().identity("edge-7", IdentityKind.VERIFIER).keys() == {home.key("identities/edge-7.jwk").kid}
    assert (home.path / "redis/edge-7.password").stat().st_mode & 0o777 == 0o600
    assert (home.path / "redis/users.acl").stat().st_mode & 0o777 == 0o600
    grown = home.files()["redis/users.acl"].decode()
    assert grown.startswith(acl)
    (line,) = grown.removeprefix(acl).splitlines()
    known = next(one for one in acl.splitlines() if one.startswith("user sidecar-1 "))
    assert line.split("resetchannels")[1] == known.split("resetchannels")[1].replace("sidecar-1", "edge-7")
    await home.trust("remove-verifier", "edge-7")
    assert "edge-7" not in home.opened().document.identities
    assert home.files()["redis/users.acl"].decode() == acl
    assert not [name for name in home.files() if "edge-7" in name]


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (["add-verifier", "sidecar-1"], "already"),
        (["add-verifier", "authorization"], "already"),
        (["add-verifier", "default"], "already"),
        (["add-verifier", "Edge 7"], "a-z"),
        (["remove-verifier", "nobody"], "no service or verifier"),
        (["remove-verifier", "authorization"], "is a service"),
        (["rotate-identity", "nobody"], "no service or verifier"),
        (["revoke-role", "keys", "--epoch", "1"], "from 2"),
        (["revoke-role", "root"], "LANE"),
    ],
)
async def test_what_makes_no_sense_is_refused_and_changes_nothing(home: Home, argv: list[str], word: str) -> None:
    """What stands in the directory must never be half of something."""
    before = home.files()
    assert word in await home.trust(*argv, status=2)
    assert home.files() == before


@pytest.mark.parametrize("name", ["authorization", "sidecar-1"])
async def test_an_identity_gets_another_key_and_keeps_its_rights(home: Home, name: str) -> None:
    """What it may have signed is not the key's but the name's."""
    before, old = home.opened().document.identities[name], home.key(f"identities/{name}.jwk")
    await home.trust("rotate-identity", name)
    after, new = home.opened().document.identities[name], home.key(f"identities/{name}.jwk")
    assert (after.kind, after.may_sign) == (before.kind, before.may_sign)
    assert after.jwk == new.public != old.public


COMMANDS = [
    ["rotate-role", "keys"], ["revoke-role", "revocations"], ["rotate-root"], ["add-verifier", "edge-7"],
    ["remove-verifier", "sidecar-1"], ["rotate-identity", "worker"],
]  # fmt: skip


@pytest.mark.parametrize("argv", COMMANDS, ids=lambda argv: argv[0])
async def test_without_the_root_nothing_is_changed(home: Home, argv: list[str]) -> None:
    """The root is offline: a command that stops half-way would leave keys that nobody vouches for."""
    (home.path / "root/private.jwk").unlink()
    before = home.files()
    assert "--root-key" in await home.trust(*argv, status=2)
    assert home.files() == before


@pytest.mark.parametrize("argv", COMMANDS, ids=lambda argv: argv[0])
async def test_every_change_is_one_version_on_and_keeps_the_one_before(home: Home, argv: list[str]) -> None:
    """Versions are how everybody knows the newer; the old file is for whoever looks back."""
    before = home.files()["trust.jws"]
    expires = home.opened().document.expires_at
    told = await home.trust(*argv)
    assert (home.opened().version, told["version"]) == (2, 2)
    assert home.opened().document.expires_at == expires
    assert home.files()["trust-1.jws"] == before
    assert home.opened(home.first_root).version == 2


@pytest.mark.parametrize("argv", COMMANDS, ids=lambda argv: argv[0])
async def test_an_expired_document_is_renewed_before_anything_else(run: Run, tmp_path: Path, argv: list[str]) -> None:
    """A change that nobody would believe must not look as if it were done."""
    home = Home(tmp_path / "old", run, days_old=400)
    before = home.files()
    assert "renew" in await home.trust(*argv, status=2)
    assert home.files() == before
    await home.trust("renew")
    await home.trust(*argv)
    assert home.opened().version == 3


async def test_a_document_of_an_older_version_gains_what_services_have_signed_now(home: Home) -> None:
    """Who made the directory before introspection signed anything must not have to make everything anew."""
    before = home.opened().document
    older = {
        name: msgspec.structs.replace(one, may_sign=one.may_sign if name == "authorization" else ())
        for name, one in before.identities.items()
    }
    document = msgspec.structs.replace(before, identities=older)
    (home.path / "trust.jws").write_bytes(sign_trust(home.key("root/private.jwk"), document))
    told = await home.trust("grant", "introspection")
    assert told["granted"] == {"introspection": ["token-introspection+jwt", "at+jwt"]}
    assert home.opened().document.identities["revocation"].may_sign == ()
    told = await home.trust("grant")
    assert told["granted"] == {"revocation": ["statuslist+jwt", "secevent+jwt"]}
    assert home.opened().document.identities == before.identities
    written = home.files()
    told = await home.trust("grant")
    assert (told["granted"], told["version"], told["then"]) == ({}, 3, [])
    assert home.files() == written


async def test_a_grant_widens_nothing_that_somebody_has_narrowed(home: Home) -> None:
    """An operator who lets authorization mint for one API alone must not lose that by an upgrade."""
    document = home.opened().document
    narrow = MaySign(typ="at+jwt", audiences=("https://api.example",))
    own = msgspec.structs.replace(document.identities["authorization"], may_sign=(narrow,))
    changed = msgspec.structs.replace(document, identities=document.identities | {"authorization": own})
    (home.path / "trust.jws").write_bytes(sign_trust(home.key("root/private.jwk"), changed))
    assert (await home.trust("grant"))["granted"] == {}
    assert home.opened().document.identities["authorization"].may_sign == (narrow,)
    assert "is one of" in await home.trust("grant", "sidecar-1", status=2)
    assert "is one of" in await home.trust("grant", "worker", status=2)


async def test_a_client_gets_keys_to_sign_its_assertions_by(home: Home, tmp_path: Path) -> None:
    """Public ones alone, in place of those before; its secret stays, and every role, too."""
    keys = [new_key("ES256"), new_key("RS256")]
    jwks = [{**public_jwk(key.public_key()), "kid": f"key-{number}"} for number, key in enumerate(keys)]
    file, before = tmp_path / "jwks.json", home.opened().document
    file.write_text(json.dumps({"keys": jwks}))
    told = await home.trust("client-keys", "client", "--keys", str(file))
    assert (told["version"], told["client"], told["kids"]) == (2, "client", ["key-0", "key-1"])
    trust = home.opened()
    assert [key["alg"] for key in trust.client_keys("client")] == ["ES256", "RS256"]
    assert trust.client_keys("resource") == ()
    assert trust.document.clients == before.clients
    assert {name: rows for name, rows in trust.document.roles.items() if name != "client:client"} == before.roles
    shown = (await home.trust("show"))["clients"]
    assert (shown["client"]["kids"], shown["resource"]["kids"]) == (["key-0", "key-1"], [])
    await home.trust("rotate-role", "keys")
    assert home.opened().client_keys("client") == trust.client_keys("client")
    pem = keys[1].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    file.write_bytes(pem)
    await home.trust("client-keys", "client", "--keys", str(file), "--alg", "PS256")
    assert [key["alg"] for key in home.opened().client_keys("client")] == ["PS256"]
    await home.trust("client-keys", "client", "--none")
    assert home.opened().document.roles.keys() == before.roles.keys()


async def test_keys_that_a_client_must_not_have_are_refused_and_change_nothing(home: Home, tmp_path: Path) -> None:
    """A private key, a shared one, a weak one; a client that is none; and keys that nobody named."""
    file, good = tmp_path / "key.json", public_jwk(new_key("ES256").public_key())
    before = home.files()
    private = {**ed25519_private_jwk(new_statement_key())}
    content: dict[str, Any]
    for content in (private, {"kty": "oct", "k": "c2VjcmV0"}, {"kty": "RSA", "n": "AQAB", "e": "AQAB"}, {"keys": []}):
        file.write_text(json.dumps(content))
        file.chmod(0o600)
        assert str(file) in await home.trust("client-keys", "client", "--keys", str(file), status=2)
    file.write_text(json.dumps(good))
    assert "no such client" in await home.trust("client-keys", "nobody", "--keys", str(file), status=2)
    assert "--keys" in await home.trust("client-keys", "client", status=2)
    assert home.files() == before


async def test_a_public_client_is_added_with_its_redirects_and_without_a_secret(home: Home) -> None:
    """An app that signs users in; which URIs they are sent back to, the root says and nobody else."""
    argv = ["--public", "--grant", "authorization_code", "--grant", "refresh_token", "--scope", "read"]
    redirect = ["--redirect", "https://shop.example/back", "--redirect", "com.example.shop:/back"]
    told = await home.trust("add-client", "shop", *argv, *redirect, "--audience", "https://api.example")
    assert (told["client"], told["secret_file"], len(told["then"])) == ("shop", None, 1)
    trust = home.opened()
    assert trust.is_public("shop")
    assert trust.redirects("shop") == ("https://shop.example/back", "com.example.shop:/back")
    assert "clients/shop.secret" not in home.files()
    shown = (await home.trust("show"))["clients"]["shop"]
    assert (shown["public"], shown["redirects"]) == (True, ["https://shop.example/back", "com.example.shop:/back"])
    await home.trust("client-redirects", "shop", "--redirect", "https://new.example/")
    assert home.opened().redirects("shop") == ("https://new.example/",)
    await home.trust("remove-client", "shop")
    assert not {"redirects:shop", "client:shop"} & home.opened().document.roles.keys()
    assert "shop" not in home.opened().document.clients


async def test_a_confidential_client_gets_a_secret_that_fits(home: Home) -> None:
    """The file is the only place where the secret stands; the sign-in page's tokens are opaque, like an operator's."""
    argv = ["--grant", "client_credentials", "--scope", "keyturn:login", "--audience", "keyturn:login"]
    told = await home.trust("add-client", "page", *argv)
    path = home.path / "clients/page.secret"
    assert told["secret_file"] == str(path)
    assert path.stat().st_mode & 0o777 == 0o600
    client = home.opened().document.clients["page"]
    assert secret_matches(path.read_text(), client.secret_hash)
    assert client.always_opaque
    await home.trust("remove-client", "page")
    assert not path.exists()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["client", "--grant", "client_credentials"], "already"),
        (["../x"], "letters"),
        (["x", "--public"], "public client"),
        (["x", "--public", "--grant", "client_credentials"], "public client"),
        (["x", "--public", "--grant", "authorization_code"], "go together"),
        (["x", "--public", "--grant", "refresh_token"], "public client"),
        (["x", "--redirect", "https://x.example/"], "go together"),
        (["x", "--grant", "authorization_code", "--redirect", "http://x.example/"], "https"),
        (["x", "--scope", "two words"], "one word"),
        (["x", "--scope", "keyturn:admin", "--grant", "refresh_token"], "operates"),
        (["x", "--grant", "password"], "invalid choice"),
        (["x", "--public", "--may-introspect", "--grant", "refresh_token"], "public client"),
    ],
)  # fmt: skip
async def test_a_client_that_would_be_unsound_is_not_signed(home: Home, argv: list[str], said: str) -> None:
    """What the root signs is what services act on: a mistake is cheapest here."""
    before = home.files()
    assert said in await home.trust("add-client", *argv, status=2)
    assert home.files() == before


async def test_redirects_are_for_clients_that_sign_users_in(home: Home) -> None:
    """Another client's row would mean nothing, and mislead who reads it."""
    before = home.files()
    for client, uri, said in (
        ("client", "https://x.example/", "go together"), ("nobody", "https://x.example/", "no such client"),
        ("app", "https://x.example/#x", "fragment"),
    ):  # fmt: skip
        assert said in await home.trust("client-redirects", client, "--redirect", uri, status=2)
    assert "no such client" in await home.trust("remove-client", "nobody", status=2)
    assert home.files() == before
