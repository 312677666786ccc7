"""Log lines that name a study by its job id and hold nothing of its content.

Our own lines are written with care: opaque ids, tags, counts. Lines of libraries are not: Celery
logs the arguments of a message that it does not know, pydicom warns with the value that it
warns about, and a traceback ends in an exception's text. Here those lines lose their values.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Final, TextIO

__all__ = ["JsonFormatter", "SafeFormatter", "bound_to", "configure_logging", "where"]

_NO_JOB: Final = "-"
_JOB: Final[ContextVar[str]] = ContextVar("prichexy_job", default=_NO_JOB)
_OURS: Final = "prichexy_"
#: Libraries whose log texts are constant, so that only their arguments need to go.
_CONSTANT_TEXTS: Final = frozenset({"celery", "kombu"})
#: How Python formats a warning: "folder/module.py:line: Category: text".
_WARNING: Final = re.compile(r"(?:.*/)?(\w+)\.py:(\d+): (\w+):")


@contextlib.contextmanager
def bound_to(job_id: str) -> Iterator[None]:
    """Name ``job_id`` in each line that this thread logs within the block."""
    token = _JOB.set(job_id)
    try:
        yield
    finally:
        _JOB.reset(token)


def where(error: BaseException) -> str:
    """Give the classes of ``error`` and its causes, and our own lines that it passed.

    Neither an exception's text nor a line of source is in it.
    """
    parts = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        frames = [
            f"{frame.f_globals['__name__']}:{line}"
            for frame, line in traceback.walk_tb(current.__traceback__)
            if str(frame.f_globals.get("__name__", "")).startswith(_OURS)
        ]
        place = f" at {' > '.join(frames)}" if frames else ""
        parts.append(f"{type(current).__name__}{place}")
        current = current.__cause__ or current.__context__
    return "; after ".join(parts)


class SafeFormatter(logging.Formatter):
    """Formats one record as one line.

    Ours: the message as it is. Celery's and kombu's: the constant text, with numbers and the
    classes of exceptions put in and every other argument withheld. Anyone else's: only the place
    in their source, because their texts may be made of values.
    """

    @staticmethod
    def converter(seconds: float | None) -> time.struct_time:
        """Give the time of a line in UTC."""
        return time.gmtime(seconds)

    def format(self, record: logging.LogRecord) -> str:
        """Give the line. Never raises for what a library logs."""
        text = self.text(record)
        error = self.error(record)
        if error is not None:
            text = f"{text} [{error}]"
        return f"{self.stamp(record)} {record.levelname} {record.name} job={_JOB.get()} {text}"

    def stamp(self, record: logging.LogRecord) -> str:
        """Give the moment in UTC, to the millisecond (RFC 3339)."""
        return f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03d}Z"

    def text(self, record: logging.LogRecord) -> str:
        """Give what may be shown of the message, on one line."""
        return self._text(record).replace("\r", " ").replace("\n", " ").strip()

    @staticmethod
    def error(record: logging.LogRecord) -> str | None:
        """Give the classes and places of the exception that was logged, if there is one."""
        error = record.exc_info[1] if record.exc_info else None
        return None if error is None else where(error)

    def _text(self, record: logging.LogRecord) -> str:
        library = record.name.split(".")[0]
        if library.startswith(_OURS):
            return record.getMessage()
        place = f"{record.module}:{record.lineno}"
        if record.name == "py.warnings":
            named = _WARNING.match(record.getMessage())
            return f"a {named[3]}, withheld ({named[1]}:{named[2]})" if named else "a warning"
        if library not in _CONSTANT_TEXTS:
            return f"a message of {library}, withheld ({place})"
        if not record.args:
            # Without arguments the text may have been put together by the caller.
            return f"a message, withheld ({place})"
        try:
            return str(record.msg) % _shown(record.args)
        except (TypeError, ValueError, KeyError):
            return f"a message, withheld ({place})"


class JsonFormatter(SafeFormatter):
    """The same as one JSON object a line, for programs that collect logs.

    Keys: time, level, logger, message; job while a study is under way; worker where it was given;
    error for an exception's classes and places.
    """

    def __init__(self, worker_id: str | None = None) -> None:
        super().__init__()
        self._worker_id = worker_id

    def format(self, record: logging.LogRecord) -> str:
        """Give the line. Never raises for what a library logs."""
        job = _JOB.get()
        line = {
            "time": self.stamp(record),
            "level": record.levelname,
            "logger": record.name,
            "worker": self._worker_id,
            "job": None if job == _NO_JOB else job,
            "message": self.text(record),
            "error": self.error(record),
        }
        return json.dumps({key: value for key, value in line.items() if value is not None})


class _Withheld:
    """Stands for an argument in any place of a format."""

    def __str__(self) -> str:
        return "…"

    __repr__ = __str__


def _shown(args: Mapping[str, object] | tuple[object, ...]) -> object:
    """Give the same arguments with all but numbers and the classes of exceptions withheld."""
    if isinstance(args, Mapping):
        return {name: _show(value) for name, value in args.items()}
    return tuple(_show(value) for value in args)


def _show(value: object) -> object:
    if isinstance(value, BaseException):
        return type(value).__name__
    return value if isinstance(value, bool | int | float) else _Withheld()


def configure_logging(
    stream: TextIO | None = None,
    level: int = logging.INFO,
    formatter: SafeFormatter | None = None,
) -> None:
    """Send the process's log lines, warnings and unhandled errors to ``stream``, made safe.

    Ours are shown from ``level``, those of libraries from WARNING: httpx and pyorthanc log an
    address for each request at INFO.
    """
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(SafeFormatter() if formatter is None else formatter)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for package in ("prichexy_worker", "prichexy_model"):
        logging.getLogger(package).setLevel(level)
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_unhandled
    threading.excepthook = lambda args: _log_unhandled(
        args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback
    )


def _log_unhandled(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Log an error that nobody caught by its class and place."""
    if not issubclass(kind, KeyboardInterrupt):
        text = "unhandled: %s"
        logging.getLogger(__name__).critical(text, where(error.with_traceback(trace)))
