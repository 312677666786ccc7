"""What the retention rules do, in the ledger. Nothing in here asks or deletes anything in Orthanc.

A deletion has a line of the audit trail before it and one after it. Between the two the ledger
names the instances that it is about, each with the digest of its file then. So it can be taken up
again after a kill, a corrected image that comes in the place of one is not taken for it, and a part
of them that comes again later is not taken for the whole study.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from itertools import chain
from typing import Final

from sqlalchemy import ColumnElement, and_, delete, or_, select
from sqlalchemy.orm import Session

from prichexy_plugin.chain import Deed
from prichexy_plugin.lasting import may_be_forgotten
from prichexy_plugin.retention import Due, Originals, Rules
from prichexy_plugin.schema import KEPT, LOSES, DisposedRow, DoubtRow, EventRow, StudyRow
from prichexy_plugin.standing import bears_out, digest_of_named, tells_of_deletion
from prichexy_plugin.trail import Entry, Trail
from prichexy_worker.contract import ENDED, Reason, State

__all__ = ["Disposal"]

_ENDED: Final = tuple(state.value for state in ENDED)
#: Why the intake rules turn a study away that ``RejectedDays`` is for.
_REFUSED: Final = (
    Reason.NO_RULE_MATCHES.value,
    Reason.OWN_OUTPUT.value,
    Reason.COPY_OF_A_STUDY.value,
)
_SHOWN_EVERY: Final = timedelta(hours=1)
#: So long a study is left alone that stands elsewhere than the audit trail says.
_DOUBTED: Final = timedelta(days=1)
_ONE_LOOK: Final = threading.Lock()


class Disposal(Trail):
    """Finds what is due and writes down what became of it. Every method raises SQLAlchemyError."""

    def due_originals(self, rules: Rules, limit: int) -> tuple[Due, ...]:
        """Give studies whose originals are to be deleted, those first where that has begun.

        Of exported ones only those that every target has shown to hold; of none that something
        came in for since.
        """
        now = self._clock()
        ways: list[ColumnElement[bool]] = [
            and_(
                StudyRow.state == state.value,
                StudyRow.updated < now - age,
                KEPT,
                StudyRow.look_at.is_(None),
            )
            for state, age in rules.originals.items()
        ]
        for place, state in enumerate(rules.originals):
            if state is State.EXPORTED:
                ways[place] = and_(ways[place], StudyRow.proved.is_(True))
            if state is State.REJECTED:
                # Never taken in, so never exported; and turned away by the rules, by no person.
                refused = and_(StudyRow.reason.in_(_REFUSED), StudyRow.content == "")
                ways[place] = and_(ways[place], refused, StudyRow.last_update.is_not(None))
        with self._reading() as session:
            # One question each: of all together no database knows a way by its indices.
            first, *others = (
                session.scalars(
                    select(StudyRow)
                    .where(way, self._not_postponed())
                    .order_by(StudyRow.updated)
                    .limit(limit)
                ).all()
                for way in (and_(LOSES), *ways)
            )
            then = sorted(chain.from_iterable(others), key=lambda row: row.updated)
            return tuple(_due(row) for row in (*first, *then)[:limit])

    def is_borne_out(self, due: Due) -> bool:
        """Say whether the audit trail bears out that these originals are to be deleted.

        If not, somebody wrote to the tables by hand: on that word nothing is deleted, and the study
        is left alone for a day.
        """
        with self._writing() as session:
            row = session.get_one(StudyRow, due.study_id)
            if _is_borne_out(session, row):
                return True
            row.dispose_at = self._clock() + _DOUBTED
            return False

    def begin_disposal(self, due: Due, digests: Mapping[str, str]) -> bool:
        """Write that these instances will be deleted, as long as they have these digests.

        False when the study has moved on, or when the trail does not bear it out.
        """
        with self._writing() as session:
            row = session.get(StudyRow, due.study_id, with_for_update=True)
            if row is None or row.look_at is not None or _due(row) != due:
                return False
            if not _is_borne_out(session, row):
                return False
            named = _name(session, row, digests)
            self._tell_of(
                session, row, Deed.ORIGINALS_DELETING, originals=len(digests), named=named
            )
            return True

    def order_disposal(
        self,
        job_id: str,
        *,
        revision: int,
        actor: str,
        reason: Reason,
        digests: Mapping[str, str],
        seen: str | None = None,
    ) -> bool:
        """Have these originals of a study that has ended deleted, because ``actor`` says so.

        Each as long as it has this digest. The study itself stays as it is; for want of consent
        (DELETED_CONSENT) nothing that comes of it later is taken in, until somebody tries it again.
        False, with nothing written, when it is no longer what the person saw (of this revision, and
        with ``seen`` this ``StudyRecord.as_seen``), or something came in for it.
        """
        with self._writing() as session:
            row = session.scalar(
                select(StudyRow).where(StudyRow.job_id == job_id).with_for_update()
            )
            if row is None or row.revision != revision or row.state not in _ENDED:
                return False
            if seen is not None and row.to_record().as_seen != seen:
                return False
            if row.look_at is not None:
                return False
            row.dispose_at = None
            row.unconsented = row.unconsented or reason is Reason.DELETED_CONSENT
            details: dict[str, int | str] = {"revision": row.revision, "state": row.state}
            details["originals"] = len(digests)
            details["named"] = _name(session, row, digests)
            deed = Deed.ORIGINALS_DELETING
            entry = Entry(deed, self._clock(), actor, job_id, reason=reason, details=details)
            self._tell(session, entry)
            return True

    def disposing(self, study_id: str) -> Mapping[str, str] | None:
        """Name the instances that may be deleted, with their digests; None if that was not begun.

        The digest is blank where older software began: that one may not be.

        Also None when something came in since, or the trail does not tell of a deletion of just
        these: then nothing more of the study may be deleted.
        """
        with self._reading() as session:
            row = session.get(StudyRow, study_id)
            if row is None or row.look_at is not None or row.originals != Originals.DELETING.value:
                return None
            named = _disposed(session, study_id)
            return named if tells_of_deletion(session.connection(), row.job_id, named) else None

    def end_disposal(self, study_id: str) -> None:
        """Write that all of them are deleted, and with the last one the pictures."""
        with self._writing() as session:
            row = session.get_one(StudyRow, study_id)
            row.originals, row.pictured = Originals.DELETED.value, False
            count = len(_disposed(session, study_id))
            self._tell_of(session, row, Deed.ORIGINALS_DELETED, originals=count)

    def call_off_disposal(self, study_id: str, left: Iterable[str]) -> None:
        """Write that those which are ``left`` stay, since something came in for the study."""
        with self._writing() as session:
            row = session.get_one(StudyRow, study_id)
            stay = set(left)
            gone = set(_disposed(session, study_id)) - stay
            for instance in stay:
                _forget_disposed(session, study_id, instance)
            row.originals = (Originals.DELETED if gone else Originals.KEPT).value
            self._tell_of(session, row, Deed.ORIGINALS_KEPT, deleted=len(gone), originals=len(stay))

    def note_originals_gone(self, due: Due) -> None:
        """Write that Orthanc holds nothing of the study: there is nothing to delete."""
        with self._writing() as session:
            row = session.get_one(StudyRow, due.study_id)
            if row.originals == Originals.KEPT.value:
                row.originals, row.pictured = Originals.GONE.value, False

    def postpone_disposal(self, study_id: str, until: datetime) -> None:
        """Leave the study alone until then."""
        with self._writing() as session:
            row = session.get(StudyRow, study_id)
            if row is not None:
                row.dispose_at = until

    def note_pictures(self, job_id: str, count: int, by: str) -> None:
        """Write that a worker's pictures are put beside the originals."""
        with self._writing() as session:
            row = session.scalars(select(StudyRow).where(StudyRow.job_id == job_id)).one()
            row.pictured = True
            details: dict[str, int | str] = {"pictures": count, "revision": row.revision}
            entry = Entry(Deed.PICTURES_KEPT, self._clock(), by, row.job_id, details=details)
            self._tell(session, entry)

    def note_picture_shown(self, job_id: str, by: str) -> None:
        """Write that a user looks at a study's pictures; once an hour for the same user and study.

        A page shows several of them, and is loaded again and again.
        """
        now = self._clock()
        lately = select(EventRow.number).where(
            EventRow.job_id == job_id,
            EventRow.deed == Deed.PICTURES_SHOWN.value,
            EventRow.actor == by,
            EventRow.at > now - _SHOWN_EVERY,
            # One of while the clock was ahead says nothing of now.
            EventRow.at <= now,
        )
        # A browser asks for several at once, and each has a thread of Orthanc's.
        with _ONE_LOOK:
            with self._reading() as session:
                if session.scalar(lately.limit(1)) is not None:
                    return
            self.record(Deed.PICTURES_SHOWN, by=by, job_id=job_id)

    def due_pictures(self, rules: Rules, limit: int) -> tuple[str, ...]:
        """Name studies that have ended and whose pictures are to be deleted."""
        if rules.pictures is None:
            return ()
        return self._oldest(
            limit,
            StudyRow.pictured.is_(True),
            self._ended_before(self._clock() - rules.pictures),
        )

    def begin_pictures_disposal(self, study_id: str) -> None:
        """Write that the pictures of a study will be deleted."""
        with self._writing() as session:
            self._tell_of(session, session.get_one(StudyRow, study_id), Deed.PICTURES_DELETING)

    def end_pictures_disposal(self, study_id: str) -> None:
        """Write that they are."""
        with self._writing() as session:
            row = session.get_one(StudyRow, study_id)
            row.pictured = False
            self._tell_of(session, row, Deed.PICTURES_DELETED)

    def forgettable(self, rules: Rules, limit: int) -> tuple[str, ...]:
        """Name studies to be forgotten, as far as the ledger knows: see ``forget``."""
        if rules.ledger is None:
            return ()
        return self._oldest(
            limit,
            StudyRow.look_at.is_(None),
            StudyRow.originals != Originals.DELETING.value,
            may_be_forgotten(),
            self._ended_before(self._clock() - rules.ledger),
        )

    def forget(self, study_id: str, rules: Rules) -> bool:
        """Forget a study of which Orthanc holds nothing; False when it has moved on meanwhile.

        False, too, for one that is never to be forgotten (``may_be_forgotten``).

        Its lines of the audit trail stay as long as their own age says.
        """
        if rules.ledger is None:
            return False
        with self._writing() as session:
            wanted = select(StudyRow).where(StudyRow.study_id == study_id, may_be_forgotten())
            row = session.scalar(wanted.with_for_update())
            old = row is not None and row.updated < self._clock() - rules.ledger
            if row is None or not old or row.look_at is not None or row.state not in _ENDED:
                return False
            self._tell_of(session, row, Deed.FORGOTTEN)
            _forget_disposed(session, study_id)
            session.execute(delete(DoubtRow).where(DoubtRow.study_id == study_id))
            session.delete(row)
            return True

    def _oldest(self, limit: int, *wanted: ColumnElement[bool]) -> tuple[str, ...]:
        """Name the studies that fit, the longest unchanged first."""
        query = select(StudyRow.study_id).where(*wanted).order_by(StudyRow.updated).limit(limit)
        with self._reading() as session:
            return tuple(session.scalars(query))

    def _not_postponed(self) -> ColumnElement[bool]:
        now = self._clock()
        # One that is left alone for longer was postponed while the clock was ahead.
        ahead = StudyRow.dispose_at > now + 2 * _DOUBTED
        return or_(StudyRow.dispose_at.is_(None), StudyRow.dispose_at <= now, ahead)

    def _ended_before(self, moment: datetime) -> ColumnElement[bool]:
        ended = and_(StudyRow.state.in_(_ENDED), StudyRow.updated < moment)
        return and_(ended, self._not_postponed())

    def _tell_of(self, session: Session, row: StudyRow, deed: Deed, **more: int | str) -> None:
        details: dict[str, int | str] = {"revision": row.revision, "state": row.state, **more}
        self._tell(session, Entry(deed, self._clock(), job_id=row.job_id, details=details))

    def _came_again(self, session: Session, row: StudyRow, present: Collection[str]) -> bool:
        """Say whether all originals that were deleted are ``present``; then all is as before."""
        if row.originals == Originals.KEPT.value:
            return True
        if not set(_disposed(session, row.study_id)) <= set(present):
            return False
        _forget_disposed(session, row.study_id)
        row.originals, row.dispose_at = Originals.KEPT.value, None
        return True

    def _note_what_is_here(self, session: Session, row: StudyRow, present: Collection[str]) -> None:
        """Write that originals of a study are here which is not taken in, if any are ``present``.

        Then a person can delete them, also where it is a part of those that were deleted before.
        """
        if present and row.originals != Originals.KEPT.value:
            _forget_disposed(session, row.study_id)
            row.originals, row.dispose_at = Originals.KEPT.value, None


def _due(row: StudyRow) -> Due:
    return Due(
        study_id=row.study_id,
        state=State(row.state),
        revision=row.revision,
        updated=row.updated,
        content=row.content,
        instances=row.instances,
        last_update=row.last_update,
        deleting=row.originals == Originals.DELETING.value,
    )


def _is_borne_out(session: Session, row: StudyRow) -> bool:
    connection = session.connection()
    if row.originals == Originals.DELETING.value:
        return tells_of_deletion(connection, row.job_id, _disposed(session, row.study_id))
    return bears_out(connection, row.job_id, State(row.state), row.last_update)


def _name(session: Session, row: StudyRow, digests: Mapping[str, str]) -> str:
    """Mark the row and its instances for deletion; give the digest of all that are marked."""
    row.originals = Originals.DELETING.value
    for instance, digest in digests.items():
        named = DisposedRow(study_id=row.study_id, instance_id=instance, digest=digest)
        session.merge(named)
    session.flush()
    return digest_of_named(_disposed(session, row.study_id))


def _disposed(session: Session, study_id: str) -> dict[str, str]:
    """Give the originals that are named, each with its digest."""
    found = select(DisposedRow).where(DisposedRow.study_id == study_id)
    return {row.instance_id: row.digest for row in session.scalars(found)}


def _forget_disposed(session: Session, study_id: str, instance: str | None = None) -> None:
    rows = delete(DisposedRow).where(DisposedRow.study_id == study_id)
    if instance is not None:
        rows = rows.where(DisposedRow.instance_id == instance)
    session.execute(rows)
