"""Which words of a radiograph are markers: they are kept, because they are nobody's name."""

from __future__ import annotations

from typing import Final

__all__ = ["MARKERS", "is_marker", "letters"]

#: Words that say which side or view an image shows, or how the patient was placed.
MARKERS: Final = frozenset(
    {"L", "R", "LT", "RT", "LEFT", "RIGHT", "AP", "PA", "LAT", "LATERAL", "OBL", "OBLIQUE"}
    | {"PORTABLE", "MOBILE", "SUPINE", "PRONE", "ERECT", "UPRIGHT", "SEMI", "SEMIERECT"}
    | {"SEMIUPRIGHT", "SITTING", "STANDING", "DECUB", "DECUBITUS", "LORDOTIC", "CHEST", "THORAX"}
    | {"INSPIRATION", "EXPIRATION", "INSP", "EXP", "↑"}
)


def is_marker(text: str) -> bool:
    """Tell whether ``text`` is made of words of MARKERS and nothing else, in any case."""
    words = [letters(part) for part in text.split()]
    return bool(words) and all(word in MARKERS for word in words)


def letters(word: str) -> str:
    """Give what counts of a word when words are compared: letters and digits, as capitals."""
    return "".join(one for one in word if one.isalnum() or one == "↑").upper()
