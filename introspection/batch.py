"""Reads and answers `POST /introspect/batch`: many questions of one caller at once."""

from collections.abc import Sequence
from typing import Any, Final

from aiohttp import web

from introspection.render import JSON, as_json
from keyturn.contract.errors import MalformedInput
from keyturn.contract.tokens import LARGEST_TOKEN_BYTES
from keyturn.verifier.verdict import Kind, Verdict
from serving.forms import read_json
from serving.problems import NO_STORE, Style, answer_status

MOST_TOKENS: Final = 100
LARGEST_BATCH_BYTES: Final = MOST_TOKENS * (LARGEST_TOKEN_BYTES + 16) + 1024
_MEMBERS: Final = frozenset({"tokens"})


async def read_tokens(request: web.Request) -> list[str]:
    """Return the tokens of a body `{"tokens": ["…"]}`, 1 to 100 of them, in their order.

    Raises what `read_json` raises, and MalformedInput (400) for another body.
    """
    body = await read_json(request, largest_bytes=LARGEST_BATCH_BYTES)
    tokens: Any = body.get("tokens")
    if body.keys() - _MEMBERS or not isinstance(tokens, list) or not all(isinstance(one, str) for one in tokens):
        raise MalformedInput('the body is {"tokens": [...]}, a list of strings and nothing else')
    if not 1 <= len(tokens) <= MOST_TOKENS:
        raise MalformedInput(f"a batch has 1 to {MOST_TOKENS} tokens")
    return tokens


def render_batch(verdicts: Sequence[Verdict]) -> web.Response:
    """Return the answers in the order of the questions, each as it would be alone.

    503 for all if one of them is unknown: an answer with a hole would be read as "inactive" by somebody.
    """
    if any(verdict.kind is Kind.UNKNOWN for verdict in verdicts):
        return answer_status(503, Style.OAUTH)
    body = b'{"results":[' + b",".join(map(as_json, verdicts)) + b"]}"
    return web.Response(body=body, headers=NO_STORE, content_type=JSON)
