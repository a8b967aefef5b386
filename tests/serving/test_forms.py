"""Bodies of requests: one spelling of everything, each name once, within limits."""

import asyncio

import pytest
from aiohttp import StreamReader, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from keyturn.contract.errors import MalformedInput
from serving.forms import LONGEST_NAME, LONGEST_VALUE, MOST_FIELDS, read_form, read_idempotency_key, read_json
from serving.problems import OAuthError

FORM = "application/x-www-form-urlencoded"


def request(body: bytes, kind: str | None = FORM) -> web.Request:
    """Return a POST with that body, all of it there."""
    loop = asyncio.get_running_loop()
    payload = StreamReader(BaseProtocol(loop), 2**16, loop=loop)
    payload.feed_data(body)
    payload.feed_eof()
    headers = {} if kind is None else {"Content-Type": kind}
    return make_mocked_request("POST", "/?token=from-the-query", headers=headers, payload=payload)


async def test_a_form_is_decoded_and_empty_values_count_as_left_out() -> None:
    """RFC 6749, 3.2: parameters without a value are treated as omitted; nothing comes from the query."""
    form = await read_form(request(b"a=b+c%20%C3%A9&empty=&scope=read"))
    assert form == {"a": "b c é", "scope": "read"}
    assert await read_form(request(b"", f"{FORM}; charset=UTF-8")) == {}


@pytest.mark.parametrize(
    "body",
    [b"a=1&a=2", b"a=&a=1", b"a=1&a=1", b"a=%ff", b"a=\xc3\xa9", b"a", b"&".join(b"n%d=1" % n for n in range(70)),
     b"x" * 65 + b"=1", b"a=" + b"x" * 16_385],
)  # fmt: skip
async def test_a_form_that_is_ambiguous_or_too_large_is_refused(body: bytes) -> None:
    """Two readers of a repeated parameter may take different ones: RFC 6749, 3.2 forbids it."""
    with pytest.raises(OAuthError) as caught:
        await read_form(request(body))
    assert (caught.value.error, caught.value.status) == ("invalid_request", 400)


@pytest.mark.parametrize(
    "kind", [None, "application/json", "multipart/form-data; boundary=x", f"{FORM}; charset=latin-1"]
)
async def test_a_form_of_another_type_is_415(kind: str | None) -> None:
    """Checklist, every endpoint; RFC 9110, 15.5.16: wrong content type 415."""
    with pytest.raises(web.HTTPUnsupportedMediaType):
        await read_form(request(b"a=1", kind))


async def test_parameters_that_may_repeat_keep_their_order() -> None:
    """RFC 8707, 2 allows several `resource` parameters."""
    form = await read_form(request(b"resource=b&resource=a&x=1"), repeatable={"resource"})
    assert form.every("resource") == ("b", "a")
    assert (form.every("x"), form.every("y")) == (("1",), ())


async def test_a_json_body_is_one_object_with_each_member_once() -> None:
    """An operator's order must mean one thing."""
    assert await read_json(request(b'{"a":1}', "application/json")) == {"a": 1}
    assert await read_json(request(b"", None)) == {}
    for body in (b"[]", b'{"a":1,"a":2}', b"{", b"\xff"):
        with pytest.raises(MalformedInput):
            await read_json(request(body, "application/json"))
    with pytest.raises(web.HTTPUnsupportedMediaType):
        await read_json(request(b"{}", FORM))


async def test_what_just_fits_is_taken() -> None:
    """Limits are promised in the description: 64 fields, names of 64 characters, values of 16 KiB."""
    fields = [b"n%d=1" % number for number in range(MOST_FIELDS - 2)]
    sent = b"&".join([*fields, b"n" * LONGEST_NAME + b"=1", b"v=" + b"x" * LONGEST_VALUE])
    form = await read_form(request(sent))
    assert (len(form), len(form["v"])) == (MOST_FIELDS, LONGEST_VALUE)
    with pytest.raises(OAuthError):
        await read_form(request(sent + b"&one=more"))
    for charset in ("utf-8", "UTF-8", "us-ascii"):
        assert await read_form(request(b"a=1", f"{FORM}; charset={charset}")) == {"a": "1"}


@pytest.mark.parametrize("kind", ["application/json; charset=latin-1", "text/json", None])
async def test_json_of_another_type_is_415(kind: str | None) -> None:
    """Checklist, every endpoint; RFC 9110, 15.5.16 and RFC 8259, 8.1: JSON is UTF-8."""
    with pytest.raises(web.HTTPUnsupportedMediaType):
        await read_json(request(b"{}", kind))
    assert await read_json(request(b"{}", "application/json; charset=UTF-8")) == {}


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ([], None), (["x" * 128], "x" * 128), (["!~"], "!~"), ([""], ValueError), (["x" * 129], ValueError),
        (["a", "a"], ValueError), (["a b"], ValueError), (["a\x7f"], ValueError), (["\xe9"], ValueError),
    ],
)  # fmt: skip
def test_an_idempotency_key_stands_once_and_is_visible(keys: list[str], told: object) -> None:
    """By two keys an order would be recognised by one reader as done and by the next as new."""
    asked = make_mocked_request("POST", "/", headers=CIMultiDict([("Idempotency-Key", key) for key in keys]))
    if told is ValueError:
        with pytest.raises(MalformedInput):
            read_idempotency_key(asked)
    else:
        assert read_idempotency_key(asked) == told
