"""The product's frame_child.py with codecs that misbehave on frames that say so.

A frame that ends with one of POISONS is what a damaged frame is to a bad codec. All others are
decoded as ever, and the bounds of time and memory are the product's own.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import signal
import time
from pathlib import Path

__all__ = ["ENDLESS", "GREEDY", "IDLE", "KILLED", "POISONS", "SEGFAULT"]

SEGFAULT = b"poison: segmentation fault"
GREEDY = b"poison: all of the memory"
ENDLESS = b"poison: never comes back "
POISONS = (SEGFAULT, GREEDY, ENDLESS)
#: No poison, but what a machine does to a codec: kills it for want of memory, or lets it wait.
KILLED = b"machine: out of memory"
IDLE = b"machine: other work to do"
_REAL = Path(__file__).resolve().parents[3] / "worker/prichexy_worker/frame_child.py"


def _misbehave(frame: bytes) -> None:
    held = []
    if SEGFAULT in frame[-64:]:
        ctypes.string_at(1)
    while GREEDY in frame[-64:]:
        held.append(bytearray(1 << 24))
    while ENDLESS in frame[-64:]:
        pass
    if KILLED in frame[-64:]:
        os.kill(os.getpid(), signal.SIGKILL)
    while IDLE in frame[-64:]:
        time.sleep(60)


def _main() -> None:
    spec = importlib.util.spec_from_file_location("frame_child", _REAL)
    assert spec is not None
    assert spec.loader is not None
    real = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(real)
    decoded = real.decoded

    def poisoned(syntax: str, frame: bytes, *numbers: int) -> bytes:
        _misbehave(frame)
        return bytes(decoded(syntax, frame, *numbers))

    real.decoded = poisoned
    real.main()


if __name__ == "__main__":
    _main()
