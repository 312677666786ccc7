"""Which state follows which, and what a worker's report does. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from prichexy_worker.contract import MAX_ATTEMPTS, Reason, State, StudyReport

__all__ = ["ACTIVE", "ENDED", "LEGAL", "Situation", "Step", "step_for"]

#: The gateway or a worker still has something to do.
ACTIVE: Final = frozenset({State.WATCHED, State.PENDING, State.QUEUED, State.PROCESSING})
ENDED: Final = frozenset(State) - ACTIVE

_NEW_REVISION: Final = frozenset({State.PENDING, State.REJECTED})
_WORKER_ENDS: Final = frozenset({State.EXPORTED, State.QUARANTINED, State.FAILED})

#: Every step that a study may take; None is "not in the ledger".
LEGAL: Final[Mapping[State | None, frozenset[State]]] = {
    None: frozenset({State.WATCHED}),
    State.WATCHED: frozenset({State.PENDING, State.REJECTED}),
    # PROCESSING straight after PENDING: the broker had the message, and a worker claimed it,
    # before the plugin could write so down. Ends likewise: a worker that was thought dead lives.
    State.PENDING: _NEW_REVISION | _WORKER_ENDS | {State.QUEUED, State.PROCESSING},
    State.QUEUED: _NEW_REVISION | _WORKER_ENDS | {State.PROCESSING},
    # PROCESSING again: the worker died and the broker gave the message to the next one.
    State.PROCESSING: _NEW_REVISION | _WORKER_ENDS | {State.QUEUED, State.PROCESSING},
    State.EXPORTED: _NEW_REVISION,
    State.QUARANTINED: _NEW_REVISION,
    State.FAILED: _NEW_REVISION,
    State.REJECTED: _NEW_REVISION,
}


@dataclass(frozen=True, slots=True)
class Situation:
    """The part of a ledger row that decides what a report does."""

    state: State
    revision: int
    attempts: int


@dataclass(frozen=True, slots=True)
class Step:
    """What a report does: the next state with its reason, and whether the worker may go on."""

    state: State
    reason: Reason | None
    attempts: int
    proceed: bool


def step_for(situation: Situation, report: StudyReport) -> Step | None:
    """Say what ``report`` does to a study; None when it is void, which also means: do not proceed.

    Void are reports on another revision, on a study that has ended, and ends or returns that no
    claim came before. A claim past MAX_ATTEMPTS ends the study: a study that kills its worker
    would otherwise come back for ever.
    """
    if report.revision != situation.revision or situation.state in ENDED | {State.WATCHED}:
        return None
    if report.state is State.PROCESSING:
        attempts = situation.attempts + 1
        if attempts > MAX_ATTEMPTS:
            return Step(
                State.FAILED, Reason.TOO_MANY_ATTEMPTS, attempts=situation.attempts, proceed=False
            )
        return Step(State.PROCESSING, None, attempts=attempts, proceed=True)
    if situation.attempts == 0:
        return None
    if report.state is State.QUEUED and situation.state is not State.PROCESSING:
        return None
    return Step(report.state, report.reason, attempts=situation.attempts, proceed=True)
