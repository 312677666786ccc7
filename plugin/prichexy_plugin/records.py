"""What the ledger gives out: frozen values, cut off from the database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from prichexy_plugin.orders import Orders
from prichexy_worker.contract import (
    ENDED,
    MOST_PICTURES,
    Errand,
    Reason,
    State,
    WorkerAnnouncement,
)

__all__ = ["EventRecord", "Held", "Page", "Span", "StudyRecord", "WorkerRecord"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """One study as the ledger has it; ``updated`` is its last step, ``durations`` are seconds.

    ``targets`` are the names of the export targets that the intake rules chose. ``excused`` are
    those of ``attempts`` that do not count against it. ``key_id`` and ``profile`` are of the
    pseudonyms' key and the project profile, blank before a worker told.
    """

    job_id: str
    study_id: str
    state: State
    reason: Reason | None
    trouble: Reason | None
    revision: int
    attempts: int
    excused: int
    instances: int
    targets: tuple[str, ...]
    first_seen: datetime
    updated: datetime
    worker_id: str | None
    durations: Mapping[str, float]
    measures: Mapping[str, float]
    key_id: str
    profile: str
    #: Every target has shown that it holds the export.
    proved: bool
    #: Whether the originals are all there, as far as the gateway has to do with it.
    has_originals: bool
    #: An export of it may stand at the targets, be it of an earlier revision, or a part of one.
    stands: bool
    #: The export targets that may hold something of it although it did not end exported, or that
    #: may hold an earlier export although it does not go there.
    left_at: tuple[str, ...]
    #: What people decided over it.
    orders: Orders
    #: Whether pictures of it lie beside the originals.
    pictured: bool = False
    #: The rule that took it in, blank where none did or a ledger of before did not say.
    rule: str = ""
    #: Under which pseudonyms' keys an export of it may stand; none where nobody said.
    exported_keys: tuple[str, ...] = ()
    #: Its originals were deleted, or its export was to be withdrawn, for want of consent.
    unconsented: bool = False
    #: Whether the ledger knows what it is called at the targets.
    named: bool = False

    @property
    def as_seen(self) -> str:
        """Write what a person who decides over it has to have seen: another text, another study.

        Of one that has ended that is its revision, where it stands, why and since when, and whether
        somebody said that it is not consented to. Of one under way it is not how far it is.
        """
        consented = "unconsented" if self.unconsented else "consented"
        if self.state not in ENDED:
            return f"{self.revision}.under_way.{consented}"
        since = (self.updated - _EPOCH) // _MICROSECOND
        why = "" if self.reason is None else self.reason.value
        return f"{self.revision}.{self.state.value}.{why}.{since}.{consented}"

    @property
    def is_being_withdrawn(self) -> bool:
        """Whether its export is to be withdrawn and that is not done yet; it may have failed."""
        return self.orders.withdraw(self.state)

    @property
    def can_be_turned_away(self) -> bool:
        """Whether a person may end it as turned away: no worker has it, and no errand stands."""
        elsewhere = self.state in (State.PROCESSING, State.EXPORTED)
        return not elsewhere and not self.is_being_withdrawn

    @property
    def can_be_withdrawn(self) -> bool:
        """Whether an export of it may stand that a worker can name: by its original, or without."""
        ended = self.state in ENDED
        return ended and self.stands and (self.has_originals or self.named)

    @property
    def text_pictures(self) -> int:
        """Count the pictures of regions that a person must look at, 0 to ``MOST_PICTURES``."""
        if self.state is not State.QUARANTINED:
            return 0
        return max(0, min(int(self.measures.get("text_pictures", 0)), MOST_PICTURES))

    @property
    def partly_sent(self) -> bool:
        """Whether attempts may have sent a part of it, and none all of it."""
        begun = self.stands and self.attempts > 0 and self.orders.errand is not Errand.WITHDRAW
        return begun and self.state in (State.QUEUED, State.PROCESSING)

    @property
    def reason_sentence(self) -> str | None:
        """Tell people why the study is where it is.

        Of a study given up, also the last trouble, and whether it was a withdrawal; of one that
        could not be taken back from every export target, or of which an export of before stands
        there, also that; of one that was exported, where an earlier export may be left; of one that
        workers have begun to send, what its targets may hold. Of one of which somebody has said
        that its use is not consented to, that it is not taken in any more.
        """
        told = [] if self.reason is None else [self._told_of(self.reason)]
        if self.state is State.EXPORTED and self.left_at:
            where = ", ".join(self.left_at)
            left = f"An earlier export may be left at {where}, to which the study does not go."
            told = ["Exported.", left]
        if self.is_being_withdrawn and self.state not in ENDED:
            told.append("A worker takes back from the export targets what may be there of it.")
        elif self.partly_sent:
            told.append(
                "Its targets may hold a part of it, or images of two makings, until an attempt "
                "succeeds."
            )
        if self.unconsented:
            told.append("Nothing more of it is taken in: its use is not consented to.")
        return " ".join(told) or None

    def _told_of(self, reason: Reason) -> str:
        sentence = reason.sentence
        if reason is Reason.TOO_MANY_ATTEMPTS and self.trouble is not None:
            sentence += f" The last time: {self.trouble.sentence}"
        if self.is_being_withdrawn and self.state in ENDED:
            sentence += " What failed is the withdrawal of its export."
        left = int(self.measures.get("targets_not_withdrawn", 0))
        if self.left_at:
            sentence += f" Something of it may be left at {', '.join(self.left_at)}."
        elif left:
            where = "an export target" if left == 1 else f"{left} export targets"
            sentence += f" Something of it may be left at {where}: the worker's log names it."
        elif self.stands and reason is Reason.TOO_MANY_ATTEMPTS and self.attempts:
            sentence += " Something of it may be left at its targets."
        elif self.stands and self.state in (State.REJECTED, State.FAILED, State.QUARANTINED):
            sentence += " An export of before still stands at its targets, or a part of one."
        return sentence


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list, newest first, and how long the whole list is."""

    total: int
    studies: tuple[StudyRecord, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """How many studies are in one state for one reason, and when the oldest of them got there."""

    count: int
    since: datetime


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One line of the audit trail; ``actor`` is "plugin", a worker's id, or "user NAME"."""

    at: datetime
    from_state: State | None
    to_state: State
    actor: str
    reason: Reason | None


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """A worker and when it last announced itself."""

    announcement: WorkerAnnouncement
    seen: datetime


@dataclass(frozen=True, slots=True)
class Span:
    """What came to an end from ``begin`` until before ``end``.

    ``seconds`` are those from arrival to export, ascending, of the studies whose images came in
    one go and that stand exported now.
    """

    begin: datetime
    end: datetime
    ended: Mapping[State, int]
    seconds: tuple[float, ...]
