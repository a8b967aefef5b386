"""Where pushes may lead: a name that resolves to an address inside must not turn us against our own network."""

import ipaddress
import socket

from aiohttp import ThreadedResolver
from aiohttp.abc import AbstractResolver, ResolveResult

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# All that was ever given out (IANA, IPv6 Global Unicast Address Assignments), but for what documents are written with.
_UNICAST, _DOCUMENTATION = ipaddress.IPv6Network("2000::/3"), ipaddress.IPv6Network("3fff::/20")


def is_public(address: str) -> bool:
    """Say whether an address is one of the internet's, also where IPv4 hides in IPv6."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        hidden = found.ipv4_mapped or found.sixtofour or _translated(found)
        if hidden:
            return hidden.is_global and not hidden.is_multicast
        if found not in _UNICAST or found in _DOCUMENTATION:
            return False  # Some of the rest lead inside as well: IPv4 behind a translator of one's own (RFC 8215).
    return found.is_global and not found.is_multicast


def _translated(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that a translator makes of one (RFC 6052, 2.1)."""
    return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF) if address in _NAT64 else None


class PublicResolver(AbstractResolver):
    """Resolves names, and knows of public addresses only: the connection goes to just what was looked at."""

    def __init__(self, resolver: AbstractResolver | None = None) -> None:
        self._resolver = resolver or ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the public addresses of a name; raises OSError where there is none."""
        found = await self._resolver.resolve(host, port, family)
        public = [one for one in found if is_public(one["host"])]
        if not public:
            raise OSError("the receiver's name leads to no public address")
        return public

    async def close(self) -> None:
        """Close the resolver below."""
        await self._resolver.close()
