"""What the ledger remembers of a study's exports: of which originals, and under which names. Pure.

An original is remembered by the first 64 bits of Orthanc's id of it, an image at the export
targets by a mark that workers make of its pseudonymous names, and so is its patient: eight bytes
each, so that a ledger of millions of studies stays small. All are digests; none can be read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

__all__ = ["is_of", "lacks", "mark_of", "marks_in", "packed"]

_DIGITS: Final = 16


def mark_of(original: str) -> str:
    """Give what is remembered of an original, by Orthanc's id of it: 16 hexadecimal digits."""
    return original.replace("-", "")[:_DIGITS]


def packed(marks: Iterable[str]) -> bytes:
    """Give marks as a column keeps them: each once, eight bytes of each."""
    return bytes.fromhex("".join(sorted(set(marks))))


def marks_in(column: bytes | None) -> frozenset[str]:
    """Give the marks that a column keeps."""
    digits = (column or b"").hex()
    return frozenset(digits[at : at + _DIGITS] for at in range(0, len(digits), _DIGITS))


def lacks(exported_of: bytes | None, originals: Iterable[str], *, count: int) -> bool:
    """Say whether an original of what was exported is not among these.

    Where a ledger of before did not write down which they were, ``exported_of`` is None and only
    their number is known, ``count``: then fewer ones lack some, and nobody can say more.
    """
    there = {mark_of(original) for original in originals}
    if exported_of is None:
        return len(there) < count
    return not marks_in(exported_of) <= there


def is_of(taken_of: bytes | None, originals: Iterable[str]) -> bool:
    """Say whether these originals are those that a revision is of, as far as that is known.

    A worker exports what it finds, which may be fewer or more than when the study was taken in.
    """
    return taken_of is None or marks_in(taken_of) == {mark_of(original) for original in originals}
