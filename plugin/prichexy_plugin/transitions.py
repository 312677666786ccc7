"""Which state follows which, and what a worker's report does. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from prichexy_worker.contract import ENDED, MAX_CLAIMS, Reason, State, StudyReport

__all__ = ["ACTIVE", "LEGAL", "Situation", "Step", "step_for"]

#: The gateway or a worker still has something to do.
ACTIVE: Final = frozenset(State) - ENDED

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
    """What a report does: the next state with its reason, and whether the worker may go on.

    ``moves`` is False for an answer that leaves the row and the audit trail as they are.
    """

    state: State
    reason: Reason | None
    attempts: int
    proceed: bool
    moves: bool = True


def step_for(situation: Situation, report: StudyReport) -> Step | None:
    """Say what ``report`` does to a study; None when it is void, which also means: do not proceed.

    PROCESSING without an attempt's number claims the study under the next number, which fences
    off every earlier claim; with the number of the last claim it only asks whether that holds.
    Void are reports on another revision, on another claim than the last, and on a study that has
    ended, except the very report that ended it: its answer was lost. A claim past MAX_CLAIMS
    ends the study: one that kills its worker would otherwise come back for ever.
    """
    if report.revision != situation.revision or situation.state is State.WATCHED:
        return None
    if report.state is State.PROCESSING and report.attempt == 0:
        return _claim(situation)
    if report.attempt == 0 or report.attempt != situation.attempts:
        return None
    if report.state is (State.PROCESSING if situation.state in ACTIVE else situation.state):
        return Step(situation.state, None, situation.attempts, proceed=True, moves=False)
    if situation.state in ENDED:
        return None
    if report.state is State.QUEUED and situation.state is not State.PROCESSING:
        return None
    return Step(report.state, report.reason, attempts=situation.attempts, proceed=True)


def _claim(situation: Situation) -> Step | None:
    if situation.state in ENDED:
        return None
    if situation.attempts >= MAX_CLAIMS:
        return Step(
            State.FAILED, Reason.TOO_MANY_ATTEMPTS, attempts=situation.attempts, proceed=False
        )
    return Step(State.PROCESSING, None, attempts=situation.attempts + 1, proceed=True)
