"""`keyturn keys import`: bring keys that another issuer made, from a PEM file, a JWK or a JWK set."""

import argparse
import os
import stat
from pathlib import Path
from typing import Any

from keyturn.cli.answers import ExitStatus, WrongUsage
from keyturn.cli.arguments import common_options, waiting_options, waiting_query
from keyturn.cli.receipts import ACCEPTED, show_receipt
from keyturn.cli.session import Session, online
from keyturn.cli.tables import plain, table
from keyturn.contract.encoding import decode_object
from keyturn.contract.errors import MalformedInput
from keyturn.contract.foreign import Written, pem_blocks, read_keys
from keyturn.contract.jwk import PRIVATE_MEMBERS

LARGEST_FILE_BYTES = 48 * 1024  # The services take bodies of 64 KiB.
_REFUSALS = (400, 409)


def add_import(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add `keys import`."""
    bring = commands.add_parser(
        "import", parents=[common_options(), waiting_options(reason=False)],
        help="bring keys of another issuer: to verify what they signed, or to sign from now on",
    )  # fmt: skip
    bring.add_argument("file", type=Path, metavar="FILE", help="PEM, a JWK or a JWK set; mode 600 if it is private")
    bring.add_argument(
        "--as", dest="phase", choices=["retiring", "active"], required=True,
        help="retiring: the public keys verify what they signed; active: the private key signs next",
    )  # fmt: skip
    bring.add_argument("--alg", help="what a key that names no algorithm is for (default for RSA: RS256)")
    bring.add_argument("--kid", help="the kid of a lone key without one (PEM), or the one to take among several")
    bring.add_argument(
        "--token", type=_seconds, metavar="SECONDS", help="how long the other issuer's tokens live (default: as ours)"
    )
    bring.set_defaults(run=online(_import))


async def _import(args: argparse.Namespace, session: Session) -> ExitStatus:
    query, written = waiting_query(args), read_file(args.file)
    try:
        question, left_out = question_of(written, phase=args.phase, alg=args.alg, kid=args.kid)
    except MalformedInput as error:
        session.printer.answer({"imported": [], "refused": str(error)}, f"not imported: {error}")
        return ExitStatus.NO
    if args.token is not None:
        question["token"] = args.token
    answer = await session.as_admin("POST", "/keys/import", query=query, json=question, accept=(*ACCEPTED, *_REFUSALS))
    if answer.status not in ACCEPTED:
        session.printer.answer(answer.object(), f"not imported: {answer.problem}")
        return ExitStatus.NO
    told = answer.object()
    rows = [[one.get("kid"), one.get("alg"), one.get("phase")] for one in told.get("imported", [])]
    lines = ["imported", *table(["KID", "ALG", "PHASE"], rows), ""]
    lines += [f"left out, for encryption: {plain(left_out)}"] if left_out else []
    return show_receipt(session.printer, answer, "\n".join(lines), waited=bool(query))


def read_file(path: Path) -> list[Written]:
    """Return the keys of a file as they are written there.

    Raises WrongUsage where there are none, or where private ones lie open to others.
    """
    try:
        with path.open("rb") as file:
            mode, raw = os.fstat(file.fileno()).st_mode, file.read(LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise WrongUsage(f"{path} cannot be read: {error.strerror}") from error
    if len(raw) > LARGEST_FILE_BYTES:
        raise WrongUsage(f"{path} is larger than {LARGEST_FILE_BYTES} bytes: it holds more than a few keys")
    try:
        written = _parse(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise WrongUsage(f"{path} is not text: write a DER key as PEM first, `openssl pkey -inform DER`") from error
    except MalformedInput as error:
        raise WrongUsage(f"{path}: {error}") from error
    if any(map(_is_private, written)) and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise WrongUsage(f"{path} holds a private key and is open to other users: chmod 600 {path}")
    return written


def question_of(
    written: list[Written], *, phase: str, alg: str | None, kid: str | None
) -> tuple[dict[str, Any], list[str]]:
    """Return what the issuer is asked, and the kids of keys for encryption, which stay out; raises MalformedInput.

    A private half is sent only where it is to sign.
    """
    keys, left_out = read_keys(written, alg=alg, kid=kid)
    if phase == "retiring":
        return {"keys": [{**key.jwk, "kid": key.kid, "alg": key.alg} for key in keys], "as": phase}, left_out
    named = {name: value for name, value in (("alg", alg), ("kid", kid)) if value is not None}
    chosen = [one for one in written if len(written) == 1 or isinstance(one, str) or one.get("kid") == keys[0].kid]
    return {"keys": [_bare(one) for one in chosen], "as": phase} | named, left_out


def _bare(one: Written) -> Written:
    """Return a key without what nobody asked for, such as a certificate chain."""
    if isinstance(one, str):
        return one
    members = PRIVATE_MEMBERS | {"kty", "crv", "x", "y", "n", "e", "kid", "alg", "use"}
    return {name: value for name, value in one.items() if name in members}


def _parse(text: str) -> list[Written]:
    if not text.lstrip().startswith(("{", "[")):
        return list(pem_blocks(text))
    if text.lstrip().startswith("["):
        raise MalformedInput('a list of keys is no JWK set: write {"keys": […]}')
    members = decode_object(text.encode("utf-8"))
    keys = members.get("keys", [members])
    if not isinstance(keys, list) or not all(isinstance(one, dict) for one in keys):
        raise MalformedInput("a JWK set has a list of JWKs, keys")
    return keys


def _is_private(one: Written) -> bool:
    return "PRIVATE KEY-----" in one if isinstance(one, str) else bool(PRIVATE_MEMBERS & one.keys())


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError("is a number of seconds")
    return seconds
