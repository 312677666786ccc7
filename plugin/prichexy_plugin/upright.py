"""Writes texts of others so that all of them is seen and nothing turns the words beside them."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from typing import Final

__all__ = ["upright", "with_escapes"]

#: Controls, what only shapes or directs other characters, halves of pairs, separators of lines.
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
#: Breaks within texts of several lines.
_BREAKS: Final = frozenset("\n\r\t")


def upright(text: str) -> str:
    r"""Write what is not seen with escapes, as ``\u202e``; breaks of lines stay."""
    if text.isprintable():
        return text
    return with_escapes(text, _is_unseen)


def with_escapes(text: str, is_one: Callable[[str], bool]) -> str:
    """Write those characters that ``is_one`` says as JSON escapes them."""
    return "".join(json.dumps(one)[1:-1] if is_one(one) else one for one in text)


def _is_unseen(one: str) -> bool:
    return one not in _BREAKS and unicodedata.category(one) in _UNSEEN
