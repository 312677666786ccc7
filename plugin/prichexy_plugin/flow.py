"""What the ledger knows of the ways that studies went, and of the export targets."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import func, select

from prichexy_plugin.chain import Deed
from prichexy_plugin.decisions import AS_TURNED_AWAY
from prichexy_plugin.intake import Decision, Rank
from prichexy_plugin.schema import EventRow, StudyRow
from prichexy_plugin.views import Views
from prichexy_worker.contract import Reason, State
from prichexy_worker.retry import BLAMED, Blame, Circuit

__all__ = ["Decided", "Flow", "TargetHealth"]

#: So many of the last exports, and of the trail's last lines, are looked through.
_EXPORTS: Final = 5_000
_LINES: Final = 20_000
#: Why the intake rules, or what stands before them, take no study in.
_REFUSED: Final = frozenset({Reason.NO_RULE_MATCHES, Reason.OWN_OUTPUT, Reason.COPY_OF_A_STUDY})
#: The ways of these are not known: they left no trace of what the rules said.
_UNDECIDED: Final = frozenset({Reason.GONE, Reason.UNREADABLE, Reason.ORIGINALS_DELETED})
_TARGETS_FAULT: Final = tuple(
    reason.value for reason, blame in BLAMED.items() if blame is Blame.TARGET
)


@dataclass(frozen=True, slots=True)
class Decided:
    """A study that was decided over, and the way it went; None for one that is not known.

    Of one whose export was to be taken back the way's priority is WITHDRAWAL, which no rule gives:
    how urgent the rules had found it is not known any more.

    ``backfilled``: a backfill brought it, so it is of the lowest rank whatever the rules say.
    """

    job_id: str
    study_id: str
    way: Decision | None
    backfilled: bool = False


@dataclass(frozen=True, slots=True)
class TargetHealth:
    """How an export target is doing, as the ledger knows it; None stands for "not lately".

    ``circuits`` are those that concern it and hold a failure; ``failed`` is when a study that goes
    there was last given back or given up for a target's fault, and why. ``waiting`` counts the
    studies that go there and wait to be handed out.
    """

    name: str
    circuits: tuple[Circuit, ...]
    exported: datetime | None
    failed: datetime | None
    failure: Reason | None
    waiting: int

    @property
    def is_stopped(self) -> bool:
        """Say whether the handing out of studies that go there is stopped for its fault."""
        return any(circuit.is_open for circuit in self.circuits)


class Flow(Views):
    """Reads; any thread, no writing. Every method raises SQLAlchemyError."""

    def last_decided(self, limit: int) -> tuple[Decided, ...]:
        """Give the studies that were decided over and changed last, with the ways they went."""
        query = (
            select(StudyRow)
            .where(StudyRow.state != State.WATCHED.value)
            .order_by(StudyRow.updated.desc(), StudyRow.study_id.desc())
            .limit(limit)
        )
        with self._reading() as session:
            return tuple(
                Decided(row.job_id, row.study_id, _way_of(row), row.backfilled)
                for row in session.scalars(query)
            )

    def target_health(
        self, names: Collection[str], default: Collection[str] = ()
    ) -> tuple[TargetHealth, ...]:
        """Tell of each of ``names`` how it is doing, in their order.

        Studies that name no target go to those of ``default``.
        """
        with self._reading() as session:
            exports = session.execute(
                select(StudyRow.updated, StudyRow.targets)
                .where(StudyRow.state == State.EXPORTED.value)
                .order_by(StudyRow.updated.desc())
                .limit(_EXPORTS)
            ).all()
            last = session.scalar(select(func.max(EventRow.number))) or 0
            failures = session.execute(
                select(EventRow.at, EventRow.reason, EventRow.details)
                .where(
                    EventRow.number > last - _LINES,
                    EventRow.deed == Deed.STEP.value,
                    EventRow.reason.in_(_TARGETS_FAULT),
                    EventRow.from_state == State.PROCESSING.value,
                )
                .order_by(EventRow.number.desc())
            ).all()
        circuits = tuple(one for one in self.circuits().values() if one.studies)
        waiting = self.waiting_by_targets()
        exported: dict[str, datetime] = {}
        for at, targets in exports:
            for name in targets or default:
                exported.setdefault(name, at)
        failed: dict[str, tuple[datetime, Reason]] = {}
        for at, reason, details in failures:
            for name in _names(details) or default:
                failed.setdefault(name, (at, Reason(reason or "")))
        return tuple(
            TargetHealth(
                name,
                circuits=tuple(
                    one
                    for one in circuits
                    if one.blame is Blame.TARGET and name in (one.targets or default)
                ),
                exported=exported.get(name),
                failed=failed[name][0] if name in failed else None,
                failure=failed[name][1] if name in failed else None,
                waiting=sum(count for ways, count in waiting.items() if name in (ways or default)),
            )
            for name in names
        )


def _names(details: Mapping[str, int | str]) -> tuple[str, ...]:
    return tuple(name for name in str(details.get("targets", "")).split(",") if name)


def _way_of(row: StudyRow) -> Decision | None:
    reason = None if row.reason is None else Reason(row.reason)
    if row.state == State.REJECTED.value:
        if reason in _REFUSED:
            return Decision(reason)
        if reason is None or reason in _UNDECIDED:
            return None
        if reason in AS_TURNED_AWAY and not row.stream:
            return None
    # Also one that somebody turned away after the rules had taken it in.
    return Decision(None, targets=tuple(row.targets), priority=Rank(row.rank), queue=row.queue)
