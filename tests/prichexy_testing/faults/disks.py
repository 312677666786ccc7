"""Disks that are full, and clocks that are wrong: what can be done to this machine's resources."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

__all__ = ["Clock", "SmallDisk", "clock_in", "small_disk"]

_FILLING: Final = "filling"
#: Where Debian's package libfaketime puts it.
_LIBRARIES: Final = tuple(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """A file system of its own in ``folder``."""

    folder: Path

    def fill(self) -> None:
        """Use up all that is free."""
        with (self.folder / _FILLING).open("ab") as file, suppress(OSError):
            while True:
                os.write(file.fileno(), b"\0" * 4096)

    def clear(self) -> None:
        """Give back what ``fill`` took."""
        (self.folder / _FILLING).unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[SmallDisk]:
    """Mount a disk of that size at ``folder`` for the block; skip the test where it is refused."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here: that takes root")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@dataclass(frozen=True, slots=True)
class Clock:
    """The clock of all processes that have ``variables`` in their environment (libfaketime).

    Only the time of day is moved: what measures durations (CLOCK_MONOTONIC) goes on evenly, as it
    does where an administrator or NTP sets a clock.
    """

    file: Path
    library: Path

    @property
    def variables(self) -> Mapping[str, str]:
        """What has to be in a process's environment."""
        return {
            "LD_PRELOAD": str(self.library),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_CACHE_DURATION": "1",
            "DONT_FAKE_MONOTONIC": "1",
            # A process that is killed would leave a semaphore behind.
            "FAKETIME_DISABLE_SHM": "1",
        }

    def set(self, seconds: int) -> None:
        """Have the clock be wrong by so much, within a second."""
        draft = self.file.with_suffix(".draft")
        draft.write_text(f"{seconds:+d}\n", encoding="ascii")
        draft.replace(self.file)


def clock_in(folder: Path) -> Clock | None:
    """Give a clock that is right, or None where libfaketime is not installed."""
    if not _LIBRARIES:
        return None
    clock = Clock(folder / "clock", _LIBRARIES[0])
    clock.set(0)
    return clock
