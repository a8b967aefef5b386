"""Row HTTP: the sidecar's protocol with a handler that judges nothing, beside both references; it has no goal."""

from contextlib import ExitStack
from pathlib import Path

from benchmarks.load import reference
from benchmarks.rounds import Row, in_turn
from keyturn.contract.encoding import b64url
from keyturn.entropy import token_bytes

TOKENS = 2000
TOKEN_BYTES = 520  # As base64url about 700 characters: the size of a JWT access token.


def measure(directory: Path) -> list[Row]:
    """Measure how much of the bare servers' rate is left when the request path does its checks."""
    tokens = directory / "tokens"
    tokens.write_text("".join(b64url(token_bytes(TOKEN_BYTES)) + "\n" for _ in range(TOKENS)), "ascii")
    with ExitStack() as stack:
        targets = [
            stack.enter_context(reference(module)) for module in ("hollow_sidecar", "bare_httptools", "bare_aiohttp")
        ]
        rounds = in_turn(targets, tokens)
    return [
        Row(
            id=row,
            what=f"sidecar's HTTP alone / {other.replace('_', ' ')} hello",
            goal="-",
            figure=round(rounds.ratio("hollow_sidecar", other), 3),
            holds=None,
            facts=rounds.facts(),
        )
        for row, other in (("HTTP", "bare_httptools"), ("HTTP (aiohttp)", "bare_aiohttp"))
    ]
