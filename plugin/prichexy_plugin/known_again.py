"""The digest by which what was told once is known again. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

__all__ = ["digest_of"]


def digest_of(told: Mapping[str, object]) -> str:
    """Give the SHA-256, in hexadecimal, of plain values by their names, in whatever order."""
    text = json.dumps(told, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
