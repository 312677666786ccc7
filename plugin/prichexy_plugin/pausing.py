"""Pauses in the ledger: each outlives Orthanc, and has a line of the audit trail at both ends."""

from __future__ import annotations

from datetime import datetime

from prichexy_plugin.chain import Deed
from prichexy_plugin.pauses import Pause, Stage, key_of
from prichexy_plugin.schema import PauseRow
from prichexy_plugin.trail import Entry, Trail
from prichexy_worker.contract import Reason

__all__ = ["Pausing"]


class Pausing(Trail):
    """Writes pauses; what waits because of them is the ledger's own matter.

    Every method raises SQLAlchemyError.
    """

    def pause(self, stage: Stage, target: str = "", *, actor: str, reason: Reason) -> bool:
        """Stop a stage, because ``actor`` says so; False, with nothing written, when it stands."""
        now = self._clock()
        with self._writing() as session:
            if session.get(PauseRow, key_of(stage, target)) is not None:
                return False
            session.add(PauseRow.of(Pause(stage, target, now, actor, reason)))
            details = _details("pause", stage, target)
            self._tell(session, Entry(Deed.ACTION, now, actor, reason=reason, details=details))
            return True

    def resume(self, stage: Stage, target: str = "", *, actor: str, since: datetime) -> bool:
        """Let a stage go on that has been paused ``since`` then.

        False, with nothing written, when that is not the pause of now: somebody else was faster.
        """
        with self._writing() as session:
            row = session.get(PauseRow, key_of(stage, target))
            if row is None or row.since != since:
                return False
            session.delete(row)
            details = _details("resume", stage, target)
            self._tell(session, Entry(Deed.ACTION, self._clock(), actor, details=details))
            return True


def _details(action: str, stage: Stage, target: str) -> dict[str, int | str]:
    return {"action": action, "stage": stage.value, **({"target": target} if target else {})}
