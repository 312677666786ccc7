"""Waiting for something with a deadline, and being called off while waiting."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from prichexy_gateway.errors import Interrupted

__all__ = ["stopped_by_signals", "wait_until"]

_EVERY: Final = 0.1  # seconds


def wait_until(
    condition: Callable[[], bool],
    seconds: float,
    called_off: threading.Event | None = None,
    every: float = _EVERY,
) -> bool:
    """Ask ``condition`` until it is true, at most ``seconds``; give its last answer.

    The condition is asked at least once. Raises Interrupted once ``called_off`` is set.
    """
    called_off = called_off or threading.Event()
    deadline = time.monotonic() + seconds
    while not called_off.is_set():
        if condition():
            return True
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            return False
        called_off.wait(min(every, remaining))
    raise Interrupted


@contextmanager
def stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Within the block, Ctrl-C, SIGTERM and a closed terminal set ``stop`` and break nothing off.

    Under nohup a closed terminal stays without effect. Only for the main thread.
    """
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    earlier = {number: signal.signal(number, lambda *_: stop.set()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
