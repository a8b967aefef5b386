"""Refresh tokens for tests, as a sign-in would begin them, and what the store holds of them."""

from typing import Any

from keyturn import entropy
from keyturn.contract.credentials import RANDOM_BYTES, CredentialKind, make_credential
from keyturn.contract.encoding import b64url
from serving.families import Families, Family, mark_of, successor_of
from tests.building import Standing
from tests.world import AUDIENCE

APP, TWO = "refresher", "https://two.example/v1"
LIFE_SECONDS = 86_400.0


def new_refresh_token() -> str:
    """Make a refresh token."""
    return make_credential(CredentialKind.REFRESH, entropy.token_bytes(RANDOM_BYTES))


def families_of(stage: Standing) -> Families:
    """Return the families in the store of a test."""
    return Families(stage.redis, stage.record_keys)


def family_of(stage: Standing, token: str, **changes: Any) -> Family:
    """Return a family that alice began a moment ago at `refresher`, with this token as its good one."""
    now = stage.world.clock.now()
    claims = {
        "iss": stage.world.issuer, "sub": "alice", "client_id": APP, "aud": [AUDIENCE, TWO], "scope": "read write",
        "grant_id": entropy.uuid7(now), "sid": "session-1",
    } | changes.pop("claims", {})  # fmt: skip
    made: Any = {"claims": claims, "ends_at": now + LIFE_SECONDS, "current": mark_of(token), "made_at": now,
                 "expires_at": now + 3600.0} | changes  # fmt: skip
    return Family(**made)


async def begin(stage: Standing, **changes: Any) -> str:
    """Keep a family in the store, and return its token."""
    token = new_refresh_token()
    await families_of(stage).begin(token, family_of(stage, token, **changes), keep_seconds=2.0)
    return token


async def begin_turned(stage: Standing, *, ago_seconds: float, **changes: Any) -> tuple[str, str]:
    """Keep a family that turned so long ago, and return the token that was used and the one that is good."""
    used, salt = new_refresh_token(), b64url(entropy.token_bytes(32))
    successor = successor_of(used, salt)
    whole_seconds, microseconds = await stage.redis.time()
    family = family_of(
        stage, successor, previous=mark_of(used), salt=salt, turned_at=whole_seconds + microseconds / 1e6 - ago_seconds,
        **changes,
    )  # fmt: skip
    await families_of(stage).begin(used, family, keep_seconds=2.0)
    return used, successor
