"""What people stop for a while: the intake, the export, or the export to one target. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from prichexy_plugin.intake import Rank
from prichexy_worker.contract import Reason

__all__ = ["WHY_PAUSED", "Pause", "Stage", "holds", "intake_is_paused", "key_of"]

#: Why people pause; no study itself ever has one of these reasons.
WHY_PAUSED: Final = (
    Reason.PAUSED_WORK,
    Reason.PAUSED_DOUBT,
    Reason.PAUSED_LOAD,
    Reason.PAUSED_PROJECT,
)


class Stage(StrEnum):
    """What can be paused."""

    INTAKE = "intake"  # the intake rules decide over nothing; what arrives is noted
    EXPORT = "export"  # no study is handed to a worker
    TARGET = "target"  # no study that goes to one export target is


@dataclass(frozen=True, slots=True)
class Pause:
    """One stop that somebody made.

    ``target`` is the name of an export target with ``Stage.TARGET``, blank there for the targets
    that the workers have for studies whose rule names none, and blank with every other stage.
    ``by`` is who, as the audit trail names people.
    """

    stage: Stage
    target: str
    since: datetime
    by: str
    reason: Reason

    @property
    def key(self) -> str:
        """Give what tells this from every other pause that may stand beside it."""
        return key_of(self.stage, self.target)

    def concerns(self, targets: Collection[str]) -> bool:
        """Say whether a study that was taken in, and goes to ``targets``, has to wait."""
        if self.stage is Stage.TARGET:
            return self.target in targets if self.target else not targets
        return self.stage is Stage.EXPORT


def key_of(stage: Stage, target: str = "") -> str:
    """Give the key of a pause."""
    return f"{stage.value}:{target}" if stage is Stage.TARGET else stage.value


def holds(pauses: Iterable[Pause], targets: Collection[str], rank: int = Rank.NORMAL.value) -> bool:
    """Say whether a study that was taken in, goes to ``targets`` and has a Rank, has to wait.

    What is to be taken back from them does not: a pause is for what would go there.
    """
    if rank == Rank.WITHDRAWAL:
        return False
    return any(pause.concerns(targets) for pause in pauses)


def intake_is_paused(pauses: Iterable[Pause]) -> bool:
    """Say whether nothing is decided over."""
    return any(pause.stage is Stage.INTAKE for pause in pauses)
