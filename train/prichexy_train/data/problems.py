"""What is wrong with a set of radiographs, all of it told at once."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from prichexy_train.errors import Failed

__all__ = ["SHOWN", "Problems", "UnusableData"]

#: So many of each kind are named in the error; a file beside the result names them all.
SHOWN: Final = 10


class UnusableData(Failed):
    """Nothing can be trained on this data as it is; the text says what to mend."""


class Problems:
    """Collects what is wrong, so that one run finds all of it.

    A kind is a sentence that says what the matter is and what to do about it.
    """

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {}

    def __len__(self) -> int:
        """Give how many problems were found."""
        return sum(len(items) for items in self._found.values())

    def add(self, kind: str, item: str) -> None:
        """Note that ``item`` (an image, a file, a row) has a problem of this kind."""
        self._found.setdefault(kind, []).append(item)

    def counts(self) -> dict[str, int]:
        """Give how many were found of each kind."""
        return {kind: len(items) for kind, items in self._found.items()}

    def stop(self, what: str, listing: Path | None = None) -> None:
        """Raise UnusableData if anything was found; otherwise do nothing.

        The error names ``SHOWN`` items of each kind; all are written to ``listing``, where given.
        """
        if not self._found:
            return
        if listing is not None:
            listing.parent.mkdir(parents=True, exist_ok=True)
            listing.write_text(self.text(), encoding="utf-8")
        number = len(self)
        where = f" (all are named in {listing})" if listing is not None else ""
        noun = "problem" if number == 1 else "problems"
        raise UnusableData(f"{what}: {number:,} {noun}{where}\n{self.text(SHOWN)}".rstrip())

    def text(self, most: int | None = None) -> str:
        """Give each kind with its items, at most ``most`` of them; empty where there is none."""
        lines = []
        for kind, items in self._found.items():
            lines.append(f"{kind} ({len(items):,})")
            lines += [f"    {item}" for item in items[:most]]
            if most is not None and len(items) > most:
                lines.append(f"    and {len(items) - most:,} more")
        return "".join(f"{line}\n" for line in lines)
