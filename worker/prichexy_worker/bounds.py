"""The bound of the worker's own process: how long one image may take."""

from __future__ import annotations

import faulthandler
import sys
from collections.abc import Callable
from typing import TextIO

from prichexy_worker.pipeline import Tools
from prichexy_worker.ports import Anonymized

__all__ = ["ending_with_an_image"]


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
