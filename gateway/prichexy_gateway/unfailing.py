"""An output that ends nobody who writes to it, be its disk full or its reader gone."""

from __future__ import annotations

import io
from contextlib import suppress
from typing import TextIO, cast

__all__ = ["unfailing"]


def unfailing(stream: TextIO) -> TextIO:
    """Give ``stream`` as one whose ``write`` and ``flush`` raise no OSError.

    What could not be written may be lost; what comes later is written once that is possible again.
    """
    return cast("TextIO", _Unfailing(stream))


class _Unfailing(io.TextIOBase):
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]  # which says that it can be set
        return self._stream.encoding

    def write(self, text: str, /) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()
