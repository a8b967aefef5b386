"""Where a store is: the URLs and addresses that `[redis]` takes, and why others are refused."""

import re
from collections.abc import Sequence
from urllib.parse import SplitResult, urlsplit

from keyturn.contract.errors import ConfigurationError
from keyturn.process.values import Listen, Unfit

MOST_SENTINELS = 16
# What Sentinel allows as a name; a host name has no underscore, but this is none.
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")


def check_store_url(url: str, *, setting: str, named: bool) -> None:
    """Refuse what is no URL of a store, or holds a password; raises ConfigurationError naming `setting`.

    With `named`, because sentinels are asked where the server is, its host is the name that they know it by. So every
    part of the URL always means something, and none is there for show.
    """
    mend = "write redis://[USER@]HOST:PORT/DB, rediss://… or unix:///PATH"
    if named:
        mend = "with redis.sentinels write redis://[USER@]NAME/DB or rediss://…, with the name that they know it by"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigurationError("this is not a URL", setting=setting, mend=mend) from error
    if parts.password is not None:
        raise ConfigurationError(
            "a password does not belong in the URL",
            setting=setting,
            mend="write the password into a file, mode 600, and name it in redis.password_file",
        )
    over_network = parts.scheme in ("redis", "rediss") and bool(host)
    over_socket = parts.scheme == "unix" and not host and parts.path.startswith("/")
    if not (over_network or over_socket) or parts.query or parts.fragment:
        raise ConfigurationError("this is not a Redis URL", setting=setting, mend=mend)
    if named and (over_socket or port is not None or not _NAME.fullmatch(_written_host(parts))):
        raise ConfigurationError("this does not name a primary that sentinels know", setting=setting, mend=mend)


def name_in(url: str) -> str:
    """Return the name of the primary in a URL that `check_store_url` has passed; Sentinel minds its case."""
    return _written_host(urlsplit(url))


def check_sentinels(addresses: Sequence[str]) -> list[Listen]:
    """Read the addresses of sentinels; raises ConfigurationError."""
    read, mend = [], "write HOST:PORT for each sentinel"
    if len(addresses) > MOST_SENTINELS:
        raise ConfigurationError(
            f"these are more than {MOST_SENTINELS}", setting="redis.sentinels", mend="name three or five"
        )
    for text in addresses:
        try:
            address = Listen.parse(text)
        except Unfit as error:
            raise ConfigurationError(str(error), setting="redis.sentinels", mend=mend) from error
        if address.path is not None or not address.port:
            raise ConfigurationError(f"{text!r} is no sentinel", setting="redis.sentinels", mend=mend)
        read.append(address)
    return read


def _written_host(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2]
