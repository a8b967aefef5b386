"""One structured line per event on standard error: JSON, or for a person's eyes on a terminal; never a secret."""

import logging
import re
import sys
import traceback
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TextIO, cast

import structlog
from structlog.typing import FilteringBoundLogger, Processor

from keyturn.clock import Clock, SystemClock
from keyturn.contract.errors import KeyturnError
from keyturn.process.settings import LogSettings

# Events that every process has; a part of the system adds its own constants beside its code.
STARTED: Final = "started"
READY: Final = "ready"
STOPPING: Final = "stopping"
STOPPED_BY_FORCE: Final = "stopped_by_force"
CRASHED: Final = "crashed"
TASK_RESTARTED: Final = "task_restarted"

REDACTED: Final = "[redacted]"
LONGEST_TEXT, LONGEST_STACK = 2_000, 20_000
DEEPEST = 6
_TELLING_NAME = re.compile(
    r"token|secret|passw|passphrase|authori[sz]ation|assertion|private|credential|cookie|bearer|kek\b",
    re.IGNORECASE,
)
_HARMLESS_NAMES = frozenset({"token_type", "token_format", "token_type_hint", "grant_type", "authorization_server"})
_TELLING_VALUE = re.compile(
    r"eyJ[\w-]{6,}\.[\w-]*\.?[\w.-]*"  # A JWT or any other compact JOSE object.
    r"|(?<=://)[^/@\s:]*:[^/@\s]+(?=@)"  # user:password in a URL.
    r"|\b(?:Bearer|DPoP|Basic)\s+[\w.~+/=-]{8,}",
    re.IGNORECASE,
)
_QUIET = {"debug": logging.INFO, "info": logging.WARNING}  # A library's chatter, one level below our own.


def configure_logging(
    settings: LogSettings, *, process: str, clock: Clock | None = None, stream: TextIO | None = None
) -> None:
    """Send all that this process logs, through structlog or the standard library, to standard error.

    Called once, at the start of a process; `process` is named in each line.
    """
    out = sys.stderr if stream is None else stream
    for_eyes = settings.format == "console" or (settings.format == "auto" and out.isatty())
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    chain: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        _Stamp(process, clock or SystemClock()),
        _Errors(with_stack=level <= logging.DEBUG),
        redact,
    ]
    structlog.configure(
        processors=[*chain, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback)
        if for_eyes
        else structlog.processors.JSONRenderer(sort_keys=False, default=str)
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_name_library, *chain],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.captureWarnings(capture=True)
    for library in ("arq", "aiohttp", "asyncio", "redis"):
        logging.getLogger(library).setLevel(max(level, _QUIET.get(settings.level, level)))


def logger(part: str) -> FilteringBoundLogger:
    """Return the logger of one part of the process; facts are fields, and event names are constants."""
    return cast(FilteringBoundLogger, structlog.get_logger(part=part))


def redact(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Blank whatever is called, or looks, like a secret, and cut what is too long."""
    for name, value in event.items():
        event[name] = _clean(name, value, depth=0)
    return event


def _clean(name: str, value: object, *, depth: int) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value  # A count of tokens is no token.
    if _TELLING_NAME.search(name) and name not in _HARMLESS_NAMES:
        return REDACTED
    if isinstance(value, bytes | bytearray | memoryview) or depth == DEEPEST:
        return f"<{type(value).__name__}>"
    if isinstance(value, Mapping):
        return {str(key): _clean(str(key), each, depth=depth + 1) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean("", each, depth=depth + 1) for each in value]
    return _clean_text(str(value), longest=LONGEST_STACK if name == "stack" else LONGEST_TEXT)


def _clean_text(text: str, *, longest: int) -> str:
    return _TELLING_VALUE.sub(REDACTED, text if len(text) <= longest else f"{text[:longest]}…")


class _Stamp:
    """Writes the time, to the millisecond, and the name of the process into each line."""

    def __init__(self, process: str, clock: Clock) -> None:
        self._process, self._clock = process, clock

    def __call__(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        moment = datetime.fromtimestamp(self._clock.now(), UTC).isoformat(timespec="milliseconds")
        event["timestamp"] = moment.replace("+00:00", "Z")
        event["process"] = self._process
        return event


def _name_library(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    record = event.get("_record")
    if isinstance(record, logging.LogRecord):
        event["part"] = record.name
    return event


class _Errors:
    """Says of an exception what it was and where; its text only if it is ours, for others may quote anything."""

    def __init__(self, *, with_stack: bool) -> None:
        self._with_stack = with_stack

    def __call__(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        error = _take_error(event)
        if error is None:
            return event
        event["error"] = type(error).__name__
        if isinstance(error, KeyturnError):
            event["reason"] = str(error)
        if frames := traceback.extract_tb(error.__traceback__):
            event["where"] = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"
        if self._with_stack:
            event["stack"] = "".join(traceback.format_exception(error))
        return event


def _take_error(event: MutableMapping[str, Any]) -> BaseException | None:
    """Take the exception out of the event, in whichever way it was handed over."""
    given = event.pop("exc_info", None)
    if isinstance(given, tuple):
        given = given[1]
    if given is True:
        given = sys.exc_info()[1]
    return given if isinstance(given, BaseException) else None
