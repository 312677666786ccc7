"""Whether what may hang comes back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from prichexy_worker.errors import Retryable

__all__ = ["error_of"]

#: Seconds after which something is taken to hang: far longer than any limit in a test.
_HANGS: Final = 60


def error_of(act: Callable[[], object]) -> Retryable | None:
    """Give the Retryable that ``act`` raises, if any; fails the test where it does not come back.

    It runs in a thread, which ends with the process where it hangs.
    """
    ends: list[Retryable | None] = []

    def run() -> None:
        try:
            act()
        except Retryable as error:
            ends.append(error)
        else:
            ends.append(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(_HANGS)
    assert ends, "it did not come back"
    return ends[0]
