"""The history of a model store: who put which version to use, when and why."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from prichexy_store.bundle_files import sync_folder
from prichexy_store.errors import Failed

__all__ = [
    "Action",
    "Change",
    "Version",
    "former_of",
    "read_history",
    "versions_of",
    "write_history",
]

#: "installed": by `prichexy serve`, which keeps up with the bundle that it was shipped with;
#: "promoted", "rolled back": by a person; "found": the pointer was moved past this history.
Action = Literal["installed", "promoted", "rolled back", "found"]

_LINE_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Version:
    """One bundle of a store.

    ``digest`` is that of all its files and names its folder; ``weights`` that of the generator's
    weights, which results and workers name; ``deformation`` says what else decides over the pixels.
    ``protects``: what was measured shows that attackers do worse than on real images.
    """

    digest: str
    name: str
    version: str
    weights: str
    deformation: str
    evidence: str
    statement: str
    protects: bool = False

    @property
    def known(self) -> str:
        """Give in words what is known: the evidence, and of what was measured whether it helps."""
        if self.evidence != "measured":
            return self.evidence
        return "measured, protects" if self.protects else "measured, no protection shown"


@dataclass(frozen=True, slots=True)
class Change:
    """One line of the history; never altered. ``former`` is the digest that was in use before."""

    at: str
    by: str
    action: Action
    version: Version
    former: str | None
    reason: str = ""
    forced: bool = False

    def to_json(self) -> dict[str, Any]:
        """Give the JSON object that ``from_json`` reads."""
        return {"line": _LINE_VERSION, **asdict(self)}

    def for_the_trail(self, place: int) -> dict[str, Any]:
        """Give what a gateway's audit trail is told of it; ``place`` is its line's, from 1."""
        return {
            "place": place,
            "at": self.at,
            "by": self.by[:128],
            "action": self.action,
            "bundle": self.version.digest,
            "model": self.version.weights,
            "former": self.former or "",
            "forced": self.forced,
        }

    @classmethod
    def from_json(cls, data: Any) -> Change:
        """Parse strictly. Raises ValueError."""
        try:
            values = dict(data)
            if values.pop("line") != _LINE_VERSION:
                raise ValueError("of another version of this software")
            change = cls(**{**values, "version": Version(**values["version"])})
        except (KeyError, TypeError) as error:
            raise ValueError("missing or unknown keys") from error
        if change.action not in get_args(Action):
            raise ValueError("no such action")
        return change


def read_history(path: Path) -> list[Change]:
    """Give the changes, the oldest first; none when there is no file. Raises Failed."""
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Failed(f"{path}: cannot be read ({type(error).__name__}).") from None
    changes = []
    for number, line in enumerate(lines, start=1):
        try:
            changes.append(Change.from_json(json.loads(line)))
        except ValueError as error:
            raise Failed(f"{path}, line {number}: {error}. Mend it, or put a copy back.") from None
    return changes


def write_history(path: Path, changes: Iterable[Change]) -> None:
    """Put the history into ``path`` in one step, on the disk. Raises OSError."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("w", encoding="utf-8") as stream:
        for change in changes:
            stream.write(json.dumps(change.to_json(), ensure_ascii=False) + "\n")
        stream.flush()
        os.fchmod(stream.fileno(), 0o644)
        os.fsync(stream.fileno())
    draft.replace(path)
    sync_folder(path.parent)


def versions_of(changes: Sequence[Change]) -> dict[str, Version]:
    """Give each version that was ever in use, by its digest, in the order of its first use."""
    found: dict[str, Version] = {}
    for change in changes:
        found.setdefault(change.version.digest, change.version)
    return found


def former_of(changes: Sequence[Change]) -> str | None:
    """Give the digest of the version that a rollback would put to use, or None.

    A rollback takes the last promotion back, so a second one goes further back: two in a row do
    not return to what the first one left.
    """
    used: list[str] = []
    for change in changes:
        digest = change.version.digest
        if change.action == "rolled back":
            while used and used[-1] != digest:
                used.pop()
        if not used or used[-1] != digest:
            used.append(digest)
    return used[-2] if len(used) > 1 else None
