"""The one owner of every study's state: each operation is one transaction.

A row is committed before anything about it is sent, so the ledger is the outbox as well. Every
step writes its line of the audit trail in the same transaction (``trail``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Engine, and_, select
from sqlalchemy.orm import Session

from prichexy_plugin.chain import ChainKey, Deed
from prichexy_plugin.clock_memory import ClockMemory
from prichexy_plugin.decisions import AS_TURNED_AWAY, BY_PEOPLE, WITHDRAWALS, Decisions
from prichexy_plugin.disposal import Disposal
from prichexy_plugin.exports import is_of, lacks, mark_of, marks_in, packed
from prichexy_plugin.flow import Flow
from prichexy_plugin.handing_out import HandingOut, holder_of
from prichexy_plugin.intake import Decision, Rank, stream_of
from prichexy_plugin.key_watch import KeyWatch, Refusal, out_of_reach
from prichexy_plugin.lasting import is_being_withdrawn, is_without_consent
from prichexy_plugin.newcomers import Newcomers
from prichexy_plugin.orders import Orders
from prichexy_plugin.ownership import CURSOR
from prichexy_plugin.pauses import intake_is_paused
from prichexy_plugin.pausing import Pausing
from prichexy_plugin.queries import Queries
from prichexy_plugin.retention import Originals
from prichexy_plugin.schema import RULE_LENGTH, CircuitRow, FactRow, StudyRow, WorkerRow
from prichexy_plugin.steps import MADE_WITH, a_part_stands, may_be_left_at, note_a_part
from prichexy_plugin.told_once import ToldOnce
from prichexy_plugin.trail import Clock, Entry
from prichexy_plugin.transitions import ACTIVE, Situation, step_for
from prichexy_plugin.views import circuits_in, pauses_in
from prichexy_plugin.walks import Walks
from prichexy_worker.contract import (
    DEFAULT_QUEUE,
    ENDED,
    Claim,
    Errand,
    Reason,
    State,
    StudyReport,
    WorkerAnnouncement,
)
from prichexy_worker.retry import Blame, Circuit, after_report, blamed_circuit, excuses

__all__ = ["Ledger"]

#: A worker that has been silent for longer is forgotten.
_FORGET_WORKER_AFTER: Final = timedelta(days=1)
#: No study is to be looked at later than this; well above StableAge and the pauses between looks.
_FARTHEST_LOOK: Final = timedelta(hours=6)
#: How soon to look again at an unreadable study that does not end as that.
_PATIENT_PAUSE: Final = timedelta(hours=1)
#: Why studies are rejected whose originals no worker could read, to tell their names by.
_WITHOUT_ORIGINAL: Final = frozenset({Reason.GONE, Reason.UNREADABLE})
#: How soon to look again at a study of which originals are being deleted.
_DISPOSAL_PAUSE: Final = timedelta(seconds=5)


class Ledger(Decisions, HandingOut, Walks, ToldOnce, Disposal, ClockMemory, Pausing, Flow, Queries):
    """Keeps studies, their audit trail, the workers' announcements and the place in the changes.

    Every method may be called from any thread and raises SQLAlchemyError when the database fails.
    """

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        key: ChainKey | None = None,
        *,
        retired_keys: Collection[ChainKey] = (),
        own_queue: str = DEFAULT_QUEUE,
        named_queues: Collection[str] | None = None,
        accepted_keys: Collection[str] = (),
        on_claim: Callable[[], None] = lambda: None,
    ) -> None:
        """Keep them in ``engine``, the trail under ``key``.

        ``named_queues`` are those that the intake rules name, None when that is not known;
        ``accepted_keys`` are ids of pseudonyms' keys that are right whatever was before;
        ``on_claim`` is called after a worker asked for a study.
        """
        super().__init__(
            engine,
            clock,
            key,
            retired_keys=retired_keys,
            own_queue=own_queue,
            named_queues=named_queues,
        )
        self._on_claim = on_claim
        self._keys = KeyWatch(accepted_keys)
        self._newcomers = Newcomers()
        self._turns = {}

    # --- Intake -----------------------------------------------------------------------------

    def cursor(self) -> int | None:
        """Give the number of the last change that was noted, None in a new ledger."""
        with self._reading() as session:
            fact = session.get(FactRow, CURSOR)
            return None if fact is None else fact.number

    def note(self, arrivals: Mapping[str, datetime], cursor: int) -> None:
        """Note when to look at each study that something came in for, up to change ``cursor``."""
        with self._writing() as session:
            for study_id, look_at in arrivals.items():
                row = session.get(StudyRow, study_id)
                if row is None:
                    row = self._add(session, study_id)
                row.look_at = look_at
                row.backfilled = False
            session.merge(FactRow(name=CURSOR, number=cursor))

    def due(self, limit: int = 100) -> tuple[str, ...]:
        """Name the studies to look at now, the longest due first.

        A watched one that nobody would ever look at, whatever made it so, is among them; so is one
        that was to be looked at in many hours: it was noted while the clock was ahead.
        """
        now = self._clock()
        # One question each: of all three together neither database knows a way by its indices.
        ways = (
            and_(StudyRow.state == State.WATCHED.value, StudyRow.look_at.is_(None)),
            StudyRow.look_at <= now,
            StudyRow.look_at > now + _FARTHEST_LOOK,
        )
        found: list[str] = []
        with self._reading() as session:
            for way in ways:
                query = select(StudyRow.study_id).where(way).order_by(StudyRow.look_at)
                found += session.scalars(query.limit(limit - len(found)))
        return tuple(found)

    def look_later(self, study_id: str, at: datetime) -> None:
        """Look at the study again at ``at``; this look succeeded."""
        with self._writing() as session:
            row = session.get_one(StudyRow, study_id)
            row.look_at, row.failed_looks = at, 0

    def look_failed(self, study_id: str, pauses: Sequence[timedelta]) -> None:
        """Look at an unreadable study again after the next of ``pauses``, and end it after all.

        One that a person has turned away or has withdrawn does not end so: that would undo what the
        person said. What came in for it is judged when it can be read, whenever that is.
        """
        with self._writing() as session:
            row = session.get_one(StudyRow, study_id)
            if row.failed_looks < len(pauses):
                row.look_at = self._clock() + pauses[row.failed_looks]
                row.failed_looks += 1
            elif _waits_for_what_came_in(row):
                row.look_at = self._clock() + _PATIENT_PAUSE
            else:
                self._turn_away(session, row, Reason.UNREADABLE)

    def settle(
        self,
        study_id: str,
        decision: Decision,
        *,
        content: str,
        instances: int,
        last_update: datetime | None = None,
        present: Collection[str] = (),
    ) -> None:
        """Write down the decision over a stable study that holds ``content``, a digest.

        ``last_update`` is when its last instance came, by which a backfill sees later ones;
        ``present`` are the instances that it holds. Where originals of what was exported are not
        among them, the study is turned away until all of them are there again, or a person says so
        where no retention rule deleted them: the export would lose those that are not.

        A study that was taken in with this same content before stays as it is, unless a worker
        found another part of it there, and so does one that somebody turned away with it, or that
        is not consented to, with whatever it holds; any other content is a new revision, which
        voids all that workers still do and report on the older one. While the intake is paused
        nothing is written down: the study is to be looked at again.
        """
        with self._writing() as session:
            if intake_is_paused(pauses_in(session)):
                return
            row = session.get_one(StudyRow, study_id)
            if row.originals == Originals.DELETING.value:
                # What came in calls the deletion off; then there is something to decide on.
                row.look_at = self._clock() + _DISPOSAL_PAUSE
                return
            row.last_update = last_update
            if is_being_withdrawn(row):
                by_people = Orders.from_json(row.orders).reason in BY_PEOPLE
                if decision.taken and not (by_people and content == row.content):
                    # So that its end has it looked at.
                    row.content = ""
                row.look_at, row.failed_looks = None, 0
                return
            if is_without_consent(row):
                # That is said of the patient, not of these images: only a person takes it back.
                self._note_what_is_here(session, row, present)
                row.look_at, row.failed_looks = None, 0
                return
            if decision.reason is not None:
                row.instances = instances
                self._turn_away(session, row, decision.reason)
                return
            if not self._came_again(session, row, present):
                row.instances = instances
                self._turn_away(session, row, Reason.ORIGINALS_DELETED)
                return
            if row.exported and lacks(row.exported_of, present, count=row.instances):
                self._turn_away(session, row, Reason.ORIGINALS_MISSING)
                return
            row.look_at, row.failed_looks = None, 0
            row.rank = (Rank.LOW if row.backfilled else decision.priority).value
            before = State(row.state)
            never_taken = not row.content and row.taken_of is None
            if before is State.REJECTED and row.reason in AS_TURNED_AWAY and never_taken:
                # Turned away before the rules decided anything over it: with what is here now.
                row.content, row.instances = content, instances
                row.taken_of = packed(map(mark_of, present))
            undecided = before in (State.WATCHED, State.REJECTED) and row.reason not in BY_PEOPLE
            same = row.content == content and is_of(row.taken_of, present)
            if not undecided and same:
                return
            row.content, row.instances = content, instances
            self._renew(row, before)
            row.taken_of = packed(map(mark_of, present))
            row.targets, row.queue = list(decision.targets), decision.queue
            row.stream = stream_of(row.targets, decision.source)
            row.rule = decision.rule[:RULE_LENGTH]
            self._step(session, row, State.PENDING, None)

    def gone(self, study_id: str) -> None:
        """Write down that Orthanc no longer has the study; one that has ended stays as it is."""
        with self._writing() as session:
            row = session.get_one(StudyRow, study_id)
            if State(row.state) in ACTIVE:
                self._turn_away(session, row, Reason.GONE)
            row.look_at, row.failed_looks = None, 0

    # --- Workers ----------------------------------------------------------------------------

    def report(self, report: StudyReport) -> Claim:
        """Take a worker's report in and say whether the worker may go on with the study."""
        claim = self._answer(report)
        if not report.attempt:
            self._on_claim()
        return claim

    def _answer(self, report: StudyReport) -> Claim:
        with self._writing() as session:
            row = session.scalar(select(StudyRow).where(StudyRow.job_id == report.job_id))
            if row is None:
                return Claim(proceed=False)
            circuits = circuits_in(session)
            orders = Orders.from_json(row.orders)
            situation = Situation(
                State(row.state),
                revision=row.revision,
                attempts=row.attempts,
                excused=row.excused,
                worked=row.work_time(),
                held=holder_of(circuits, pauses_in(session), row),
                errand=orders.errand,
            )
            step = step_for(situation, report)
            if step is None:
                self._hear_a_late_one(row, report)
                return Claim(proceed=False)
            if report.originals and not self._may_export(session, row, report):
                return Claim(proceed=False)
            if not step.moves:
                return Claim(proceed=True, attempt=step.attempts)
            claims = step.state is State.PROCESSING and step.proceed
            if claims and not self._keys.fits(session, row, report, self._clock()):
                return Claim(proceed=False, another_key=True)
            stays = out_of_reach(row, report) if step.state in ENDED else ()
            if stays and step.state is State.REJECTED:
                # Of what was to be withdrawn this worker could see nothing.
                step = replace(step, state=State.FAILED, reason=Reason.ANOTHER_KEY)
            # Whatever it is: a worker understood the message.
            row.sendings = 0
            if step.state is State.PENDING:
                row.returned = situation.state is State.PENDING
                self._let_go(session, circuits, row.job_id)
                self._step(session, row, State.PENDING, step.reason)
                return Claim(proceed=False)
            if step.state is not State.PROCESSING:
                self._learn(session, row, circuits, report)
            row.attempts = step.attempts
            row.worker_id = report.worker_id
            row.instances = report.instances or row.instances
            row.durations = dict(report.durations)
            row.measures = dict(report.measures)
            for name in MADE_WITH:
                setattr(row, name, getattr(report, name))
            unproved = report.measures.get("targets_unproved")
            row.proved = step.state is State.EXPORTED and unproved == 0
            row.left_at = list(report.left_at)
            if step.state is State.EXPORTED:
                self._keys.note(session, row, report)
                row.exported, row.exported_of = True, row.taken_of
            elif stays:
                row.left_at = sorted({*row.left_at, *row.targets})
            elif not step.proceed:
                # A claim that ends the study: it tells nothing of the targets.
                row.left_at = may_be_left_at(row)
            elif step.state in ENDED and not report.measures.get("targets_not_withdrawn"):
                row.exported = False
                if step.state is State.REJECTED:
                    row.study_uids = {}
            taken_back = orders.errand is Errand.WITHDRAW and orders.reason not in WITHDRAWALS
            if step.state in ENDED and taken_back and row.exported_of == b"":
                row.exported_key = ""  # What is left is still a part, not a whole export.
            if step.state is State.QUEUED:
                row.trouble = step.reason
            why = step.reason
            if step.state is State.REJECTED:
                # Withdrawn, as the worker says; why, the administrator said.
                why = orders.reason or why
                if not row.content and row.look_at is None:
                    row.look_at = self._clock()
            self._step(session, row, step.state, why, actor=report.worker_id)
            if not step.proceed:
                return Claim(proceed=False)
            if step.state is not State.PROCESSING:
                return Claim(proceed=True, attempt=step.attempts)
            return Claim(
                proceed=True,
                attempt=step.attempts,
                left=step.left,
                final=step.final,
                images=tuple(sorted(marks_in(row.sent))),
                study_uids=tuple(row.study_uids) if orders.errand is Errand.WITHDRAW else (),
            )

    @staticmethod
    def _hear_a_late_one(row: StudyRow, report: StudyReport) -> None:
        """Note what a worker had sent when its claim was void already.

        Another one may have taken the study back a moment too early for it.
        """
        sends = report.state is State.EXPORTED or (
            report.state is State.PROCESSING and bool(report.images)
        )
        if not (report.attempt and sends and row.sent):
            return
        if not set(report.images) <= marks_in(row.sent):
            return  # It was told to send none of these.
        note_a_part(row)
        if report.study_uid and report.study_uid not in row.study_uids:
            row.study_uids = {**row.study_uids, report.study_uid: report.key_id}

    def other_keys(self) -> tuple[Refusal, ...]:
        """Tell which workers were given no study lately for their pseudonyms' key."""
        return self._keys.refusals(self._clock())

    def announce(self, announcement: WorkerAnnouncement) -> bool:
        """Remember that this worker lives; forget those that were not heard of for a day.

        False, and nothing is remembered, when there is no room for what it tells that is new.
        """
        now = self._clock()
        with self._writing() as session:
            for row in session.scalars(
                select(WorkerRow).where(WorkerRow.seen < now - _FORGET_WORKER_AFTER)
            ):
                session.delete(row)
            session.flush()
            known = session.get(WorkerRow, announcement.worker_id)
            model = announcement.model
            if known is None or known.announcement.get("model") != model.to_json():
                if not self._newcomers.admits(session, now, is_new=known is None):
                    return False
                details = {"model": model.digest, "evidence": model.evidence}
                who = announcement.worker_id
                self._tell(session, Entry(Deed.MODEL_TAKEN_UP, now, who, details=details))
            session.merge(
                WorkerRow(
                    worker_id=announcement.worker_id,
                    announcement=announcement.to_json(),
                    seen=now,
                )
            )
            return True

    # --- Inside -----------------------------------------------------------------------------

    def _may_export(self, session: Session, row: StudyRow, report: StudyReport) -> bool:
        """Take note of what a worker is to export, and of which originals, before it does.

        False when the export would lose something.

        Instances may have been deleted since the study was taken in. Then it is turned away, and
        what its worker still does is void.
        """
        if row.exported and lacks(row.exported_of, report.originals, count=row.instances):
            self._turn_away(session, row, Reason.ORIGINALS_MISSING)
            return False
        row.taken_of = packed(map(mark_of, report.originals))
        row.sent = packed(marks_in(row.sent) | set(report.images))
        note_a_part(row)  # From now on, also if this worker dies.
        if report.study_uid and report.study_uid not in row.study_uids:
            row.study_uids = {**row.study_uids, report.study_uid: report.key_id}
        return True

    def _learn(
        self,
        session: Session,
        row: StudyRow,
        circuits: Mapping[str, Circuit],
        report: StudyReport,
    ) -> None:
        """Take from a worker's verdict what it says of all around the study, and of the attempt."""
        now, at_fault = self._clock(), report.target
        # Of a target that the study does not go to: its circuit would hold nothing, and no study
        # that is exported would ever close it. The attempt counts, so that this has an end.
        strayed = bool(at_fault and row.targets and at_fault not in row.targets)
        reason = None if report.elsewhere or strayed else report.reason
        after = after_report(
            circuits,
            row.job_id,
            report.state,
            reason,
            now,
            targets=row.targets,
            at_fault=at_fault,
        )
        for key, circuit in after.items():
            if circuit != circuits.get(key):
                session.merge(CircuitRow.of(circuit))
            before = circuits.get(key)
            if circuit.is_open != (before is not None and before.is_open):
                deed = Deed.HANDING_OUT_STOPPED if circuit.is_open else Deed.HANDING_OUT_RESUMED
                details: dict[str, int | str] = {"blame": circuit.blame.value}
                if circuit.targets:
                    details["targets"] = " ".join(circuit.targets)
                self._tell(session, Entry(deed, now, reason=circuit.reason, details=details))
        if report.state is not State.QUEUED or report.reason is None:
            return
        row.worked += max(0.0, (now - row.updated).total_seconds())
        if reason is None:
            return
        others = circuit_open = False
        blamed = blamed_circuit(reason, row.targets, at_fault)
        if blamed is not None:
            circuit_open = after[blamed.key].is_open
            succeeded = after[blamed.key].succeeded
            others = succeeded is not None and succeeded >= row.updated
            if blamed.blame is Blame.TARGET:
                others = self._exported_there(session, row, blamed)
        row.excused += excuses(reason, others_succeeded=others, circuit_open=circuit_open)

    def _exported_there(self, session: Session, row: StudyRow, circuit: Circuit) -> bool:
        """Say whether another study came to what failed this one since its last step.

        Which targets the workers have for a study that names none is not known here: only another
        such study counts.
        """
        ways = session.scalars(
            select(StudyRow.targets).where(
                StudyRow.state == State.EXPORTED.value, StudyRow.updated >= row.updated
            )
        )
        return any(circuit.concerns(way) for way in ways)

    def _turn_away(self, session: Session, row: StudyRow, reason: Reason) -> None:
        """Reject a study that no person decided over; what stands in part is taken back first."""
        row.look_at, row.failed_looks = None, 0
        before = State(row.state)
        if row.reason in BY_PEOPLE or is_being_withdrawn(row):
            return
        if before is not State.REJECTED or row.reason != reason:
            if a_part_stands(row) and (row.study_uids or reason not in _WITHOUT_ORIGINAL):
                self._take_back_first(session, row, reason)
                return
            targets = row.targets
            self._renew(row, before)
            # Where an export of before still stands, or a part that no worker could name.
            row.targets = targets if row.exported else []
            self._step(session, row, State.REJECTED, reason)


def _waits_for_what_came_in(row: StudyRow) -> bool:
    """Say whether a study stands as a person has said, unless something else came in for it."""
    if is_being_withdrawn(row):
        return True
    # Of one that is not consented to nothing is taken in, whatever came.
    return row.reason in BY_PEOPLE and not is_without_consent(row)
