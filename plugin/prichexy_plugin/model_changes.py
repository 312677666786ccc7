"""What the command line tells of its model store, for the audit trail. Pure.

A line of a store's history becomes one line of the trail, once, known again by its ``digest``: so
no other line, of whatever place, can stand in its way.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Final

from prichexy_plugin.known_again import digest_of
from prichexy_worker.contract import ContractError

__all__ = ["MOST_CHANGES", "ModelChange", "read_changes"]

#: So many are told at a time.
MOST_CHANGES: Final = 10
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_NAME: Final = re.compile(r"[^\x00-\x1f\x7f]{1,128}")
_ACTION: Final = re.compile(r"[a-z][a-z ]{0,31}")
_MOMENT: Final = re.compile(r"[0-9T:.+Z-]{1,40}")


@dataclass(frozen=True, slots=True)
class ModelChange:
    """One line of a history. ``bundle`` and ``former`` are digests of whole bundles.

    ``by`` is who the history says did it, which is not proved by that.
    """

    place: int
    at: str
    by: str
    action: str
    bundle: str
    model: str
    former: str
    forced: bool

    @property
    def digest(self) -> str:
        """Give the SHA-256 of all that it says."""
        return digest_of(asdict(self))

    def details(self) -> dict[str, int | str]:
        """Give what the trail's line says besides who told it."""
        details: dict[str, int | str] = {
            "by": self.by,
            "action": self.action,
            "bundle": self.bundle,
            "model": self.model,
            "changed_at": self.at,
            "place": self.place,
        }
        if self.former:
            details["former"] = self.former
        return details | ({"forced": 1} if self.forced else {})


def read_changes(data: Any) -> tuple[ModelChange, ...]:
    """Parse ``{"changes": [...]}`` strictly. Raises ContractError with the key, never the value."""
    changes = data.get("changes") if isinstance(data, dict) and set(data) == {"changes"} else None
    if not isinstance(changes, list) or len(changes) > MOST_CHANGES:
        raise ContractError("model changes: changes is not valid")
    return tuple(_change(one) for one in changes)


def _change(data: Any) -> ModelChange:
    texts = {"at": _MOMENT, "by": _NAME, "action": _ACTION, "bundle": _DIGEST, "model": _DIGEST}
    if not isinstance(data, dict) or set(data) != {*texts, "place", "former", "forced"}:
        raise ContractError("model change: missing or unknown keys")
    for key, pattern in texts.items():
        if not isinstance(data[key], str) or not pattern.fullmatch(data[key]):
            raise ContractError(f"model change: {key} is not valid")
    place, former, forced = data["place"], data["former"], data["forced"]
    if isinstance(place, bool) or not isinstance(place, int) or not 1 <= place < 2**31:
        raise ContractError("model change: place is not valid")
    if former != "" and (not isinstance(former, str) or not _DIGEST.fullmatch(former)):
        raise ContractError("model change: former is not valid")
    if not isinstance(forced, bool):
        raise ContractError("model change: forced is not valid")
    return ModelChange(**data)
