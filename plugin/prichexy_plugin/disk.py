"""How much room is left where Orthanc keeps what it receives."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Disk", "look_at_disk"]


@dataclass(frozen=True, slots=True)
class Disk:
    """Bytes of the file system."""

    free: int
    total: int


def look_at_disk(folder: Path) -> Disk | None:
    """Ask the system; None when the folder is not there."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    return Disk(free=usage.free, total=usage.total)
