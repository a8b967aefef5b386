"""One line per event, for machines or for eyes, and never a secret in it."""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest
import structlog

from keyturn.contract.errors import FeedUnavailable
from keyturn.process.logging import LONGEST_TEXT, REDACTED, configure_logging, logger
from keyturn.process.settings import LogSettings
from tests.clocks import ManualClock

JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"


class Terminal(io.StringIO):
    """A stream that says that a person looks at it."""

    def isatty(self) -> bool:
        """Say yes."""
        return True


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Put back what configuring a process changes for all of it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def configured(
    level: Literal["debug", "info", "warning", "error"] = "info",
    *,
    form: Literal["auto", "json", "console"] = "json",
    stream: io.StringIO | None = None,
) -> Callable[[], list[dict[str, Any]]]:
    """Configure, and return a function that reads the lines so far."""
    out = io.StringIO() if stream is None else stream
    configure_logging(LogSettings(level=level, format=form), process="test", clock=ManualClock(0.25), stream=out)
    return lambda: [json.loads(line) for line in out.getvalue().splitlines()]


def fail(text: str) -> None:
    """Raise somebody else's error."""
    raise ValueError(text)


def test_an_event_is_one_line_with_its_facts() -> None:
    """What a log store reads: event, level, time, process, part and the facts."""
    lines = configured()
    logger("rotator").info("key_activated", kid="k1", seconds=0.5)
    assert lines() == [
        {
            "event": "key_activated",
            "level": "info",
            "timestamp": "1970-01-01T00:00:00.250Z",
            "process": "test",
            "part": "rotator",
            "kid": "k1",
            "seconds": 0.5,
        }
    ]


def test_a_terminal_gets_a_readable_line_and_a_file_gets_json() -> None:
    """`auto` looks at where it goes."""
    terminal = Terminal()
    configured(form="auto", stream=terminal)
    logger("rotator").info("key_activated", kid="k1")
    assert "key_activated" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")
    lines = configured(form="auto")
    logger("rotator").info("key_activated", kid="k1")
    assert lines()[0]["kid"] == "k1"


def test_less_than_the_level_is_not_written() -> None:
    """Of ours, and of the libraries."""
    lines = configured("warning")
    logger("rotator").info("key_activated")
    logging.getLogger("arq.worker").info("started")
    logger("rotator").warning("late")
    assert [line["event"] for line in lines()] == ["late"]


def test_a_library_is_written_in_the_same_form() -> None:
    """The standard library's loggers, and warnings, go through the same redaction."""
    lines = configured()
    logging.getLogger("arq.worker").warning("lost %s with %s", "redis", JWT)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", stacklevel=1)
    first, second = lines()
    assert first["event"] == f"lost redis with {REDACTED}"
    assert first["part"] == "arq.worker"
    assert first["level"] == "warning"
    assert "old" in second["event"]


@pytest.mark.parametrize(
    "name",
    [
        "token",
        "access_token",
        "client_secret",
        "password",
        "Authorization",
        "client_assertion",
        "private_key",
        "cookie",
    ],
)
def test_a_field_that_is_called_like_a_secret_is_blanked(name: str) -> None:
    """Also inside of other fields."""
    lines = configured()
    logger("test").info("seen", **{name: "sesame"}, request={"headers": [{name: b"sesame"}]})
    (line,) = lines()
    assert line[name] == REDACTED
    assert "sesame" not in json.dumps(line)


@pytest.mark.parametrize(
    "text",
    [
        f"got {JWT} from",
        "redis://user:sesame@host:6379/0",
        "Authorization: Basic c2VzYW1lOnNlc2FtZQ==",
        f"Bearer {JWT}",
    ],
)
def test_a_text_that_looks_like_a_secret_is_blanked(text: str) -> None:
    """Free text is where secrets get in unasked."""
    lines = configured()
    logger("test").info("seen", detail=text)
    logging.getLogger("library").warning(text)
    for line in lines():
        written = json.dumps(line)
        assert REDACTED in written
        assert all(secret not in written for secret in ("sesame", "c2VzYW1l", "eyJzdWI"))


def test_what_is_no_secret_stays() -> None:
    """A count of tokens, a type, nothing at all."""
    lines = configured()
    facts = {"tokens": 3, "token_type": "Bearer", "has_token": False, "token": None, "url": "redis://user@host:1/0"}
    logger("test").info("seen", **facts)
    assert facts.items() <= lines()[0].items()


def test_a_long_or_deep_or_odd_value_is_bounded() -> None:
    """A log line is no place to keep a body."""
    lines = configured()
    deep: list[Any] = []
    for _ in range(50):
        deep = [deep]
    logger("test").info("seen", body="x" * 100_000, deep=deep, raw=b"\x00sesame", odd=object)
    (line,) = lines()
    assert len(line["body"]) == LONGEST_TEXT + 1
    assert len(json.dumps(line)) < LONGEST_TEXT + 500
    assert line["raw"] == "<bytes>"


def test_an_exception_is_named_without_its_text_and_stack() -> None:
    """A stranger's exception may quote a token; ours says what it means to say."""
    lines = configured()
    try:
        fail("sesame")
    except ValueError:
        logger("test").exception("failed")
        logging.getLogger("aiohttp.server").exception("Error handling request")
    logger("test").error("failed", exc_info=FeedUnavailable("no answer"))
    ours, library, known = lines()
    assert ours["error"] == library["error"] == "ValueError"
    assert ours["where"].startswith("test_logging.py:")
    assert "sesame" not in json.dumps([ours, library])
    assert not {"stack", "exception", "exc_info"} & {*ours, *library}
    assert (known["error"], known["reason"]) == ("FeedUnavailable", "no answer")


def test_at_debug_the_stack_is_there() -> None:
    """For whoever looks for the fault."""
    lines = configured("debug")
    try:
        fail(JWT)
    except ValueError:
        logger("test").exception("failed")
    (line,) = lines()
    assert "Traceback" in line["stack"]
    assert JWT not in line["stack"]
