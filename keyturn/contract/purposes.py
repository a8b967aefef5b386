"""What each type of token is signed by, and what the type asks of its claims."""

from collections.abc import Mapping
from typing import NamedTuple

from keyturn.contract.keys import Use

ACCESS_TOKEN = "at+jwt"  # noqa: S105 - a JOSE typ (RFC 9068, 2.1)
INTROSPECTION_ANSWER = "token-introspection+jwt"  # RFC 9701, 5.
STATUS_LIST = "statuslist+jwt"
SECURITY_EVENT = "secevent+jwt"  # RFC 8417, 2.3.


class Purpose(NamedTuple):
    """The use of the keys that sign a type, and whether it expires and is for somebody.

    What does not expire must say no `exp`: an answer about a token (RFC 9701, 5) and an event (RFC 8417, 2.2) state
    what was so when they were issued, and an `exp` would make them look like a token.
    """

    use: Use
    expires: bool = True
    has_audience: bool = True


PURPOSES: Mapping[str, Purpose] = {
    ACCESS_TOKEN: Purpose(Use.ACCESS),
    INTROSPECTION_ANSWER: Purpose(Use.INTROSPECTION, expires=False),
    STATUS_LIST: Purpose(Use.STATUS, has_audience=False),  # It is for everybody who reads it.
    SECURITY_EVENT: Purpose(Use.STATUS, expires=False),
}
"""Every type that is signed; any other is refused, whatever an identity may have signed."""
