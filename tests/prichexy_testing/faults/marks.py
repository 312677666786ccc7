"""By what a fault test and the worker program tell each other what to do."""

from __future__ import annotations

from typing import Final

__all__ = ["ENDLESS", "IN_THE_WORKER", "READY", "SEGFAULT", "STOPS"]

#: An ImageComments that has the worker loop without ever letting go of Python's lock: no thread of
#: it gets to run.
ENDLESS: Final = "poison endless"
#: One that has the worker read where it has no memory.
SEGFAULT: Final = "poison segfault"
IN_THE_WORKER: Final = (ENDLESS, SEGFAULT)
#: A file in a worker's own folder, once it waits for studies.
READY: Final = "ready"
#: The folder of the files that are called as the steps to stay at.
STOPS: Final = "stops"
