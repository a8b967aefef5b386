"""One `keyturn.toml`, with `KEYTURN_SECTION__NAME` variables over it, read into typed sections."""

import argparse
import ipaddress
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

from keyturn.contract.errors import ConfigurationError
from keyturn.process.addresses import check_sentinels, check_store_url
from keyturn.process.values import Secret, Unfit, fit, from_text, path_from, without_none

DEFAULT_FILE = "keyturn.toml"
LARGEST_FILE_BYTES = 1024 * 1024
_PREFIX = "KEYTURN_"
_LOOPBACK_NAMES = frozenset({"localhost"})


class Shape:
    """What a section of the file is read into: a frozen dataclass whose fields are settings.

    A field of type Secret, `password`, is set by `password_file`. `__post_init__` may refuse combinations.
    """

    SECTION: ClassVar[str]


class Section(Shape):
    """A whole section: a setting that it does not know is a typing error."""


class SectionPart(Shape):
    """Some settings of a section that another program owns: those that it does not know are none of its business."""


SectionType = TypeVar("SectionType", bound=Shape)


@dataclass(frozen=True, kw_only=True, slots=True)
class IssuerSettings(Section):
    """`[issuer]`: who we are to the world."""

    SECTION: ClassVar[str] = "issuer"
    url: str

    def __post_init__(self) -> None:
        """Refuse an issuer that RFC 8414 (section 2) would not have, or that travels in the clear."""
        mend = "write an https URL without query, fragment and trailing slash (http on loopback only)"
        try:
            parts = urlsplit(self.url)
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            raise ConfigurationError("the issuer is not a URL", setting="issuer.url", mend=mend) from error
        secure = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))
        bare = not set(self.url) & set("?#@ ") and not self.url.endswith("/")
        if not (host and secure and bare):
            shown = "this" if "@" in self.url else repr(self.url)  # What stands before an @ may be a password.
            raise ConfigurationError(f"{shown} cannot be an issuer", setting="issuer.url", mend=mend)


@dataclass(frozen=True, kw_only=True, slots=True)
class RedisSettings(Section):
    """`[redis]`: the server that feed and records live on."""

    SECTION: ClassVar[str] = "redis"
    url: str
    password: Secret | None = None
    credentials: Path | None = None
    """A directory: the process that is user N of the server logs in as N, with the password in `N.password`."""
    ca_file: Path | None = None
    durable: bool = False
    """This is one server that loses no acknowledged write and never fails over, so that what verifiers reported to it
    outlives its restarts. Set it only where that is so (`appendonly yes`, `appendfsync always`, no replicas)."""

    require: Literal["memory", "local", "replicated"] = "memory"
    """How durable an event must be for its receipt to be given; what falls short is 503, though it stands."""
    sentinels: tuple[str, ...] = ()
    """Where Sentinels answer; the hosts of URLs are then names of the primary that they watch."""
    sentinel_user: str | None = None
    sentinel_password: Secret | None = None
    replica_url: str | None = None
    """Where a sidecar reads the feed and hears it; what it writes goes to `url` all the same."""

    def __post_init__(self) -> None:
        """Refuse what is no Redis URL, a password in it, and settings that contradict each other."""
        check_store_url(self.url, setting="redis.url", named=bool(self.sentinels))
        encrypted = self.url.startswith("rediss:")
        if self.replica_url is not None:
            check_store_url(self.replica_url, setting="redis.replica_url", named=bool(self.sentinels))
            if self.replica_url.startswith("rediss:") != encrypted:
                raise ConfigurationError(
                    "one way to the store is encrypted and the other is not", setting="redis.replica_url",
                    mend="write rediss:// in both, or in neither",
                )  # fmt: skip
        if self.ca_file is not None and not encrypted:
            raise ConfigurationError(
                "this connection is not encrypted, so no certificate is looked at", setting="redis.ca_file",
                mend="write rediss:// in redis.url, or take the setting out",
            )  # fmt: skip
        check_sentinels(self.sentinels)
        if not self.sentinels and (self.sentinel_user is not None or self.sentinel_password is not None):
            raise ConfigurationError(
                "there are no sentinels to log in to",
                setting="redis.sentinels",
                mend="name them, or take the login out",
            )
        if self.sentinels and self.durable:
            raise ConfigurationError(
                "a store with sentinels fails over, and then lacks what no replica had", setting="redis.durable",
                mend="take it out, or name one server without sentinels",
            )  # fmt: skip

    def login(self, user: str) -> tuple[str | None, Secret | None]:
        """Return whom a process logs in as and its password; without `credentials`, what the URL and file say.

        Raises ConfigurationError if the password of that user cannot be read.
        """
        if self.credentials is None:
            return None, self.password
        try:
            return user, Secret.read(self.credentials / f"{user}.password")
        except Unfit as error:
            raise ConfigurationError(str(error), setting="redis.credentials", mend=error.mend) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class TrustSettings(Section):
    """`[trust]`: what this process pins."""

    SECTION: ClassVar[str] = "trust"
    root: Path
    """The root's public JWK."""
    allow_dev: bool = False
    """Whether a trust document that is marked `dev` will do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LogSettings(Section):
    """`[log]`: how much, and in which form."""

    SECTION: ClassVar[str] = "log"
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class Settings:
    """What the file and the environment say; each process takes the sections that it knows."""

    def __init__(self, tables: Mapping[str, Any], variables: Mapping[str, str], *, beside: Path) -> None:
        """Hold a parsed file, whose relative paths start at `beside`, and the variables over it."""
        self._tables, self._variables, self._beside = tables, variables, beside

    @classmethod
    def read(cls, path: Path | None = None, *, environ: Mapping[str, str] | None = None) -> Self:
        """Read the file that is named by `path`, else by KEYTURN_CONFIG, else `./keyturn.toml` if there is one.

        Raises ConfigurationError.
        """
        variables = os.environ if environ is None else environ
        named = path or (Path(variables["KEYTURN_CONFIG"]) if variables.get("KEYTURN_CONFIG") else None)
        file = named or Path(DEFAULT_FILE)
        if named is None and not file.exists():
            return cls({}, variables, beside=Path.cwd())
        return cls(_parse(file), variables, beside=file.absolute().parent)

    def has(self, section: str) -> bool:
        """Say whether the file has a section of that name."""
        return section in self._tables

    def section(self, shape: type[SectionType]) -> SectionType:
        """Return one section, with defaults for what is not set; raises ConfigurationError."""
        table = self._table(self._tables, shape.SECTION, name=shape.SECTION)
        return self._fill(shape, shape.SECTION, table)

    def named_sections(self, shape: type[SectionType]) -> dict[str, SectionType]:
        """Return the tables below a section by their names, such as `default` for `[policy.default]`.

        A variable reaches one as KEYTURN_POLICY__DEFAULT__AUDIENCE. Raises ConfigurationError.
        """
        tables = self._table(self._tables, shape.SECTION, name=shape.SECTION)
        names = {_variable_part(name): name for name in tables}
        start = f"{_PREFIX}{_variable_part(shape.SECTION)}__"
        for variable in self._variables:
            part, separator, _ = variable.removeprefix(start).partition("__")
            if variable.startswith(start) and separator:
                names.setdefault(part, part.lower())
        return {
            name: self._fill(shape, f"{shape.SECTION}.{name}", self._table(tables, name, name=shape.SECTION))
            for name in names.values()
        }

    def _table(self, tables: Mapping[str, Any], key: str, *, name: str) -> Mapping[str, Any]:
        table = tables.get(key, {})
        if not isinstance(table, Mapping):
            raise ConfigurationError(f"{key} is not a section", setting=name, mend=f"write [{name}] above its settings")
        return table

    def _fill(self, shape: type[SectionType], name: str, table: Mapping[str, Any]) -> SectionType:
        known = _known(shape)
        variables = self._variables_of(name)
        for setting in (*table, *variables):
            if setting not in known and issubclass(shape, Section):
                raise _unknown(name, setting, known)
        filled: dict[str, object] = {}
        for setting, (field, annotation) in known.items():
            where = f"{name}.{setting}"
            try:
                if setting in variables:
                    raw = from_text(annotation, variables[setting])
                    filled[field.name] = _value(annotation, raw, beside=Path.cwd())
                elif setting in table:
                    filled[field.name] = _value(annotation, table[setting], beside=self._beside)
            except Unfit as error:
                raise ConfigurationError(str(error), setting=where, mend=error.mend) from error
            if field.name not in filled and field.default is MISSING and field.default_factory is MISSING:
                raise ConfigurationError(
                    f"{setting} is not set",
                    setting=where,
                    mend=f"set it in [{name}] of {DEFAULT_FILE}, or {_variable(name)}{setting.upper()}",
                )
        return shape(**filled)

    def _variables_of(self, name: str) -> dict[str, str]:
        start = _variable(name)
        return {
            variable.removeprefix(start).lower(): text
            for variable, text in self._variables.items()
            if variable.startswith(start)
        }


def from_arguments(program: str, *, about: str, argv: Sequence[str] | None = None) -> Settings:
    """Read the settings of a process that is started as `python -m PROGRAM [--config FILE]`.

    Raises ConfigurationError; wrong usage ends the process with status 2.
    """
    parser = argparse.ArgumentParser(prog=program, description=about.replace("`", ""), allow_abbrev=False)
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help=f"the settings (default: KEYTURN_CONFIG, else ./{DEFAULT_FILE})",
    )
    return Settings.read(parser.parse_args(argv).config)


def _parse(file: Path) -> dict[str, Any]:
    mend = "name a configuration file by --config or KEYTURN_CONFIG"
    try:
        with file.open("rb") as opened:
            text = opened.read(LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}", setting="config", mend=mend) from error
    if len(text) > LARGEST_FILE_BYTES:
        raise ConfigurationError(f"{file} is larger than 1 MiB", setting="config", mend=mend)
    try:
        return tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} is not TOML: {error}", setting="config", mend="mend it there") from error


def _known(shape: type[Shape]) -> dict[str, tuple[Field[Any], Any]]:
    """Return the settings of a section by the names that the file calls them."""
    hints = get_type_hints(shape, include_extras=True)
    return {
        f"{field.name}_file" if _is_secret(hints[field.name]) else field.name: (field, hints[field.name])
        for field in fields(shape)  # type: ignore[arg-type]  # Each Section is a dataclass.
    }


def _is_secret(annotation: Any) -> bool:
    kind = without_none(annotation)
    return (get_args(kind)[0] if get_origin(kind) is Annotated else kind) is Secret


def _value(annotation: Any, raw: object, *, beside: Path) -> object:
    if not _is_secret(annotation):
        return fit(annotation, raw, beside=beside)
    return Secret.read(path_from(raw, beside=beside))


def _unknown(name: str, setting: str, known: Mapping[str, object]) -> ConfigurationError:
    where = f"{name}.{setting}"
    if f"{setting}_file" in known:
        mend = f"write the secret into a file, mode 600, and name it in {name}.{setting}_file"
        return ConfigurationError("a secret does not belong in the configuration", setting=where, mend=mend)
    near = get_close_matches(setting, known, n=1)
    mend = f"did you mean {near[0]}?" if near else f"choose from {', '.join(sorted(known))}"
    return ConfigurationError("there is no such setting", setting=where, mend=mend)


def _variable_part(name: str) -> str:
    return name.upper().replace("-", "_")


def _variable(name: str) -> str:
    return _PREFIX + "".join(f"{_variable_part(part)}__" for part in name.split("."))


def is_loopback(host: str | None) -> bool:
    """Say whether a URL's host is this machine, by name or address."""
    if host is None or host in _LOOPBACK_NAMES:
        return host is not None
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
