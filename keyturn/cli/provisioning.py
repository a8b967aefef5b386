"""Makes a new Keyturn: root, roles, identities, trust document, sealing keys, store users, clients and genesis."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from keyturn import entropy
from keyturn.cli.kekfile import new_kek
from keyturn.cli.newclients import DEFAULT_AUDIENCE, DEFAULT_CLIENTS, NewClient, new_secret
from keyturn.contract.credentials import RANDOM_BYTES
from keyturn.contract.encoding import b64url
from keyturn.contract.envelope import StatementKey
from keyturn.contract.errors import ConfigurationError
from keyturn.contract.events import FORMAT, KeysSnapshot, RevocationsSnapshot, sign_snapshot
from keyturn.contract.jwk import ed25519_private_jwk
from keyturn.contract.positions import Lane
from keyturn.contract.purposes import ACCESS_TOKEN, INTROSPECTION_ANSWER, SECURITY_EVENT, STATUS_LIST
from keyturn.contract.snapshots import Section
from keyturn.contract.trust import REDIRECTS_ROLE, Identity, IdentityKind, MaySign, TrustDocument, sign_trust

SERVICES = ("authorization", "keyservice", "introspection", "revocation", "worker")
TRUST_DAYS = 365
# What each service may have signed: the types that it makes, for whoever they are for.
SIGNATURES: Mapping[str, tuple[str, ...]] = {
    "authorization": (ACCESS_TOKEN,),
    "introspection": (INTROSPECTION_ANSWER, ACCESS_TOKEN),  # The second for phantom tokens.
    "revocation": (STATUS_LIST, SECURITY_EVENT),
}
_SEALING_BYTES = 32
_HASH_KEY_BYTES = 16

# What each user of the store may do; everything else is denied. A selector in parentheses allows its commands on its
# keys and channels only: who may read a record must not be able to write one, nor to ring a lane's bell.
_FOLLOWING = (
    "-@all +ping +hello +auth +client|setinfo +client|setname +hget +hmget +xrange +get +subscribe +unsubscribe "
    "%R~keyturn:keys:* %R~keyturn:revocations:* %R~keyturn:trust &keyturn:keys:bell &keyturn:revocations:bell"
)
_WATCHING = "+info +punsubscribe (+mget %R~keyturn:presence:*) (+psubscribe &keyturn:presence:*)"
_READING_RECORDS = "(+get %R~keyturn:record:*)"
# A scan names every key of the store, whatever it matches: the names of records are keyed hashes, no others are secret.
_COUNTING_RECORDS = "(+scan)"
_SPENDING_ASSERTIONS = "(+set %W~keyturn:assertion:*)"
_PUBLISHING_KEYS = (
    "+script|load +config|get +wait +waitaof (+publish &keyturn:keys:bell) (+hgetall %R~keyturn:sealed-keys) "
    "(+evalsha +hget +hmget +hset +hdel +hincrby +xadd ~keyturn:keys:* ~keyturn:sealed-keys) "
    "(+del +xtrim %W~keyturn:keys:*)"
)
_PUBLISHING_REVOCATIONS = (
    "+script|load +config|get +wait +waitaof (+publish &keyturn:revocations:bell) "
    "(+evalsha +hget +hmget +hset +hincrby +hexists +xadd +xtrim +del ~keyturn:revocations:*) "
    "(+hkeys +hdel ~keyturn:revocations:chunks)"
)
_EVENTS = "(+evalsha +get +set +del +lpush +ltrim +lrange +llen ~keyturn:streams:*) (+get +set ~keyturn:received:*)"
_RUNNING_JOBS = (
    "+multi +exec +unwatch +dbsize (+del +exists +expire +get +incrby +pexpire +psetex +set +setex +watch +zadd +zcard "
    "+zincrby +zrange +zrangebyscore +zrem +zremrangebyscore +zscore ~arq:*)"
)
_PLACING_TOKENS = "+script|load (+evalsha +hmget +hset +xadd +xtrim ~keyturn:statuslists:*)"
# A script may be given these keys, and do to each only what is allowed there: the lane's head it reads.
_SIGNING_IN = (
    "(+evalsha ~keyturn:login:* ~keyturn:code:* ~keyturn:used-code:* ~keyturn:revocations:head ~keyturn:endings) "
    "(+get +set +del +exists +pexpire ~keyturn:login:* ~keyturn:code:* ~keyturn:used-code:*)"
)
_TURNING_FAMILIES = (
    "+time (+evalsha ~keyturn:family:* ~keyturn:endings ~keyturn:revocations:head) (+get +set ~keyturn:family:*) "
    "(+xadd +xlen ~keyturn:endings)"
)
_READING_FAMILIES = "+time (+get %R~keyturn:family:*)"
USERS = {
    "authorization": (
        f"{_FOLLOWING} {_SPENDING_ASSERTIONS} {_READING_RECORDS} (+set %W~keyturn:record:*) {_PLACING_TOKENS} "
        f"{_SIGNING_IN} {_TURNING_FAMILIES}"
    ),
    "keyservice": f"{_FOLLOWING} {_WATCHING} {_PUBLISHING_KEYS} {_READING_RECORDS} (+evalsha +get +set ~keyturn:trust)",
    "introspection": f"{_FOLLOWING} {_SPENDING_ASSERTIONS} {_READING_RECORDS} {_READING_FAMILIES}",
    "revocation": (
        f"{_FOLLOWING} {_WATCHING} {_PUBLISHING_REVOCATIONS} {_SPENDING_ASSERTIONS} {_READING_RECORDS} "
        f"{_COUNTING_RECORDS} (+del %W~keyturn:record:*) {_EVENTS} (+xrange %R~keyturn:statuslists:rows) "
        f"{_READING_FAMILIES} (+xread +xdel ~keyturn:endings)"
    ),
    "worker": f"{_FOLLOWING} {_WATCHING} {_PUBLISHING_KEYS} {_RUNNING_JOBS}",
}

# Servers' own users: a replica logs in to its primary, and sentinels to every server. Whoever reads as `replica` has a
# copy of everything, sealed keys included.
SERVER_USERS = {
    "replica": "-@all +psync +replconf +ping",
    "sentinel": "-@all +auth +ping +info +role +multi +exec +slaveof +replicaof +config|rewrite +client|setname "
    "+client|kill +script|kill +subscribe +publish &__sentinel__:hello",
}
RESERVED = frozenset({"default", *USERS, *SERVER_USERS})


@dataclass(frozen=True, slots=True)
class Plan:
    """What to provision; `issuer` is the origin's URL, byte for byte as tokens will carry it."""

    issuer: str
    redis_url: str = "redis://127.0.0.1:6379/0"
    verifiers: tuple[str, ...] = ("sidecar-1",)
    dev: bool = False
    clients: tuple[NewClient, ...] = field(default=DEFAULT_CLIENTS)


def provision(directory: Path, plan: Plan, *, now: float) -> None:
    """Write everything that a new Keyturn needs into a directory that does not exist or is empty (locks aside).

    Private files get mode 0600. Raises ConfigurationError if something is there already: keys are never written over.
    """
    directory = directory.absolute()
    if taken := RESERVED & set(plan.verifiers):
        raise ConfigurationError(
            f"{min(taken)} is a user of the store already", setting="--verifier", mend="choose another name for it"
        )
    if directory.exists() and any(not entry.name.endswith(".lock") for entry in directory.iterdir()):
        raise ConfigurationError(
            f"{directory} is not empty, and keys are never written over",
            setting="DIR", mend="name a new directory, or move the old one away",
        )  # fmt: skip
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    root = NewKey(directory / "root" / "private.jwk")
    roles = {lane: NewKey(directory / "roles" / f"{lane}.jwk") for lane in Lane}
    names = (*SERVICES, *plan.verifiers)
    identities = {name: NewKey(directory / "identities" / f"{name}.jwk") for name in names}
    secrets = {client.client_id: new_secret() for client in plan.clients}
    document = TrustDocument(
        version=1,
        issuer=plan.issuer,
        issued_at=now,
        expires_at=now + TRUST_DAYS * 86400,
        dev=plan.dev,
        feed_format=FORMAT,
        roles={lane.value: (file.key.public,) for lane, file in roles.items()} | _redirects(plan.clients),
        lowest_epoch={lane.value: 1 for lane in Lane},
        identities={name: _identity(name, file.key, plan) for name, file in identities.items()},
        clients={client.client_id: client.entry(secrets[client.client_id]) for client in plan.clients},
    )
    for file in (root, *roles.values(), *identities.values()):
        file.write()
    _write(directory / "root.jwk", _json(root.key.public), private=False)
    _write(directory / "trust.jws", sign_trust(root.key, document), private=False)
    for lane, role in roles.items():
        genesis = signed_genesis(lane, role.key, epoch=1, trust=1, now=now)
        _write(directory / "genesis" / f"{lane}.jws", genesis, private=False)
    _write(directory / "kek.json", _json(new_kek(now)))
    _write(directory / "records.json", _json(_record_keys(now)))
    for client in plan.clients:
        if not client.public:
            _write(directory / "clients" / f"{client.client_id}.secret", secrets[client.client_id].encode("ascii"))
    _write_users(directory / "redis", plan.verifiers)
    _write(directory / "keyturn.toml", configuration(directory, plan).encode("utf-8"), private=False)


def _redirects(clients: Sequence[NewClient]) -> dict[str, tuple[dict[str, str], ...]]:
    return {
        REDIRECTS_ROLE + client.client_id: tuple({"uri": uri} for uri in client.redirects)
        for client in clients
        if client.redirects
    }


def _identity(name: str, key: StatementKey, plan: Plan) -> Identity:
    if name in plan.verifiers:
        return Identity(kind=IdentityKind.VERIFIER, jwk=key.public)
    may_sign = tuple(MaySign(typ=typ, any_audience=True) for typ in SIGNATURES.get(name, ()))
    return Identity(kind=IdentityKind.SERVICE, jwk=key.public, may_sign=may_sign)


def signed_genesis(lane: Lane, role: StatementKey, *, epoch: int, trust: int, now: float) -> bytes:
    """Return the snapshot that an epoch begins with when nothing is known: no keys, or no revocations."""
    if lane is Lane.KEYS:
        return sign_snapshot(role, KeysSnapshot(epoch=epoch, sequence=0, at=now, trust=trust)).compact
    hash_key = entropy.token_bytes(_HASH_KEY_BYTES)
    sections = (Section(hash_key=hash_key),)
    snapshot = RevocationsSnapshot(epoch=epoch, sequence=0, at=now, trust=trust, sections=sections)
    return sign_snapshot(role, snapshot).compact


def _write_users(directory: Path, verifiers: tuple[str, ...]) -> None:
    """Write the ACL file and a password file for each user; the default user administers the server."""
    lines = []
    sidecars = {name: verifier_rules(name) for name in verifiers}
    for user, rules in {"default": "~* &* +@all", **USERS, **sidecars, **SERVER_USERS}.items():
        line, password = new_user(user, rules)
        # Apart from those of processes: a process that can read all of its folder must not become a replica.
        folder = directory / "servers" if user in SERVER_USERS else directory
        _write(folder / f"{user}.password", password)
        lines.append(line)
    _write(directory / "users.acl", "".join(lines).encode("ascii"))


def verifier_rules(name: str) -> str:
    """Return what a verifier's user of the store may do: read the feed, and report its own presence."""
    return f"{_FOLLOWING} (+set %W~keyturn:presence:{name}) (+publish &keyturn:presence:{name})"


def new_user(name: str, rules: str) -> tuple[str, bytes]:
    """Return a user's line of the access list, with its end, and the password that was made for it."""
    password = _random(RANDOM_BYTES).encode("ascii")
    return f"user {name} on #{sha256(password).hexdigest()} resetchannels {rules}\n", password


def configuration(directory: Path, plan: Plan) -> str:
    """Return a `keyturn.toml` for all processes on one host, naming the files of `directory`."""
    text = json.dumps  # A JSON string is a TOML basic string.
    return f"""# Settings of every Keyturn process; KEYTURN_SECTION__NAME in the environment goes over it.
[issuer]
url = {text(plan.issuer)}

[redis]
url = {text(plan.redis_url)}
credentials = {text(str(directory / "redis"))}

[trust]
root = {text(str(directory / "root.jwk"))}
allow_dev = {str(plan.dev).lower()}

[state]
directory = {text(str(directory / "state"))}

[records]
key_file = {text(str(directory / "records.json"))}

[authorization]
identity_file = {text(str(directory / "identities" / "authorization.jwk"))}
signer = {text(f"unix:{directory / 'run' / 'keyservice.sock'}")}

[keyservice]
role_key_file = {text(str(directory / "roles" / "keys.jwk"))}
kek_file = {text(str(directory / "kek.json"))}
trust_document = {text(str(directory / "trust.jws"))}
genesis_file = {text(str(directory / "genesis" / "keys.jws"))}
signing_listen = {text(f"unix:{directory / 'run' / 'keyservice.sock'}")}

[introspection]
identity_file = {text(str(directory / "identities" / "introspection.jwk"))}
signer = {text(f"unix:{directory / 'run' / 'keyservice.sock'}")}

[revocation]
identity_file = {text(str(directory / "identities" / "revocation.jwk"))}
signer = {text(f"unix:{directory / 'run' / 'keyservice.sock'}")}
role_key_file = {text(str(directory / "roles" / "revocations.jwk"))}
genesis_file = {text(str(directory / "genesis" / "revocations.jws"))}

[sidecar]
verifier = {text(plan.verifiers[0])}
identity_file = {text(str(directory / "identities" / f"{plan.verifiers[0]}.jwk"))}

[policy.default]
audience = {text(DEFAULT_AUDIENCE)}
"""


class NewKey:
    """A new private Ed25519 key, the file that it goes to, and what stands there."""

    def __init__(self, path: Path) -> None:
        private = entropy.new_statement_key()
        self.key, self.path = StatementKey(private), path
        self.content = _json({**ed25519_private_jwk(private), "kid": self.key.kid})

    def write(self) -> None:
        """Make the file, mode 0600; it must not be there."""
        _write(self.path, self.content)


def _random(count: int) -> str:
    return b64url(entropy.token_bytes(count))


def _record_keys(now: float) -> dict[str, str]:
    return {"id": entropy.uuid7(now), "seal": _random(_SEALING_BYTES), "pepper": _random(_SEALING_BYTES)}


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True).encode("ascii") + b"\n"


def _write(path: Path, content: bytes, *, private: bool = True) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600 if private else 0o644, exist_ok=False)
    path.write_bytes(content)
