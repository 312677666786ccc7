"""A judge of damaged files that misbehaves by number, to see that each misbehaviour is told."""

from __future__ import annotations

import os
import threading
from multiprocessing.connection import Connection
from typing import Final

from prichexy_testing.fuzzing import Verdict

__all__ = ["DIES", "HANGS", "misbehaving"]

DIES: Final = 1
HANGS: Final = 2


def misbehaving(pipe: Connection, seed: str) -> None:
    """Answer every number but two."""
    pipe.send(None)
    while True:
        number = pipe.recv()
        if number == DIES:
            os._exit(3)
        if number == HANGS:
            threading.Event().wait()
        pipe.send(Verdict(number, "released", seed))
