"""Logging: one JSON object a line.

Our own lines are made by structlog and written as they are; those of libraries come through the standard
library's logging and are made to look the same. Through that an own line costs ten times as much, which a
worker that ends a thousand turns a second would feel.
"""

import contextlib
import json
import logging
import sys
import time
from collections import Counter
from typing import Any

import orjson
import structlog

from turnpool.redaction import redact, redact_value

# What a line says of itself; a secret of the same spelling must not cut it.
OWN = frozenset({"level", "logger", "timestamp", "process"})


def _without_secrets(_: Any, __: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Cut secrets out of a line, wherever it got them from."""
    for name, value in line.items():
        kind = type(value)
        if kind is int or kind is float or name in OWN or name.startswith("_"):
            continue
        # Our own events are names without blanks; those of libraries are texts.
        if kind is str:
            if name != "event" or " " in value:
                line[name] = redact(value)
        else:
            line[name] = redact_value(value)
    return line


_SHARED: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
    _without_secrets,
]


# Each of a thousand turns says so again and again while a server is away: a line of a kind a second will do.
REPEATED = {"redis_away", "wakeups_not_sent"}
REPEAT_SECONDS = 1.0


class _Repeats:
    """A processor that leaves out lines of outages; the next line says how many (`left_out`)."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], float] = {}
        self._left_out: Counter[tuple[str, str]] = Counter()

    def __call__(
        self, logger: Any, _: str, event: structlog.typing.EventDict
    ) -> structlog.typing.ProcessorReturnValue:
        """Drop the line, or let it pass."""
        if event["event"] not in REPEATED:
            return event
        kind, now = (logger.name, event["event"]), time.monotonic()
        if now < self._last.get(kind, -REPEAT_SECONDS) + REPEAT_SECONDS:
            self._left_out[kind] += 1
            raise structlog.DropEvent
        self._last[kind] = now
        if left_out := self._left_out.pop(kind, 0):
            event["left_out"] = left_out
        return event


class _Lines(structlog.WriteLogger):
    """Standard error, under the name of who writes."""

    def __init__(self, name: str) -> None:
        super().__init__(sys.stderr)
        self.name = name


def get_logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """A logger; events are snake_case names, the rest are fields."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(name)
    return logger


def configure(level: str, process: str) -> None:
    """Log JSON lines to standard error; lines for people where that is a terminal."""
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer(_json)
    )
    structlog.configure(
        processors=[_Repeats(), *_SHARED, renderer],
        logger_factory=_Lines,
        wrapper_class=_never_raising(logging.getLevelNamesMapping()[level]),
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_SHARED,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
    )
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # Celery names each message it takes and each task it ends; the turn's own lines say more.
    for noisy in ("celery", "kombu", "amqp", "httpx", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level)))
    structlog.contextvars.bind_contextvars(process=process)


def _never_raising(level: int) -> type[Any]:
    """The class of loggers: as structlog's of this level, but nobody fails for want of a line.

    Standard error may be a file on a full disk, or a pipe that nobody reads any more.
    """
    kind: Any = structlog.make_filtering_bound_logger(level)

    class Logger(kind):  # type: ignore[misc]
        def _proxy_to_logger(self, *given: Any, **fields: Any) -> Any:
            with contextlib.suppress(Exception):
                return super()._proxy_to_logger(*given, **fields)

    return Logger


def _json(line: Any, **options: Any) -> str:
    try:
        return orjson.dumps(line, **options).decode()
    except TypeError:
        # Half a surrogate pair, which what others say may hold, is no text for orjson.
        return json.dumps(line, **options)
