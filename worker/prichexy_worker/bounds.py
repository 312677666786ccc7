"""The bounds of the worker's own process: how long one image may take, and who goes first."""

from __future__ import annotations

import contextlib
import faulthandler
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, TextIO

from prichexy_worker.pipeline import Tools
from prichexy_worker.ports import Anonymized

__all__ = ["ending_with_an_image", "yield_memory_to_others"]

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


def ending_with_an_image(
    anonymize: Callable[[bytes, Tools], Anonymized], seconds: float, log: TextIO = sys.stderr
) -> Callable[[bytes, Tools], Anonymized]:
    """Give ``anonymize`` that ends this process with code 1 when an image takes ``seconds``.

    Whatever keeps it: a loop in compiled code never comes back to Python, so no thread or signal
    handler of Python's would run. ``log`` gets the names of the functions at work and no values.
    The study goes to another worker, and after some of them it is given up unopened.
    """

    def bounded(content: bytes, tools: Tools) -> Anonymized:
        faulthandler.dump_traceback_later(seconds, exit=True, file=log)
        try:
            return anonymize(content, tools)
        finally:
            faulthandler.cancel_dump_traceback_later()

    return bounded
