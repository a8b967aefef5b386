"""The sections that every process has: who we are, where Redis is, what is pinned."""

from pathlib import Path
from typing import Any

import pytest

from keyturn.contract.errors import ConfigurationError
from keyturn.process.addresses import check_sentinels, name_in
from keyturn.process.redis import connect
from keyturn.process.settings import IssuerSettings, RedisSettings, Settings, TrustSettings


def refusal(shape: type[IssuerSettings] | type[RedisSettings], url: str) -> ConfigurationError:
    """Return the error by which this URL is refused."""
    with pytest.raises(ConfigurationError) as refused:
        shape(url=url)
    return refused.value


@pytest.mark.parametrize(
    "url", ["https://issuer.example", "https://issuer.example/tenant", "http://127.0.0.1:8400", "http://[::1]:8400"]
)
def test_an_issuer_is_https_or_on_loopback(url: str) -> None:
    """RFC 8414, section 2; plain http is for a laptop."""
    assert IssuerSettings(url=url).url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example",
        "https://issuer.example/",
        "https://issuer.example?",
        "https://issuer.example?a=b",
        "https://issuer.example#top",
        "https://user@issuer.example",
        "https://",
        "https://host:port",
        "https://[::1",
        "issuer.example",
        "http://127.0.0.1.example",
        "https://a b.example",
    ],
)
def test_what_cannot_be_an_issuer_is_refused(url: str) -> None:
    """It is compared byte for byte everywhere: a sloppy one fails late, in somebody else's API."""
    assert refusal(IssuerSettings, url).setting == "issuer.url"


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:6379/0", "rediss://sidecar@redis.example", "unix:///run/valkey.sock"]
)
def test_a_redis_url_may_be_plain_encrypted_or_a_socket(url: str) -> None:
    """The three schemes that redis-py knows."""
    assert RedisSettings(url=url).url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://redis",
        "redis://",
        "redis:///0",
        "unix://",
        "redis://h?decode_responses=1",
        "redis://h:port",
        "redis://[",
    ],
)
def test_what_is_no_redis_url_is_refused(url: str) -> None:
    """Its query would change how the client behaves."""
    assert refusal(RedisSettings, url).setting == "redis.url"


def test_a_password_in_the_url_is_refused_and_not_repeated() -> None:
    """Secrets are files; the refusal itself goes to a log."""
    error = refusal(RedisSettings, "redis://sidecar:sesame@h:6379")
    assert "redis.password_file" in error.mend
    assert "sesame" not in str(error)


def test_a_refusal_repeats_no_password() -> None:
    """Not even where the URL is so wrong that it is not clear what is the password."""
    for shape in (IssuerSettings, RedisSettings):
        for url in (
            "https://user:sesame@h/",
            "redis://user:sesame@h?x=1",
            "redis://user:12#sesame@h",
            "redis://:sesame@[",
        ):
            assert "sesame" not in str(refusal(shape, url))


def test_with_sentinels_the_urls_host_is_the_name_that_they_watch(tmp_path: Path) -> None:
    """No part of the URL is for show; Sentinel minds the case of names, and so do we."""
    file = tmp_path / "keyturn.toml"
    file.write_text('[redis]\nurl = "rediss://sidecar@Feed_1/3"\nsentinels = ["10.0.0.1:26379", "[::1]:26379"]\n')
    store = Settings.read(file, environ={"KEYTURN_REDIS__REPLICA_URL": "rediss://Feed_1/3"}).section(RedisSettings)
    assert name_in(store.url) == name_in(store.replica_url or "") == "Feed_1"
    assert [str(one) for one in check_sentinels(store.sentinels)] == ["10.0.0.1:26379", "[::1]:26379"]


@pytest.mark.parametrize(
    ("settings", "setting"),
    [
        ({"url": "redis://feed:6379/0", "sentinels": ("h:26379",)}, "redis.url"),
        ({"url": "redis://fe%65d/0", "sentinels": ("h:26379",)}, "redis.url"),
        ({"url": "unix:///run/valkey.sock", "sentinels": ("h:26379",)}, "redis.url"),
        ({"url": "redis://feed", "sentinels": ("h",)}, "redis.sentinels"),
        ({"url": "redis://feed", "sentinels": ("h:0",)}, "redis.sentinels"),
        ({"url": "redis://feed", "sentinels": ("unix:/run/sentinel.sock",)}, "redis.sentinels"),
        ({"url": "redis://feed", "sentinels": ("h:26379",) * 17}, "redis.sentinels"),
        ({"url": "redis://h", "sentinel_user": "keyturn"}, "redis.sentinels"),
        ({"url": "redis://feed", "sentinels": ("h:26379",), "durable": True}, "redis.durable"),
        ({"url": "redis://h", "ca_file": Path("ca.pem")}, "redis.ca_file"),
        ({"url": "rediss://h", "replica_url": "redis://r"}, "redis.replica_url"),
        ({"url": "redis://h", "replica_url": "redis://r:port"}, "redis.replica_url"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], setting: str) -> None:
    """Each would be a part that does nothing, a password in the clear, or a promise that failover breaks."""
    with pytest.raises(ConfigurationError) as refused:
        RedisSettings(**settings)
    assert refused.value.setting == setting


def test_a_file_without_certificates_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    """Else the first sign of a wrong path would be a store that seems to be away."""
    (tmp_path / "ca.pem").write_text("no certificate")
    for name in ("ca.pem", "missing.pem"):
        with pytest.raises(ConfigurationError, match=r"redis\.ca_file"):
            connect("rediss://h", client_name="tests", ca_file=tmp_path / name)


def test_trust_names_the_pinned_root(tmp_path: Path) -> None:
    """A relative path is taken from the file that says it; a stack's document is refused unless allowed."""
    file = tmp_path / "keyturn.toml"
    file.write_text('[trust]\nroot = "root.jwk"\n')
    trust = Settings.read(file, environ={}).section(TrustSettings)
    assert trust == TrustSettings(root=tmp_path / "root.jwk", allow_dev=False)
