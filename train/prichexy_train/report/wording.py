"""Numbers in a report's words. Shares and AUCs are told in percent, as in the paper."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from prichexy_train.measures.summary import Figure

__all__ = [
    "NONE",
    "counted",
    "duration",
    "in_words",
    "interval_text",
    "listed",
    "percent",
    "points",
    "spread",
]

#: Stands where there is no figure.
NONE: Final = "–"
_MINUS: Final = "−"


def percent(share: float) -> str:
    """Give ``0.577`` as ``57.7``."""
    return f"{100 * share:.1f}"


def points(difference: float) -> str:
    """Give a difference of shares with its sign, in percentage points: ``−24.1``."""
    text = f"{100 * abs(difference):.1f}"
    if float(text) == 0:
        return text
    return f"{_MINUS if difference < 0 else '+'}{text}"


def interval_text(interval: tuple[float, float] | None, *, signed: bool = False) -> str:
    """Give an interval as ``[52.1, 63.0]``; nothing for none."""
    if interval is None:
        return ""
    low, high = (points(end) if signed else percent(end) for end in interval)
    return f"[{low}, {high}]"


def spread(figure: Figure) -> str:
    """Give mean and deviation over seeds: ``57.7 ± 4.0``; the mean alone for one seed."""
    deviation = "" if figure.sd is None else f" ± {percent(figure.sd)}"
    return f"{percent(figure.mean)}{deviation}"


def counted(number: int, one: str, many: str | None = None) -> str:
    """Give ``1 patient``, ``2,345 patients``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def duration(seconds: float) -> str:
    """Give ``40 s``, ``12 min``, ``3.4 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def in_words(name: str) -> str:
    """Give an attack's name as words: ``fresh-anonymised`` as ``fresh anonymised``."""
    return name.replace("-", " ")


def listed(words: Iterable[str]) -> str:
    """Give ``a``, ``a and b``, ``a, b and c``."""
    found: Sequence[str] = list(words)
    if len(found) < 2:
        return "".join(found)
    return f"{', '.join(found[:-1])} and {found[-1]}"
