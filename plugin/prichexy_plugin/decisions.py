"""What people decide over studies that have ended, in the ledger.

Each decision is one transaction: it is written with its lines of the audit trail and takes effect
as the study's next revision, or nothing is written. It names the revision that the person saw, and
all else that was ``seen`` (``StudyRecord.as_seen``), so that a second click, and a page that is out
of date, do nothing: somebody else may have decided since. Without ``seen`` the revision alone
counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from prichexy_plugin.chain import PLUGIN, Deed
from prichexy_plugin.intake import Rank, stream_of
from prichexy_plugin.lasting import is_being_withdrawn, is_without_consent
from prichexy_plugin.orders import InDoubt, Orders, boxes_of, numbers_of
from prichexy_plugin.records import Held
from prichexy_plugin.retention import Originals
from prichexy_plugin.schema import CircuitRow, DoubtRow, StudyRow
from prichexy_plugin.steps import Steps, a_part_stands
from prichexy_plugin.trail import Entry
from prichexy_plugin.transitions import ACTIVE
from prichexy_plugin.views import circuits_in
from prichexy_worker.contract import RELEASABLE, Errand, ImageInDoubt, Looked, Reason, State
from prichexy_worker.retry import Blame

__all__ = ["AS_TURNED_AWAY", "BY_PEOPLE", "RELEASES", "WITHDRAWALS", "Decisions"]

#: Why somebody releases a study.
RELEASES: Final = (
    Reason.RELEASED_ERASED,
    Reason.RELEASED_NO_TEXT,
    Reason.RELEASED_NAMES_NOBODY,
)
#: Why an administrator has an export withdrawn.
WITHDRAWALS: Final = (
    Reason.WITHDRAWN_CONSENT,
    Reason.WITHDRAWN_FAULTY,
    Reason.WITHDRAWN_WRONG,
)
#: Why people turn studies away.
AS_TURNED_AWAY: Final = frozenset({Reason.NOT_NEEDED, Reason.NO_CONSENT, Reason.WRONGLY_SENT})
#: Why people ended studies. The rules do not take such a study in as long as it is the same.
BY_PEOPLE: Final = AS_TURNED_AWAY | frozenset(WITHDRAWALS)


class Decisions(Steps):
    """Writes decisions down; any thread. Every method raises SQLAlchemyError."""

    def note_doubt(self, image: ImageInDoubt) -> None:
        """Write down an image in doubt, in place of those of the study's other attempts."""
        with self._writing() as session:
            row = session.scalars(select(StudyRow).where(StudyRow.job_id == image.job_id)).one()
            session.execute(
                delete(DoubtRow).where(
                    DoubtRow.study_id == row.study_id,
                    (DoubtRow.revision != image.revision) | (DoubtRow.attempt != image.attempt),
                )
            )
            session.merge(
                DoubtRow(
                    study_id=row.study_id,
                    number=image.number,
                    revision=image.revision,
                    attempt=image.attempt,
                    digest=image.digest,
                    rows=image.rows,
                    columns=image.columns,
                    boxes=numbers_of(image.boxes),
                )
            )

    def in_doubt(self, job_id: str) -> tuple[InDoubt, ...]:
        """Give the images that a study is in quarantine for and that a person may decide over.

        None where nobody may: it is not in quarantine, or for another reason than those that a
        look can tell, its originals are not all there or were not consented to, or the pictures of
        it are deleted.
        """
        with self._reading() as session:
            row = session.scalar(select(StudyRow).where(StudyRow.job_id == job_id))
            return () if row is None else _decidable(session, row)

    def release(
        self,
        job_id: str,
        *,
        revision: int,
        actor: str,
        reason: Reason,
        looked: Sequence[Looked],
        seen: str | None = None,
    ) -> bool:
        """Let a study in quarantine go its way once more with a person's decisions over its images.

        ``looked`` must be over each of the images in doubt and no other. False, with nothing
        written, when it is not, or the study is no longer what the person saw.
        """

        def decide(session: Session, row: StudyRow) -> Orders | None:
            images = {image.digest: image for image in _decidable(session, row)}
            same = [one.digest for one in looked]
            if not images or len(set(same)) != len(same) or set(same) != images.keys():
                return None
            now = self._clock()
            for one in looked:
                details: dict[str, int | str] = {
                    "revision": row.revision,
                    "image": one.digest,
                    "erase": _written(one.erase),
                    "keep": _written(one.keep),
                }
                line = Entry(Deed.IMAGE_DECIDED, now, actor, job_id, reason=reason, details=details)
                self._tell(session, line)
            return Orders.from_json(row.orders).decided(looked)

        as_seen = _Seen(revision, seen)
        return self._send_anew(job_id, as_seen, actor=actor, reason=reason, decide=decide)

    def held(self, state: State) -> dict[Reason, Held]:
        """Say how many studies are in this state for each reason, and since when the oldest is."""
        query = (
            select(StudyRow.reason, func.count(), func.min(StudyRow.updated))
            .where(StudyRow.state == state.value)
            .group_by(StudyRow.reason)
        )
        with self._reading() as session:
            found = session.execute(query).all()
        return {Reason(code): Held(count, since) for code, count, since in found if code}

    def order_rerun(
        self,
        job_id: str,
        *,
        revision: int,
        actor: str,
        bundle: str,
        strength: float,
        seen: str | None = None,
    ) -> bool:
        """Have a study made anew with the model of this bundle, "" for the workers' own.

        ``strength`` is a factor on its displacement. False, with nothing written, when the study is
        no longer what the person saw, was rejected or is not consented to, or is one whose
        withdrawal failed.
        """

        def decide(_session: Session, row: StudyRow) -> Orders | None:
            orders = Orders.from_json(row.orders)
            if row.state == State.REJECTED.value or orders.errand is not Errand.ANONYMIZE:
                return None
            if row.unconsented:
                return None
            return replace(orders.lasting(), bundle=bundle, strength=strength)

        as_seen = _Seen(revision, seen)
        return self._send_anew(job_id, as_seen, actor=actor, reason=None, decide=decide)

    def order_withdrawal(
        self, job_id: str, *, revision: int, actor: str, reason: Reason, seen: str | None = None
    ) -> bool:
        """Have the export of a study taken back from every target, and end it as turned away.

        It may be of an earlier revision, and its originals may be gone where the ledger knows its
        name there. For want of consent (WITHDRAWN_CONSENT) nothing that comes of it is taken in
        from now on, however the withdrawal ends, until somebody tries the study again after it.
        False, with nothing written, when no export can stand, or the study is no longer what the
        person saw.
        """
        with self._writing() as session:
            row = session.scalar(select(StudyRow).where(StudyRow.job_id == job_id))
            if row is None or not _Seen(revision, seen).is_still(row):
                return False
            if not row.to_record().can_be_withdrawn:
                return False
            row.unconsented = is_without_consent(row) or reason is Reason.WITHDRAWN_CONSENT
            orders = Orders(errand=Errand.WITHDRAW, reason=reason)
            self._hand_out(session, row, orders, reason, actor)
            return True

    def again(self, job_id: str, *, revision: int, actor: str, seen: str | None = None) -> bool:
        """Let a study that has ended go through everything once more, because a person says so.

        A rejected one is looked at anew by the intake rules; any other is a new revision in the
        outbox, for the targets that it was for, and in its queue unless no rule names that any
        more: then in the gateway's own. Whoever said that it is not consented to is overruled,
        unless it is a withdrawal that failed: then that is tried again. False, with nothing
        written, when it is no longer what the person saw: of another revision, or not ended.
        """
        with self._writing() as session:
            row = _ended_as_seen(session, job_id, _Seen(revision, seen))
            if row is None:
                return False
            before = State(row.state)
            if not is_being_withdrawn(row):
                row.unconsented = False
            self._go_on_with_its_kind(session, row, actor)
            if before is State.REJECTED:
                row.look_at, row.failed_looks = self._clock(), 0
                # What somebody decided before no longer stands in the way of the rules.
                kept = None if row.reason is None else Reason(row.reason)
                reason = None if kept in BY_PEOPLE else kept
                if kept is Reason.ORIGINALS_MISSING:
                    # So it is decided: what is not here any more is not waited for.
                    row.exported_of = b""
                self._step(session, row, before, reason, actor=actor)
            else:
                # A withdrawal that failed is what is tried again, not the export.
                orders = Orders.from_json(row.orders)
                if orders.errand is Errand.ANONYMIZE:
                    orders = orders.lasting()
                self._hand_out(session, row, orders, None, actor)
            return True

    def turn_away(
        self, job_id: str, *, revision: int, actor: str, reason: Reason, seen: str | None = None
    ) -> bool:
        """End for good what waits or has ended without an export, because ``actor`` says so.

        What was measured on it stays, also what may be left at an export target of an export of
        before. One on its way becomes a new revision, which voids what workers still have of it;
        where a worker may have sent something of it, another one takes that back first, and then it
        ends so. One that is not consented to stays that, whatever the reason. False, with nothing
        written, when it is no longer what the person saw, when a worker has it or it is exported,
        or when its export is to be withdrawn.
        """
        with self._writing() as session:
            row = session.scalar(select(StudyRow).where(StudyRow.job_id == job_id))
            if row is None or not _Seen(revision, seen).is_still(row) or is_being_withdrawn(row):
                return False
            before = State(row.state)
            if before in (State.PROCESSING, State.EXPORTED):
                return False
            row.unconsented = is_without_consent(row) or reason is Reason.NO_CONSENT
            if before in ACTIVE and (a_part_stands(row) or _was_begun(row)):
                self._take_back_first(session, row, reason, actor)
                return True
            if before in ACTIVE:
                targets = row.targets
                self._renew(row, before)
                row.targets = targets
            if not row.content and row.look_at is None:
                # It was never taken in: what it is turned away with is yet to be noted.
                row.look_at = self._clock()
            self._step(session, row, State.REJECTED, reason, actor=actor)
            return True

    def _send_anew(
        self,
        job_id: str,
        as_seen: _Seen,
        *,
        actor: str,
        reason: Reason | None,
        decide: Callable[[Session, StudyRow], Orders | None],
    ) -> bool:
        """Have a study that has ended handed out as its next revision, with what ``decide`` gives.

        For the targets that it was for. False, with nothing written, when that is None, or the
        study is no longer what the person saw, or not ended.
        """
        with self._writing() as session:
            row = _ended_as_seen(session, job_id, as_seen)
            if row is None:
                return False
            orders = decide(session, row)
            if orders is None:
                return False
            self._hand_out(session, row, orders, reason, actor)
            return True

    def _take_back_first(
        self, session: Session, row: StudyRow, reason: Reason, actor: str = PLUGIN
    ) -> None:
        """Have a worker take back what may stand of a study that never was exported whole.

        When that is done the study is rejected for ``reason``.
        """
        row.exported, row.exported_of = True, b""
        keys = {*row.exported_key.split(), *row.study_uids.values(), row.key_id}
        row.exported_key = " ".join(sorted(keys - {""}))
        orders = Orders(errand=Errand.WITHDRAW, reason=reason)
        self._hand_out(session, row, orders, reason, actor)

    def _hand_out(
        self, session: Session, row: StudyRow, orders: Orders, reason: Reason | None, actor: str
    ) -> None:
        targets = row.targets
        self._renew(row, State(row.state))
        row.targets, row.orders = targets, orders.to_json()
        if self._named is not None and row.queue not in self._named:
            row.queue = ""
        if not row.stream:
            # It ended before there were lines; who sent it is not known any more.
            row.stream = stream_of(targets, source="")
            row.rank = (Rank.LOW if row.backfilled else Rank.NORMAL).value
        if orders.errand is Errand.WITHDRAW:
            row.rank = Rank.WITHDRAWAL.value
        elif row.rank == Rank.WITHDRAWAL:
            row.rank = Rank.NORMAL.value
        self._step(session, row, State.PENDING, reason, actor=actor)

    def _go_on_with_its_kind(self, session: Session, row: StudyRow, actor: str) -> None:
        """Let all go on that waits because study after study ended as this one did.

        Who tries one of them again says that the cause is mended. The count begins anew.
        """
        now = self._clock()
        for circuit in circuits_in(session).values():
            kind = circuit.blame is Blame.RESULT and circuit.reason == row.reason
            if kind and circuit.is_open:
                session.merge(CircuitRow.of(circuit.after_success(now)))
                deed, details = Deed.HANDING_OUT_RESUMED, {"blame": circuit.blame.value}
                entry = Entry(deed, now, actor, reason=circuit.reason, details=details)
                self._tell(session, entry)


def _was_begun(row: StudyRow) -> bool:
    """Say whether workers had a study of which nothing is known to stand at a target."""
    return not row.exported and bool(row.attempts or row.sent)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a person saw of a study; ``whole`` is its ``StudyRecord.as_seen``, None for no page."""

    revision: int
    whole: str | None

    def is_still(self, row: StudyRow) -> bool:
        """Say whether the study is what the person saw."""
        if row.revision != self.revision:
            return False
        return self.whole is None or self.whole == row.to_record().as_seen


def _ended_as_seen(session: Session, job_id: str, seen: _Seen) -> StudyRow | None:
    """Give a study that has ended and has its originals, None when it is not what was seen."""
    row = session.scalar(select(StudyRow).where(StudyRow.job_id == job_id))
    if row is None or not seen.is_still(row) or State(row.state) in ACTIVE:
        return None
    return row if row.originals == Originals.KEPT.value else None


def _decidable(session: Session, row: StudyRow) -> tuple[InDoubt, ...]:
    reasons = {reason.value for reason in RELEASABLE}
    if row.state != State.QUARANTINED.value or row.reason not in reasons:
        return ()
    if row.originals != Originals.KEPT.value or not row.pictured or row.unconsented:
        return ()
    found = session.scalars(
        select(DoubtRow)
        .where(
            DoubtRow.study_id == row.study_id,
            DoubtRow.revision == row.revision,
            DoubtRow.attempt == row.attempts,
        )
        .order_by(DoubtRow.number)
    )
    return tuple(
        InDoubt(one.number, one.digest, one.rows, one.columns, boxes_of(one.boxes)) for one in found
    )


def _written(boxes: Sequence[tuple[int, int, int, int]]) -> str:
    """Write boxes as "left,top,right,bottom", with blanks between them."""
    return " ".join(",".join(map(str, box)) for box in boxes)
