"""Which state follows which, and what a worker's report does. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from prichexy_worker.contract import ENDED, MAX_CLAIMS, Errand, Reason, State, StudyReport
from prichexy_worker.retry import attempts_left, is_final

__all__ = ["ACTIVE", "LEGAL", "MOVES", "Move", "Situation", "Step", "is_legal", "step_for"]

#: The gateway or a worker still has something to do.
ACTIVE: Final = frozenset(State) - ENDED


@dataclass(frozen=True, slots=True)
class Move:
    """One step that a study may take; ``before`` is None for "not in the ledger".

    ``by`` is who takes it, "plugin", "worker" or "person"; ``when`` says to people what happened.
    """

    before: State | None
    after: State
    by: str
    when: str


_HAS_IT: Final = (State.PENDING, State.QUEUED, State.PROCESSING)
_NEW: Final = "new instances came, and a rule takes the study in: the next revision"
_REFUSED: Final = (
    "new instances came, and no rule takes the study in; or it is gone, or cannot be read, or "
    "originals of what was exported are missing"
)
_BACK: Final = "the handing out is stopped (a circuit is open, or a pause): the message is put back"
_TAKEN_BACK: Final = (
    "it is to be rejected, and a part of it may stand: a worker takes that back first"
)
_SENT_AGAIN: Final = (
    f"the broker or a worker lost it: it is sent again; or {_NEW}; or {_BACK}; or {_TAKEN_BACK}"
)
_ENDS: Final = {
    State.EXPORTED: "whole at the export target, read back and compared where that can be",
    State.QUARANTINED: "it cannot be made safe",
    State.FAILED: "given up after the last attempt, or gone from the ingest Orthanc",
    State.REJECTED: "what was sent of it is withdrawn, as a person or the intake had asked",
}
_WITHDRAWS: Final = "has an export that still stands withdrawn"
_ONCE_MORE: Final = "somebody tries it again, or has it made anew with another model or strength"
_AWAY: Final = "somebody turns it away, and says why"
_AWAY_LATER: Final = (
    "somebody turns it away, and a worker may have sent something of it: one takes that back first"
)
_AGAIN: Final = {
    State.EXPORTED: f"{_ONCE_MORE}, or has its export withdrawn: the next revision",
    State.FAILED: f"{_ONCE_MORE}, or {_WITHDRAWS}: the next revision",
    State.QUARANTINED: f"{_ONCE_MORE}, or releases it, or {_WITHDRAWS}: the next revision",
    State.REJECTED: f"somebody {_WITHDRAWS}: the next revision",
}

#: Where a person may turn a study away, besides one that is rejected already. Not one that a worker
#: has: that may send something of it until it learns of it, when nobody takes it back any more.
_TURNED_AWAY: Final = (
    State.WATCHED,
    State.PENDING,
    State.QUEUED,
    State.QUARANTINED,
    State.FAILED,
)

#: Every step that a study may take, once for each who may take it. ``docs/states.md`` shows this.
MOVES: Final[tuple[Move, ...]] = (
    Move(None, State.WATCHED, "plugin", "something of the study came in"),
    Move(State.WATCHED, State.PENDING, "plugin", "it is complete, and a rule takes it in"),
    Move(
        State.WATCHED,
        State.REJECTED,
        "plugin",
        "no rule takes it in, it is a copy or our own output, is gone, or cannot be read",
    ),
    Move(State.PENDING, State.QUEUED, "plugin", "the broker has the message"),
    Move(
        State.PENDING,
        State.PROCESSING,
        "worker",
        "claimed before the plugin could note that the broker had the message",
    ),
    Move(State.PENDING, State.PENDING, "plugin", f"{_NEW}; or {_BACK}; or {_TAKEN_BACK}"),
    Move(State.QUEUED, State.PROCESSING, "worker", "claimed"),
    Move(State.QUEUED, State.PENDING, "plugin", _SENT_AGAIN),
    Move(State.QUEUED, State.FAILED, "plugin", "sent several times and claimed by nobody"),
    Move(State.PROCESSING, State.QUEUED, "worker", "given back for another attempt"),
    Move(State.PROCESSING, State.PROCESSING, "worker", "claimed anew: the last worker was lost"),
    Move(State.PROCESSING, State.PENDING, "plugin", _SENT_AGAIN),
    # An end out of PENDING or QUEUED: the worker was thought dead and lives.
    *(Move(before, end, "worker", when) for before in _HAS_IT for end, when in _ENDS.items()),
    *(Move(before, State.REJECTED, "plugin", _REFUSED) for before in _HAS_IT),
    *(
        move
        for end in sorted(ENDED)
        for move in (
            Move(end, State.PENDING, "plugin", f"{_NEW}; or {_TAKEN_BACK}"),
            Move(end, State.REJECTED, "plugin", _REFUSED),
        )
    ),
    *(Move(end, State.PENDING, "person", when) for end, when in _AGAIN.items()),
    Move(
        State.REJECTED,
        State.REJECTED,
        "person",
        "somebody tries it again: the intake rules of now look at it within seconds; or turns it "
        "away for another reason",
    ),
    *(Move(before, State.REJECTED, "person", _AWAY) for before in _TURNED_AWAY),
    *(
        Move(before, State.PENDING, "person", _AWAY_LATER)
        for before in (State.PENDING, State.QUEUED)
    ),
)

#: The same by state: which may follow.
LEGAL: Final[Mapping[State | None, frozenset[State]]] = {
    before: frozenset(move.after for move in MOVES if move.before is before)
    for before in (None, *State)
}
#: What an errand that succeeds ends with.
_SUCCESS: Final[Mapping[Errand, State]] = {
    Errand.ANONYMIZE: State.EXPORTED,
    Errand.WITHDRAW: State.REJECTED,
}
_SUCCESSES: Final = frozenset(_SUCCESS.values())
_STEPS: Final = frozenset((move.before, move.after, move.by) for move in MOVES)


def is_legal(before: State | None, after: State, *, by: str) -> bool:
    """Say whether "plugin", "worker" or "person" may take a study from ``before`` to ``after``."""
    return (before, after, by) in _STEPS


@dataclass(frozen=True, slots=True)
class Situation:
    """The part of a ledger row that decides what a report does.

    ``attempts`` are the claims so far, ``excused`` those that do not count, ``worked`` the time
    that all of them took. ``held`` says why the handing out is stopped for this study, None when
    it is not. ``errand`` is what the worker is asked for.
    """

    state: State
    revision: int
    attempts: int
    excused: int = 0
    worked: timedelta = timedelta(0)
    held: Reason | None = None
    errand: Errand = Errand.ANONYMIZE


@dataclass(frozen=True, slots=True)
class Step:
    """What a report does: the next state with its reason, and whether the worker may go on.

    ``moves`` is False for an answer that leaves the row and the audit trail as they are. ``left``
    and ``final`` are the claim's.
    """

    state: State
    reason: Reason | None
    attempts: int
    proceed: bool
    moves: bool = True
    left: int = 0
    final: bool = False


def step_for(situation: Situation, report: StudyReport) -> Step | None:
    """Say what ``report`` does to a study; None when it is void, which also means: do not proceed.

    PROCESSING without an attempt's number claims the study under the next number, which fences
    off every earlier claim; with the number of the last claim it only asks whether that holds.
    Void are reports on another revision, on another claim than the last, and on a study that has
    ended, except the very report that ended it: its answer was lost. A claim past MAX_CLAIMS
    counted ones ends the study: one that kills its worker would otherwise come back for ever. While
    the handing out is stopped, a claim puts the study back instead.
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
    if report.state in _SUCCESSES and report.state is not _SUCCESS[situation.errand]:
        return None
    return Step(report.state, report.reason, attempts=situation.attempts, proceed=True)


def _claim(situation: Situation) -> Step | None:
    if situation.state in ENDED:
        return None
    if situation.held is not None:
        return Step(State.PENDING, situation.held, attempts=situation.attempts, proceed=False)
    counted = situation.attempts - situation.excused
    if counted >= MAX_CLAIMS:
        return Step(
            State.FAILED, Reason.TOO_MANY_ATTEMPTS, attempts=situation.attempts, proceed=False
        )
    return Step(
        State.PROCESSING,
        None,
        attempts=situation.attempts + 1,
        proceed=True,
        left=attempts_left(counted, situation.worked),
        final=is_final(counted),
    )
