"""The step of a study from one state to the next, and its line of the audit trail.

Everything that moves a study does it by ``Steps``, in its own transaction: no state changes without
a line, and none that ``transitions`` does not allow.
"""

from __future__ import annotations

import uuid
from typing import Final

from sqlalchemy.orm import Session

from prichexy_plugin.chain import PERSON, PLUGIN, Deed
from prichexy_plugin.intake import Rank
from prichexy_plugin.orders import Orders
from prichexy_plugin.retention import Originals
from prichexy_plugin.schema import StudyRow
from prichexy_plugin.trail import Entry, Trail
from prichexy_plugin.transitions import is_legal
from prichexy_worker.contract import Reason, State

__all__ = ["MADE_WITH", "IllegalStep", "Steps", "a_part_stands", "may_be_left_at", "note_a_part"]

#: What decides over a result, as a worker told.
MADE_WITH: Final = ("key_id", "profile", "edition", "model")

#: The ends of studies that were taken in and whose originals a retention rule may delete.
_HELD: Final = (State.EXPORTED, State.QUARANTINED, State.FAILED)


class IllegalStep(Exception):
    """A step that no study may take, or not by this actor: a mistake in this program.

    Nothing was written.
    """

    def __init__(self, before: State | None, after: State) -> None:
        super().__init__(f"from {before} to {after}")


class Steps(Trail):
    """Moves studies; any thread. Every method raises SQLAlchemyError."""

    def _add(self, session: Session, study_id: str) -> StudyRow:
        now = self._clock()
        row = StudyRow(
            study_id=study_id,
            job_id=uuid.uuid4().hex,
            state=State.WATCHED.value,
            reason=None,
            trouble=None,
            revision=1,
            attempts=0,
            instances=0,
            content="",
            targets=[],
            first_seen=now,
            updated=now,
            look_at=now,
            failed_looks=0,
            sendings=0,
            excused=0,
            worked=0.0,
            returned=False,
            backfilled=False,
            queue="",
            rank=Rank.NORMAL.value,
            stream="",
            last_update=None,
            worker_id=None,
            durations={},
            measures={},
            key_id="",
            profile="",
            model="",
            edition="",
            proved=False,
            orders={},
            left_at=[],
            pictured=False,
            originals=Originals.KEPT.value,
            dispose_at=None,
            exported=False,
            exported_key="",
            exported_of=None,
            taken_of=None,
            sent=None,
            rule="",
            unconsented=False,
            study_uids={},
        )
        session.add(row)
        session.flush()
        self._write_event(session, row, None, PLUGIN)
        return row

    def _renew(self, row: StudyRow, before: State) -> None:
        """Make the row that of a new revision; the first decision is on revision 1."""
        if before is not State.WATCHED:
            row.revision += 1
        row.targets = []
        row.attempts = 0
        row.excused = 0
        row.worked = 0.0
        row.returned = False
        row.sendings = 0
        row.trouble = None
        row.worker_id = None
        row.durations = {}
        row.measures = {}
        for name in MADE_WITH:
            setattr(row, name, "")
        row.proved = False
        row.orders = Orders.from_json(row.orders).lasting().to_json()
        row.left_at = []

    def _step(
        self,
        session: Session,
        row: StudyRow,
        after: State,
        reason: Reason | None,
        actor: str = PLUGIN,
    ) -> None:
        before = State(row.state)
        if not is_legal(before, after, by=_kind_of(actor)):
            raise IllegalStep(before, after)
        row.state = after.value
        row.reason = None if reason is None else reason.value
        row.updated = self._clock()
        self._write_event(session, row, before, actor)

    def _write_event(
        self, session: Session, row: StudyRow, before: State | None, actor: str
    ) -> None:
        made_with = {name: getattr(row, name) for name in MADE_WITH if getattr(row, name)}
        if row.targets:
            made_with["targets"] = ",".join(row.targets)
        if row.left_at:
            made_with["left_at"] = ",".join(row.left_at)
        counts = {"revision": row.revision, "attempt": row.attempts, "instances": row.instances}
        details = {**counts, **Orders.from_json(row.orders).details(), **_borne_out(row)}
        self._tell(
            session,
            Entry(
                Deed.STEP,
                row.updated,
                actor,
                row.job_id,
                before=before,
                after=State(row.state),
                reason=None if row.reason is None else Reason(row.reason),
                details={**details, **made_with},
            ),
        )


def a_part_stands(row: StudyRow) -> bool:
    """Say whether workers may have sent a part of a study of which no whole export is known.

    Of an export of before it is not known what it was of: that may be a whole one.
    """
    whole = row.exported_of is None or row.exported_of or row.exported_key
    return row.exported and not whole


def note_a_part(row: StudyRow) -> None:
    """Note that a part of a study may stand at its targets, unless an export of it stands anyway.

    There is no original that a later export must have, and no key that is known for good.
    """
    if not row.exported:
        row.exported, row.exported_of, row.exported_key = True, b"", ""


def may_be_left_at(row: StudyRow) -> list[str]:
    """Name the targets that may hold something of a study which is given up in no worker's hands.

    None where no worker had its revision of now, or the rules named no target; whether something
    stands anywhere, ``StudyRow.exported`` says.
    """
    return sorted(row.targets) if row.exported and row.attempts else []


def _borne_out(row: StudyRow) -> dict[str, int | str]:
    """Give what a deletion of originals will rest on, beside the row (``standing``)."""
    if State(row.state) not in _HELD:
        return {}
    held: dict[str, int | str] = {"content": row.content} if row.content else {}
    return {**held, "proved": int(row.proved)} if row.state == State.EXPORTED.value else held


def _kind_of(actor: str) -> str:
    if actor == PLUGIN:
        return "plugin"
    return "person" if actor.startswith(PERSON) else "worker"
