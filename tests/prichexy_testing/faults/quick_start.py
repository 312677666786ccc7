"""``python -m prichexy_testing.faults.quick_start FOLDER``: starts ``worker_program`` in a third.

Loading torch takes longer than all else together, only the parts need it that are replaced there,
and fault tests start workers again and again.

Under libfaketime, ``time.sleep`` fails with EINVAL where only the time of day is moved (its 0.9.10
refuses an absolute time of CLOCK_MONOTONIC): it is replaced before anything takes hold of it.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading
import time
from types import ModuleType


def _sleep(seconds: float) -> None:
    threading.Event().wait(seconds)


if __name__ == "__main__":
    sys.modules["torch"] = ModuleType("torch")
    if "FAKETIME_TIMESTAMP_FILE" in os.environ:
        time.sleep = _sleep
    runpy.run_module("prichexy_testing.faults.worker_program", run_name="__main__")
