"""Locks between processes on one machine: advisory, on a file, gone with whoever held them."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from prichexy_train.errors import Failed, InUse

__all__ = ["held", "made_exclusive"]


@contextmanager
def held(path: Path, *, together: bool = False, wait: bool = False) -> Iterator[IO[str]]:
    """Hold the lock of the file ``path`` within the block; file and folder are made, if need be.

    Alone, or ``together`` with others that hold it together. Where that cannot be, InUse is
    raised, or the lock is waited for. Raises Failed when the file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = path.open("a")
    except OSError as error:
        raise Failed(f"{path.parent}: cannot be written to ({error.strerror})") from error
    with opened as file:
        how = fcntl.LOCK_SH if together else fcntl.LOCK_EX
        try:
            fcntl.flock(file, how if wait else how | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InUse(f"{path.parent}: another process works in this folder") from error
        # The system lets go of it however the process ends, so nothing stale is left behind.
        yield file


def made_exclusive(file: IO[str]) -> bool:
    """Turn a lock that is held together into one that is held alone; False while others hold it.

    They may have let go and taken it again in between. A lock that is held alone stays so.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
