"""Whom an event is about (RFC 9493, and the older spelling of RISC), in the words of our selectors."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from keyturn.contract.errors import MalformedInput
from keyturn.contract.selectors import LONGEST_VALUE, SelectorKind

MOST_ALIASES = 16
_USER, _SESSION, _APPLICATION = "user", "session", "application"


class Named(NamedTuple):
    """What a subject identifier names."""

    kind: SelectorKind
    value: str


class Subject(NamedTuple):
    """All that a subject identifier names, and why some of it could not be understood."""

    named: tuple[Named, ...]
    notes: tuple[str, ...] = ()


def read_subject(members: object, *, issuer: str, carries_sid: bool) -> Subject:
    """Return what a subject identifier names among the tokens of an issuer.

    A session is named by its `sid`; unless the issuer's tokens carry it, the session's user is named as well, since
    else no token would be found. An identifier of another issuer names nothing here: nobody ends what is another's.
    Raises MalformedInput for what is no subject identifier.
    """
    named: list[Named] = []
    notes: list[str] = []
    for one in _read(members, issuer, carries_sid=carries_sid):
        if isinstance(one, Named):
            named.append(one)
        else:
            notes.append(one)
    return Subject(tuple(dict.fromkeys(named)), tuple(dict.fromkeys(notes)))


def _read(members: object, issuer: str, *, carries_sid: bool) -> Iterator[Named | str]:
    if not isinstance(members, Mapping):
        raise MalformedInput("a subject identifier is an object")
    kind = members.get("format", members.get("subject_type"))
    if not isinstance(kind, str):
        raise MalformedInput("a subject identifier has a format")
    match kind.replace("-", "_"):
        case "iss_sub":
            yield _of_issuer(members, issuer, SelectorKind.SUBJECT)
        case "jwt_id":
            yield _of_issuer(members, issuer, SelectorKind.JTI)
        case "opaque":  # A session as CAEP has it, or a user: what is not the one is nobody's name as the other.
            value = _text(members, "id")
            yield Named(SelectorKind.SESSION, value)
            yield Named(SelectorKind.SUBJECT, value)
            if not carries_sid:
                yield "session_without_user"
        case "complex":
            yield from _read_complex(members, issuer, carries_sid=carries_sid)
        case "aliases":
            identifiers = members.get("identifiers")
            if not isinstance(identifiers, list) or len(identifiers) > MOST_ALIASES:
                raise MalformedInput(f"aliases have up to {MOST_ALIASES} identifiers")
            for one in identifiers:
                if isinstance(one, Mapping) and one.get("format") in ("aliases", "complex"):
                    raise MalformedInput("aliases hold simple identifiers (RFC 9493, 3.2.8)")
                yield from _read(one, issuer, carries_sid=carries_sid)
        case _:
            yield "subject_format"


def _read_complex(members: Mapping[str, Any], issuer: str, *, carries_sid: bool) -> Iterator[Named | str]:
    """Read a complex subject: the narrowest part that our selectors can name stands for it."""
    session, user, application = (members.get(one) for one in (_SESSION, _USER, _APPLICATION))
    if session is not None:
        yield _opaque(session, SelectorKind.SESSION)
    if user is not None and (session is None or not carries_sid):
        yield from _read(_simple(user), issuer, carries_sid=carries_sid)
    if session is None and user is None:
        yield "subject_format" if application is None else _opaque(application, SelectorKind.CLIENT)
    if session is not None and user is None and not carries_sid:
        yield "session_without_user"


def _simple(members: object) -> Mapping[str, Any]:
    if not isinstance(members, Mapping) or members.get("format") in ("complex", "aliases"):
        raise MalformedInput("a complex subject holds simple identifiers")
    return members


def _opaque(members: object, kind: SelectorKind) -> Named | str:
    one = _simple(members)
    return Named(kind, _text(one, "id")) if one.get("format") == "opaque" else "subject_format"


def _of_issuer(members: Mapping[str, Any], issuer: str, kind: SelectorKind) -> Named | str:
    value = _text(members, kind.value)
    return Named(kind, value) if members.get("iss") == issuer else "subject_of_another_issuer"


def _text(members: Mapping[str, Any], name: str) -> str:
    value = members.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_VALUE:
        raise MalformedInput(f"{name} is a string of 1 to {LONGEST_VALUE} characters")
    return value
