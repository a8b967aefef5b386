"""Private keys at rest: only the right KEK opens them, only under their own name, in a file or far away."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from keyservice.rotator import Order
from keyservice.sealing import KeySealer
from keyservice.transit import TransitWrapper
from keyservice.wrapping import FileWrapper, KeyWrapper, SealedKeyUnreadable
from keyturn import entropy
from keyturn.cli.kekfile import new_kek
from keyturn.contract.encoding import b64url
from keyturn.contract.errors import ConfigurationError, WrapperUnavailable
from keyturn.contract.jwk import PrivateKey
from keyturn.contract.keys import Phase, Use
from keyturn.process.values import Secret
from tests.keyservice.building import inside, kek_file, write_keks
from tests.keyservice.vault import TOKEN, Vault, vault_at
from tests.world import World


def raw(key: PrivateKey) -> bytes:
    """Return a private key's bytes."""
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


@pytest.fixture
async def vault() -> AsyncIterator[Vault]:
    """Run a stand-in for Vault's Transit engine."""
    async with vault_at() as one:
        yield one


@pytest.fixture(params=["file", "transit"])
def wrapper(request: pytest.FixtureRequest, vault: Vault) -> KeyWrapper:
    """Return each implementation in turn: both keep the same promises."""
    return FileWrapper(kek_file()) if request.param == "file" else transit(vault)


def transit(vault: Vault) -> TransitWrapper:
    """Return a wrapper over the stand-in."""
    return TransitWrapper(url=vault.url, mount="transit", key="keyturn", token=Secret(TOKEN.encode()))


@pytest.mark.parametrize("alg", ["ES256", "ES384", "RS256", "EdDSA"])
async def test_a_sealed_key_opens_to_the_same_key(wrapper: KeyWrapper, alg: str) -> None:
    """What is sealed is not lost, and does not lie there in the clear."""
    sealer, key = KeySealer(wrapper), entropy.new_key(alg)
    sealed = await sealer.seal("kid", Use.ACCESS, key)
    assert raw(await sealer.open("kid", Use.ACCESS, sealed)) == raw(key)
    assert raw(key) not in sealed
    assert wrapper.kek_of(sealed) == await wrapper.current()


async def test_a_sealed_key_does_not_open_under_another_name_or_use_nor_changed(wrapper: KeyWrapper) -> None:
    """Who writes the store must not be able to move a key to where it signs something else."""
    sealer = KeySealer(wrapper)
    sealed = await sealer.seal("kid", Use.ACCESS, entropy.new_key("ES256"))
    changed = sealed[:-8] + bytes([sealed[-8] ^ 1]) + sealed[-7:]
    for kid, use, box in (
        ("other", Use.ACCESS, sealed),
        ("kid", Use.STATUS, sealed),
        ("kid", Use.ACCESS, changed),
        ("kid", Use.ACCESS, b""),
        ("kid", Use.ACCESS, b"kek-1\0"),
        ("kid", Use.ACCESS, b"transit\0vault:v1:"),
        ("kid", Use.ACCESS, b"transit\0vault:v9:" + sealed[17:]),
    ):
        with pytest.raises(SealedKeyUnreadable):
            await sealer.open(kid, use, box)


async def test_sealing_twice_gives_two_boxes(wrapper: KeyWrapper) -> None:
    """A nonce that repeats breaks GCM."""
    sealer, key = KeySealer(wrapper), entropy.new_key("ES256")
    assert await sealer.seal("kid", Use.ACCESS, key) != await sealer.seal("kid", Use.ACCESS, key)


async def test_a_new_kek_in_the_file_is_used_at_once_and_the_old_one_still_opens() -> None:
    """Without a restart: the file is read again when it has changed."""
    old, new = new_kek(1.0), new_kek(2.0)
    path = kek_file(old)
    sealer, key = KeySealer(FileWrapper(path)), entropy.new_key("ES256")
    sealed = await sealer.seal("kid", Use.ACCESS, key)
    assert await sealer.reseal("kid", Use.ACCESS, sealed) is None
    write_keks(path, new, old)
    fresh = await sealer.reseal("kid", Use.ACCESS, sealed)
    assert fresh is not None
    assert sealer.wrapper.kek_of(fresh) == new["id"]
    assert raw(await sealer.open("kid", Use.ACCESS, sealed)) == raw(key)
    write_keks(path, new)
    assert raw(await sealer.open("kid", Use.ACCESS, fresh)) == raw(key)
    with pytest.raises(SealedKeyUnreadable):
        await sealer.open("kid", Use.ACCESS, sealed)


@pytest.mark.parametrize("broken", ["", "{}", "gone"])
async def test_a_kek_file_that_breaks_while_we_run_leaves_the_keks_that_we_have(broken: str) -> None:
    """A half-written file at 3 a.m. must not stop a signer that works."""
    path = kek_file()
    wrapper = FileWrapper(path)
    sealed = await wrapper.wrap(b"secret", bound=b"")
    if broken == "gone":
        path.unlink()
    else:
        path.write_text(broken)
    assert await wrapper.unwrap(sealed, bound=b"") == b"secret"


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[]", b"{}", b'{"keys": []}', b'{"id": "k", "key": "AAAA"}', b'{"id": "", "key": "x"}',
        b'{"id": 1, "key": "AAAA"}', b'{"keys": [{"id": "a", "key": "%b"}, {"id": "a", "key": "%b"}]}',
    ],
)  # fmt: skip
def test_a_file_that_holds_no_kek_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    """A missing or broken KEK must stop the start, naming the setting."""
    path = tmp_path / "kek.json"
    path.touch(mode=0o600)
    path.write_bytes(content.replace(b"%b", b64url(bytes(32)).encode()))
    with pytest.raises(ConfigurationError, match=r"keyservice\.kek_file"):
        FileWrapper(path)
    with pytest.raises(ConfigurationError, match=r"keyservice\.kek_file"):
        FileWrapper(tmp_path / "missing.json")
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        FileWrapper(path)


def test_the_file_that_init_writes_is_read(tmp_path: Path) -> None:
    """One KEK without a list, as `keyturn init` makes it."""
    path = tmp_path / "kek.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps({"id": "k1", "key": b64url(bytes(32))}))
    assert repr(FileWrapper(path)) == "FileWrapper(k1)"


async def test_every_key_is_resealed_while_signing_goes_on() -> None:
    """`keyturn kek rotate`: afterwards nothing in the store needs the old KEK."""
    world = await World().begin()
    one = await inside(world)
    await one.rotator.tick()
    await one.keyring.refresh()
    wrapper = one.keyring._sealer.wrapper
    assert isinstance(wrapper, FileWrapper)
    new = new_kek(2.0)
    write_keks(wrapper._path, new, json.loads(wrapper._path.read_text())["keys"][0])
    done = await one.keyring.reseal()
    assert (done.kek, done.resealed, done.left) == (new["id"], 3, ())
    boxes = await world.feed.sealed_keys()
    assert {wrapper.kek_of(box) for box in boxes.values()} == {new["id"]}
    assert (await one.keyring.reseal()).resealed == 0
    again = await inside(world)
    again.keyring._sealer = KeySealer(wrapper)
    assert await again.keyring.refresh() == []


async def test_resealing_never_brings_back_a_key_that_was_erased_meanwhile() -> None:
    """Destroyed is destroyed: the replacement is compared with what was read."""
    world = await World().begin()
    one = await inside(world)
    await one.rotator.tick()
    kid, box = next(iter((await world.feed.sealed_keys()).items()))
    await one.rotator.revoke(kid, Order())
    assert not await world.feed.replace_sealed(kid, held=box, by=b"back")
    assert kid not in await world.feed.sealed_keys()


async def test_transit_that_is_away_or_refuses_is_unavailable_and_never_a_bad_key(vault: Vault) -> None:
    """An outage of Vault must not look like keys that were tampered with."""
    wrapper = transit(vault)
    sealed = await wrapper.wrap(b"secret", bound=b"x")
    for status in (403, 429, 500, 503):
        vault.answer_only = status
        for attempt in (wrapper.current(), wrapper.wrap(b"s", bound=b""), wrapper.unwrap(sealed, bound=b"x")):
            with pytest.raises(WrapperUnavailable):
                await attempt
    away = TransitWrapper(url="http://127.0.0.1:9", mount="transit", key="keyturn", token=Secret(b"t"))
    with pytest.raises(WrapperUnavailable):
        await away.current()
    assert TOKEN not in repr(wrapper)


async def test_a_rotated_transit_key_reseals_everything(vault: Vault) -> None:
    """`vault write -f transit/keys/keyturn/rotate`, then `keyturn kek rotate --reseal-only`."""
    world = await World().begin()
    one = await inside(world)
    one.keyring._sealer = KeySealer(transit(vault))
    await one.rotator.tick()
    vault.rotate()
    done = await one.keyring.reseal()
    assert (done.kek, done.resealed) == ("transit:keyturn:v2", 3)
    assert await one.keyring.refresh() == []
    assert len(one.member.replica.keys.of("ES256", Use.ACCESS, Phase.ACTIVE)) == 1
