"""Which studies have waited for unusually long, and why. Pure: facts in, causes out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from prichexy_worker.contract import Reason, Sentenced, State

__all__ = ["PATIENCE", "Cause", "Group", "Late", "Surroundings", "Waiting", "cause_of", "grouped"]

#: So long a study may be in a state before it is shown as late.
PATIENCE: Final[Mapping[State, timedelta]] = {
    State.WATCHED: timedelta(hours=1),
    State.PENDING: timedelta(minutes=15),
    State.QUEUED: timedelta(hours=1),
    State.PROCESSING: timedelta(hours=1),
}
#: A look that is overdue for longer shows that the watcher does not get there.
_OVERDUE: Final = timedelta(minutes=5)


class Cause(Sentenced):
    """Why a study is late. The sentence says what happens next, too."""

    UNREADABLE = (
        "unreadable",
        "It cannot be read from Orthanc's storage. After some hours of tries it is rejected.",
    )
    STILL_ARRIVING = "still_arriving", "Instances of it keep coming in. It is decided when none do."
    WATCHER_BEHIND = (
        "watcher_behind",
        "The plugin has not come to look at it yet. If the number grows, see Orthanc's log.",
    )
    HELD = "held", "The handing out is stopped. It goes on when a study comes through."
    INTAKE_PAUSED = (
        "intake_paused",
        "The intake is paused. It is looked at when somebody lets it go on.",
    )
    EXPORT_PAUSED = (
        "export_paused",
        "The export is paused, or that to its target. It goes on when somebody lets it.",
    )
    BROKER_AWAY = "broker_away", "The broker does not answer. It goes on when the broker is back."
    BEHIND_OTHERS = "behind_others", "Others are before it. More workers would take it up sooner."
    NO_WORKER = "no_worker", "No worker of its queue is alive. It goes on when one is started."
    QUEUE_OF_NO_RULE = (
        "queue_of_no_rule",
        "No intake rule names its queue, and no worker takes from it. It goes on when one does.",
    )
    WORKER_SILENT = (
        "worker_silent",
        "Its worker has fallen silent. Another one gets it within minutes or half an hour.",
    )
    WORKER_SLOW = (
        "worker_slow",
        "Its worker is alive and has had it for this long. See that worker's log by the job id.",
    )


@dataclass(frozen=True, slots=True)
class Waiting:
    """What the ledger knows of one study that has no end yet."""

    job_id: str
    study_id: str
    state: State
    reason: Reason | None
    since: datetime
    look_at: datetime | None
    failed_looks: int
    worker_id: str | None
    queue: str = ""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """How the gateway is at ``now``, for one study.

    ``held``: the handing out is stopped for it, because study after study failed; ``paused``:
    somebody paused what is next for it, the intake or the export. ``living`` are workers that
    announced themselves lately, ``served`` the queues that they take studies from, blank for the
    gateway's own, and ``named`` those that the intake rules name; None for all.
    """

    now: datetime
    held: bool
    broker_reachable: bool
    living: frozenset[str]
    served: frozenset[str] | None = None
    named: frozenset[str] | None = None
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Late:
    """One study that is late."""

    study: Waiting
    cause: Cause


@dataclass(frozen=True, slots=True)
class Group:
    """The late studies of one cause in one state."""

    state: State
    cause: Cause
    count: int
    oldest: Waiting


def cause_of(study: Waiting, around: Surroundings) -> Cause | None:
    """Say why ``study`` is late, None when it is not or has ended."""
    patience = PATIENCE.get(study.state)
    if patience is None or around.now - study.since <= patience:
        return None
    if study.state is State.WATCHED and around.paused:
        return Cause.INTAKE_PAUSED
    if study.state is State.WATCHED:
        return _why_watched(study, around.now)
    if study.state is State.PROCESSING:
        alive = study.worker_id in around.living
        return Cause.WORKER_SLOW if alive else Cause.WORKER_SILENT
    if around.paused:
        return Cause.EXPORT_PAUSED
    if around.held:
        return Cause.HELD
    if not around.broker_reachable:
        return Cause.BROKER_AWAY
    served = around.served is None or study.queue in around.served
    if around.living and served:
        return Cause.BEHIND_OTHERS
    named = around.named is None or study.queue in around.named
    return Cause.NO_WORKER if named else Cause.QUEUE_OF_NO_RULE


def _why_watched(study: Waiting, now: datetime) -> Cause:
    if study.failed_looks:
        return Cause.UNREADABLE
    behind = study.look_at is None or study.look_at < now - _OVERDUE
    return Cause.WATCHER_BEHIND if behind else Cause.STILL_ARRIVING


def grouped(late: Iterable[Late]) -> tuple[Group, ...]:
    """Put the late ones together by state and cause, the oldest group first."""
    groups: dict[tuple[State, Cause], Group] = {}
    for one in late:
        key = one.study.state, one.cause
        before = groups.get(key)
        oldest = one.study
        if before is not None and before.oldest.since <= oldest.since:
            oldest = before.oldest
        count = 1 if before is None else before.count + 1
        groups[key] = Group(*key, count=count, oldest=oldest)
    return tuple(sorted(groups.values(), key=lambda group: group.oldest.since))
