"""The handing out of studies to the broker: the ledger is the outbox.

A study waits in a line of its queue, rank and stream; the streams take turns. What is handed out
and then not spoken of comes back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from itertools import chain, zip_longest
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from prichexy_plugin.intake import Rank, targets_of
from prichexy_plugin.pauses import Pause, holds
from prichexy_plugin.schema import CircuitRow, StudyRow, WorkerRow
from prichexy_plugin.steps import Steps, may_be_left_at
from prichexy_plugin.stops import concerns
from prichexy_plugin.transitions import ACTIVE
from prichexy_plugin.views import (
    WAITS,
    WORKER_LIVES,
    circuits_in,
    lines_in,
    living_workers,
    long_before,
    pauses_in,
)
from prichexy_worker.contract import MAX_ATTEMPTS, Reason, State, StudyMessage
from prichexy_worker.retry import Circuit

__all__ = ["HandingOut", "holder_of"]

#: But on no study for so long: it was started anew under the same name and knows nothing of it.
_LONGEST_CLAIM: Final = timedelta(days=1)
#: How often a study that no worker claims is sent before it is given up.
_MAX_SENDINGS: Final = MAX_ATTEMPTS


class HandingOut(Steps):
    """Gives studies out and takes them back; any thread. Every method raises SQLAlchemyError."""

    #: Whose turn it was last, by queue and rank. Nothing is lost when a restart forgets it.
    _turns: dict[tuple[str, int], str]

    def queues(self) -> frozenset[str]:
        """Name the queues of all studies that have no end yet, "" for the gateway's own."""
        with self._reading() as session:
            under_way = StudyRow.state.in_([state.value for state in ACTIVE])
            return frozenset(session.scalars(select(StudyRow.queue).where(under_way).distinct()))

    def queue_of(self, message: StudyMessage) -> str:
        """Name the queue that a message belongs to, "" for the gateway's own."""
        with self._reading() as session:
            return session.get_one(StudyRow, message.study_id).queue

    def outbox(
        self, limit: int = 50, *, queue: str = "", stops: Collection[Circuit | Pause] = ()
    ) -> tuple[StudyMessage, ...]:
        """Give messages of a queue that wait to be sent, those to be sent first at the beginning.

        The more urgent ones first; among equally urgent ones the streams take turns, each with the
        one that waits longest. It may give fewer than there are, and not none. Left out are those
        that have to wait because of ``stops``: open circuits, and pauses.
        """
        with self._reading() as session:
            lines: dict[Rank, list[str]] = {}
            for _queue, rank, stream in lines_in(session, queue):
                if not any(concerns(stop, targets_of(stream), rank) for stop in stops):
                    lines.setdefault(rank, []).append(stream)
            found: list[StudyRow] = []
            for rank, streams in lines.items():
                last = self._turns.get((queue, rank), "")
                # Python and the database may order letters differently, which harms nobody.
                in_turn = sorted(streams, key=lambda stream: (stream <= last, stream))
                room = limit - len(found)
                each = -(-room // len(streams))
                heads = [
                    _head(session, queue, rank, stream, each) for stream in in_turn[: max(0, room)]
                ]
                rounds = chain.from_iterable(zip_longest(*heads))
                found += [row for row in rounds if row is not None][: max(0, room)]
            messages = tuple(row.to_message() for row in found)
            returned = [row.study_id for row in found if row.returned]
        if returned:
            # They are sent after this: whatever came back was an older message.
            with self._writing() as session:
                for study_id in returned:
                    session.get_one(StudyRow, study_id).returned = False
        return messages

    def sent(self, message: StudyMessage) -> None:
        """Write down that the broker has the message, unless the study has moved on since."""
        with self._writing() as session:
            row = session.get_one(StudyRow, message.study_id)
            if row.state != State.PENDING.value or row.revision != message.revision:
                return
            if row.returned:
                row.returned = False
                return
            row.sendings += 1
            self._turns[row.queue, row.rank] = row.stream
            self._step(session, row, State.QUEUED, None)

    def probe(self) -> StudyMessage | None:
        """While a circuit is open, give a study that it holds and that is let through now, if any.

        It is one under way as long as its message has yet to be sent; else, when it is time, the
        one that waited longest since it was last touched, before all others one that a living
        worker takes. No other circuit than those that it is to show to work holds it, and no pause.
        When it was sent there may be another.
        """
        now = self._clock()
        with self._writing() as session:
            row = self._probe_under_way(session)
            if row is None:
                opened = [one for one in circuits_in(session).values() if one.is_open]
                if not any(circuit.wants_probe(now) for circuit in opened):
                    return None
                row = self._next_probe(session, opened)
                if row is None:
                    return None
                for circuit in opened:
                    if concerns(circuit, row.targets, row.rank):
                        session.merge(CircuitRow.of(circuit.with_probe(row.job_id, now)))
                row.returned = False
            return row.to_message()

    def recall(self, silent_for: timedelta, lost: Collection[str] | None = None) -> int:
        """Put handed-out studies that nobody reported on for so long back into the outbox.

        For a broker that lost what it held; a message may so exist twice, which the claim makes
        harmless. What a living worker has claimed stays with it. With ``lost`` it is about these
        jobs alone: the broker has the messages of the others. A study that was sent
        ``_MAX_SENDINGS`` times without any claim is given up: workers do not understand its
        message. Gives the number of studies put back.
        """
        now = self._clock()
        back = 0
        with self._writing() as session:
            living = living_workers(session, now)
            rows = session.scalars(
                select(StudyRow).where(
                    StudyRow.state.in_((State.QUEUED.value, State.PROCESSING.value)),
                    long_before(StudyRow.updated, now, silent_for),
                )
            ).all()
            for row in rows:
                claimed = row.state == State.PROCESSING.value and row.worker_id in living
                if claimed and row.updated >= now - _LONGEST_CLAIM:
                    continue
                if lost is not None and row.job_id not in lost:
                    continue
                if row.sendings >= _MAX_SENDINGS:
                    row.left_at = may_be_left_at(row)
                    self._step(session, row, State.FAILED, Reason.TOO_MANY_ATTEMPTS)
                else:
                    self._step(session, row, State.PENDING, None)
                    back += 1
        return back

    def silent_jobs(self, silent_for: timedelta) -> frozenset[str]:
        """Name the jobs that were handed out and not spoken of for so long."""
        with self._reading() as session:
            found = select(StudyRow.job_id).where(
                StudyRow.state.in_((State.QUEUED.value, State.PROCESSING.value)),
                long_before(StudyRow.updated, self._clock(), silent_for),
            )
            return frozenset(session.scalars(found))

    def recall_orphans(self) -> int:
        """Put claimed studies whose worker fell silent back into the outbox; give their number.

        The broker would give such a study to another worker, too, but only after the longest time
        that a worker may take. A worker that lives after all keeps its claim until another one
        makes a new claim; its message, if it comes again, finds the study ended or claimed.
        """
        now = self._clock()
        with self._writing() as session:
            rows = session.scalars(
                select(StudyRow)
                .join(WorkerRow, WorkerRow.worker_id == StudyRow.worker_id)
                .where(
                    StudyRow.state == State.PROCESSING.value,
                    long_before(StudyRow.updated, now, WORKER_LIVES),
                    long_before(WorkerRow.seen, now, WORKER_LIVES),
                )
            ).all()
            for row in rows:
                self._step(session, row, State.PENDING, None)
            return len(rows)

    def _next_probe(self, session: Session, opened: Sequence[Circuit]) -> StudyRow | None:
        """Give the longest waiting of the studies whose circuits, each of them, want a probe.

        One of a queue that nobody takes from comes last: it would tell nothing. A withdrawal comes
        before the others, but for every other time after one has failed: a target may take what is
        new and let go of nothing.
        """
        now = self._clock()
        served = self._takers(session, now)
        pauses = pauses_in(session)
        heads: list[StudyRow] = []
        for queue, rank, stream in lines_in(session):
            targets = targets_of(stream)
            if holds(pauses, targets, rank):
                continue
            holders = [one for one in opened if concerns(one, targets, rank)]
            if holders and all(circuit.wants_probe(now) for circuit in holders):
                heads += _head(session, queue, rank, stream, 1)
        return min(
            heads,
            key=lambda row: (
                row.queue not in served,
                row.rank != Rank.WITHDRAWAL or not _is_turn_of_withdrawals(opened, row),
                row.updated,
                row.study_id,
            ),
            default=None,
        )

    def _probe_under_way(self, session: Session) -> StudyRow | None:
        """Give the probe that waits to be sent; let go of one that ended by another way.

        Let go, too, of one that a circuit has come to hold which opened since, or a pause: each
        claim would be refused.
        """
        circuits, pauses = circuits_in(session), pauses_in(session)
        for job_id in sorted({one.probe for one in circuits.values() if one.probe is not None}):
            row = session.scalar(select(StudyRow).where(StudyRow.job_id == job_id))
            if row is None or State(row.state) not in ACTIVE:
                self._let_go(session, circuits, job_id)
            elif row.state == State.PENDING.value:
                if holder_of(circuits, pauses, row) is None:
                    return row
                self._let_go(session, circuits, job_id)
        return None

    def _let_go(self, session: Session, circuits: Mapping[str, Circuit], job_id: str) -> None:
        """Have all circuits that a study was to show to work take another one."""
        for circuit in circuits.values():
            after = circuit.after_no_answer(job_id, self._clock())
            if after != circuit:
                session.merge(CircuitRow.of(after))


def holder_of(
    circuits: Mapping[str, Circuit], pauses: Iterable[Pause], row: StudyRow
) -> Reason | None:
    """Say why the handing out is stopped for a study, None when it is not."""
    if holds(pauses, row.targets, row.rank):
        return Reason.PAUSED
    for circuit in circuits.values():
        if not circuit.admits(row.job_id) and concerns(circuit, row.targets, row.rank):
            return circuit.reason or Reason.UNEXPECTED
    return None


def _head(session: Session, queue: str, rank: Rank, stream: str, limit: int) -> Sequence[StudyRow]:
    """Give the first studies of a line, the one that waits longest at the beginning."""
    return session.scalars(
        select(StudyRow)
        .where(
            WAITS,
            StudyRow.queue == queue,
            StudyRow.rank == rank.value,
            StudyRow.stream == stream,
        )
        .order_by(StudyRow.updated, StudyRow.study_id)
        .limit(limit)
    ).all()


def _is_turn_of_withdrawals(opened: Iterable[Circuit], row: StudyRow) -> bool:
    """Say whether a withdrawal may be a probe of the circuits that hold it before all others."""
    held_by = (one for one in opened if concerns(one, row.targets, row.rank))
    return sum(circuit.failed_probes for circuit in held_by) % 2 == 0
