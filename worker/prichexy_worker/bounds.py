"""The bounds of the worker's own process: how long an image or an attempt takes; who goes first."""

from __future__ import annotations

import contextlib
import faulthandler
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TextIO

from prichexy_worker.pipeline import Tools
from prichexy_worker.ports import Anonymized

__all__ = ["ProcessBounds", "yield_memory_to_others"]

#: Seconds: what is over already ends the process as soon as this allows.
_AT_ONCE: Final = 0.001
#: Half of what stands for "always": above all that is left alone, below a codec's 1000.
_READINESS: Final = 500


def yield_memory_to_others(file: Path = Path("/proc/self/oom_score_adj")) -> None:
    """Have the system end this process, where memory runs out, before the servers beside it.

    A worker that is killed is an attempt without a report; an Orthanc or Redis that is killed is
    an outage. Codecs go first (see frame_child.py). Where the system has no such file, or does not
    let it be written, all stays as it is.
    """
    with contextlib.suppress(OSError):
        if int(file.read_text(encoding="ascii")) < _READINESS:
            file.write_text(str(_READINESS), encoding="ascii")


class ProcessBounds:
    """Ends this process with code 1 when something in it takes too long, whatever keeps it.

    A loop in compiled code never comes back to Python, nor does a call of the system that waits for
    a disk or a peer, so no exception, thread or signal handler of Python's would do. ``log`` gets
    the names of the functions at work, of all threads, and no values. Who supervises the process
    starts it anew; the study goes to another worker, and after some of them it is given up
    unopened.

    The interpreter has one such timer: one of these in a process, used by one thread.
    """

    def __init__(
        self, log: TextIO = sys.stderr, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._log = log
        self._clock = clock
        self._ends: list[float] = []  # of the blocks that are entered; the innermost one last

    @contextlib.contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Bound the block. It may lie in another one: the bound that is first over counts."""
        self._ends.append(self._clock() + seconds)
        self._set()
        try:
            yield
        finally:
            self._ends.pop()
            self._set()

    def of_each_image(
        self, anonymize: Callable[[bytes, Tools], Anonymized], seconds: float
    ) -> Callable[[bytes, Tools], Anonymized]:
        """Give ``anonymize`` with a bound of its own for each image."""

        def bounded(content: bytes, tools: Tools) -> Anonymized:
            with self.within(seconds):
                return anonymize(content, tools)

        return bounded

    def _set(self) -> None:
        if not self._ends:
            faulthandler.cancel_dump_traceback_later()
            return
        left = max(_AT_ONCE, min(self._ends) - self._clock())
        faulthandler.dump_traceback_later(left, exit=True, file=self._log)
