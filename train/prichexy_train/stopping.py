"""Being asked to stop: by Ctrl-C, by SIGTERM, by a closed terminal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

__all__ = ["INTERRUPTED", "NOT_FINISHED", "asked_to_stop"]

#: Exit codes: the time that was given is over, run the same command again (sysexits.h calls it
#: EX_TEMPFAIL); and stopped by a signal.
NOT_FINISHED: Final = 75
INTERRUPTED: Final = 130


@contextmanager
def asked_to_stop() -> Iterator[threading.Event]:
    """Give an event that a first signal sets within the block; a second one breaks it off.

    Breaking off raises KeyboardInterrupt. Outside the main thread, and under nohup for a closed
    terminal, signals keep their effect and the event stays unset.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(_number: int, _frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    earlier = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield asked
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
