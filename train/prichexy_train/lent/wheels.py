"""Fetches wheels for another machine's Python, by pip."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from prichexy_train.errors import Failed, Misconfigured

__all__ = ["fetch_wheels", "names_in"]

#: From the newest C library to the oldest; a machine that has one takes the older ones, too.
_PLATFORMS: Final = tuple(
    f"manylinux{name}_x86_64"
    for name in ("_2_34", "_2_31", "_2_28", "_2_27", "_2_24", "_2_17", "2014", "2010", "1")
)


def names_in(listing: Path) -> frozenset[str]:
    """Give the names in what ``pip list --format=freeze`` says. Raises Misconfigured."""
    try:
        text = listing.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"--has {listing}: cannot be read") from error
    return frozenset(line.split("==")[0].strip() for line in text.splitlines() if line.strip())


def fetch_wheels(versions: Mapping[str, str], to: Path, python: str) -> None:
    """Put the wheels of these distributions for ``python``, as in "3.12", into ``to``.

    Raises Failed, with the end of what pip says, where one is not to be had.
    """
    if not versions:
        return
    platforms = (word for name in _PLATFORMS for word in ("--platform", name))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
            *("--only-binary=:all:", "--implementation", "cp", "--python-version", python),
            *platforms,
            *("--dest", str(to)),
            *(f"{name}=={version}" for name, version in versions.items()),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Failed(f"pip cannot fetch the wheels: {done.stderr.strip()[-600:]}")
