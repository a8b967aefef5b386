"""`[issuers.NAME]`: other issuers whose tokens are taken, and whose tokens can be revoked here."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from keyturn.contract.errors import ConfigurationError
from keyturn.contract.issuers import MAPPED_CLAIMS, MOST_ISSUERS, NO_TYPE, STALE_SECONDS, ForeignIssuer
from keyturn.process.settings import Section, Settings, is_loopback
from keyturn.process.values import Duration, Range

OWN = "own"  # What a policy calls our own issuer.
ABSENT = "absent"  # What `types` calls a header without `typ`.
_NAME = re.compile(r"[a-z0-9_-]{1,64}")
_TYPE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,62}")
_CLAIM = re.compile(r"[\x21-\x3c\x3e-\x7e]{1,128}")


@dataclass(frozen=True, kw_only=True, slots=True)
class IssuersSettings(Section):
    """One `[issuers.NAME]`."""

    SECTION: ClassVar[str] = "issuers"
    url: str
    """Its `iss`, byte for byte."""
    token: Annotated[Duration, Range(1, 7 * 86_400)]
    """The longest life of its access tokens. Longer ones are refused; revocations of its tokens are kept for this."""
    jwks: str | None = None
    jwks_file: Path | None = None
    """Where its keys stand; without both, what its metadata says."""
    algorithms: tuple[Literal["ES256", "ES384", "RS256", "PS256", "EdDSA"], ...] = ("RS256",)
    types: tuple[str, ...] = ("at+jwt",)
    """The `typ` of its access tokens."""
    claims: tuple[str, ...] = ()
    """Which of its claims stands for one of ours: `client_id=azp`."""
    audience: str | None = None
    """What its security events are for: our client id there."""
    sessions: bool = False
    """Whether its access tokens carry `sid`. If not, the end of a session ends all tokens of its user."""
    stale_keys: Annotated[Duration, Range(60, 7 * 86_400)] = STALE_SECONDS
    """How long keys are used that could not be read again."""


def read_issuers(settings: Settings, *, own: str) -> Mapping[str, ForeignIssuer]:
    """Return all other issuers by name; `own` is ours. Raises ConfigurationError for one that is not usable."""
    sections = settings.named_sections(IssuersSettings)
    known: dict[str, ForeignIssuer] = {}
    for name, section in sections.items():
        where = f"issuers.{name}"
        if not _NAME.fullmatch(name) or name == OWN:
            raise ConfigurationError(
                f"{name!r} cannot be its name", setting=where, mend=f"name it with a-z, 0-9, _ and -, and not {OWN!r}"
            )
        _check_choices(section, where)
        known[name] = _issuer(name, section, where)
    check_issuers(list(known.values()), own=own)
    return known


def check_issuers(issuers: Sequence[ForeignIssuer], *, own: str) -> None:
    """Raise ConfigurationError for other issuers that cannot be told apart, or whose keys cannot be read safely."""
    if len(issuers) > MOST_ISSUERS:
        raise ConfigurationError(
            f"{len(issuers)} issuers are too many", setting="issuers", mend=f"keep {MOST_ISSUERS} of them"
        )
    seen = {own}
    for one in issuers:
        where = f"issuers.{one.name}"
        _check_url(one.url, setting=f"{where}.url")
        if isinstance(one.jwks, str):
            _check_url(one.jwks, setting=f"{where}.jwks", queries=True)
        if one.url in seen:
            raise ConfigurationError(
                "this issuer is described twice", setting=f"{where}.url", mend="keep one; ours stands in [issuer]"
            )
        seen.add(one.url)


def _check_choices(section: IssuersSettings, where: str) -> None:
    if section.jwks is not None and section.jwks_file is not None:
        raise ConfigurationError(
            "its keys are told in two places", setting=f"{where}.jwks_file", mend="keep one of jwks and jwks_file"
        )
    for setting, value in (("algorithms", section.algorithms), ("types", section.types)):
        if not value:
            raise ConfigurationError(
                "no token could be accepted", setting=f"{where}.{setting}", mend="list at least one"
            )


def _issuer(name: str, section: IssuersSettings, where: str) -> ForeignIssuer:
    return ForeignIssuer(
        name=name, url=section.url, token_seconds=section.token, algorithms=tuple(section.algorithms),
        types=frozenset(_type(one, where) for one in section.types), audience=section.audience,
        sessions=section.sessions,
        claims=dict(_claim(one, where) for one in section.claims),
        jwks=section.jwks if section.jwks_file is None else section.jwks_file, stale_seconds=section.stale_keys,
    )  # fmt: skip


def _type(text: str, where: str) -> str:
    typ = text.lower().removeprefix("application/")
    if typ == ABSENT:
        return NO_TYPE
    if not _TYPE.fullmatch(typ):
        raise ConfigurationError(
            f"{text!r} is no type of a token", setting=f"{where}.types", mend='write such as ["at+jwt"] or ["JWT"]'
        )
    return typ


def _claim(text: str, where: str) -> tuple[str, str]:
    ours, _, theirs = text.partition("=")
    if ours not in MAPPED_CLAIMS or not _CLAIM.fullmatch(theirs):
        raise ConfigurationError(
            f"{text!r} does not say which claim stands for one of ours", setting=f"{where}.claims",
            mend=f'write such as ["client_id=azp"]; ours are {", ".join(sorted(MAPPED_CLAIMS))}',
        )  # fmt: skip
    return ours, theirs


def _check_url(text: str, *, setting: str, queries: bool = False) -> None:
    """Refuse what is no URL, and one that travels in the clear."""
    try:
        parts = urlsplit(text)
        secure = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))
        well = secure and bool(parts.hostname) and parts.port != 0 and text.isascii()
    except ValueError:
        well = False
    if not well or set(text) & set("#@ " if queries else "?#@ "):
        shown = "this" if "@" in text else repr(text)  # What stands before an @ may be a password.
        raise ConfigurationError(
            f"{shown} cannot be used", setting=setting, mend="write an https URL (http on loopback only)"
        )
