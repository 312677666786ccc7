"""What may stand in a path or an address: UIDs and nothing else."""

from __future__ import annotations

import re
from typing import Final

from prichexy_worker.contract import Reason
from prichexy_worker.errors import Retryable

__all__ = ["check_uids", "is_uid"]

_UID: Final = re.compile(r"[0-9]+(\.[0-9]+)*")


def is_uid(text: str) -> bool:
    """Tell whether a text has the form of a UID (PS3.5 9.1), whatever its length."""
    return _UID.fullmatch(text) is not None


def check_uids(*uids: str) -> None:
    """Raise Retryable for anything else: a name such as ".." must not lead elsewhere."""
    if not all(map(is_uid, uids)):
        raise Retryable(Reason.TARGET_REFUSED, "not a UID")
