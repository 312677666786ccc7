"""A backfill's walk over the studies that Orthanc held before, in the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import select
from sqlalchemy.orm import Session

from prichexy_plugin.backfill import MOST_PASSES, Backfill
from prichexy_plugin.chain import Deed
from prichexy_plugin.people import kept_name, person
from prichexy_plugin.schema import BackfillRow, StudyRow
from prichexy_plugin.steps import Steps
from prichexy_plugin.studies import Listed
from prichexy_plugin.trail import Entry
from prichexy_worker.contract import Reason

__all__ = ["Walks"]


class Walks(Steps):
    """Keeps how far a walk is, of which there is one; any thread. All raise SQLAlchemyError."""

    def start_backfill(self, *, per_minute: int, total: int, by: str) -> Backfill:
        """Begin a walk over ``total`` studies, or give the one under way the new rate.

        That one goes through the list once more then: who asks may do so for what came in, and
        nobody told of, behind its place.
        """
        now = self._clock()
        with self._writing() as session:
            row = self._running_backfill(session)
            if row is None:
                fresh = Backfill(0, now, kept_name(by), per_minute, total)
                values = asdict(fresh)
                del values["number"]
                row = BackfillRow(**values)
                session.add(row)
                session.flush()
            else:
                row.disturbed, row.passes = True, min(row.passes, MOST_PASSES - 1)
            row.per_minute, row.next_at = per_minute, None
            details = {"per_minute": per_minute, "studies": total}
            self._tell(session, Entry(Deed.BACKFILL_STARTED, now, person(by), details=details))
            return row.to_backfill()

    def stop_backfill(self, by: str, *, number: int | None = None) -> bool:
        """End the walk that is under way, with ``number`` only that one; what it brought goes on.

        False, with nothing written, when there is none, or only another one.
        """
        with self._writing() as session:
            row = self._running_backfill(session)
            if row is None or number not in (None, row.number):
                return False
            row.ended, row.stopped_by = self._clock(), kept_name(by)
            self._tell(session, Entry(Deed.BACKFILL_STOPPED, row.ended, person(by)))
            return True

    def backfill_page(self, walk: Backfill, page: Sequence[Listed]) -> Backfill:
        """Have all of ``page`` looked at that calls for it, and write down how far ``walk`` is.

        Nothing is done when the walk was stopped or another call was faster.
        """
        now = self._clock()
        with self._writing() as session:
            row = self._running_backfill(session)
            if row is None or row.to_backfill() != walk:
                return walk if row is None else row.to_backfill()
            found = again = 0
            for listed in page:
                study = session.get(StudyRow, listed.study_id)
                if study is None:
                    study = self._add(session, listed.study_id)
                    study.backfilled = True
                    found += 1
                elif study.look_at is None and _calls_for_a_look(study, listed):
                    study.look_at = now
                    again += 1
            after = walk.after_page(tuple(page), found=found, again=again, now=now)
            for name, value in asdict(after).items():
                setattr(row, name, value)
            if not after.running:
                details = {"found": after.found, "again": after.again}
                self._tell(session, Entry(Deed.BACKFILL_ENDED, now, details=details))
            return after

    def _running_backfill(self, session: Session) -> BackfillRow | None:
        return session.scalar(
            select(BackfillRow)
            .where(BackfillRow.ended.is_(None))
            .order_by(BackfillRow.number)
            .limit(1)
        )


def _calls_for_a_look(study: StudyRow, listed: Listed) -> bool:
    """Say whether a backfill has a known study looked at: it grew unseen, or no rule took it.

    That may be why something of it is being taken back, whatever its last step was for.
    """
    if Reason.NO_RULE_MATCHES.value in (study.reason, study.orders.get("reason")):
        return True
    return study.last_update is None or study.last_update != listed.last_update
