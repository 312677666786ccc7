"""What is held or was given up, by its reason: how many, since when, what to do with them all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from prichexy_plugin.dashboard.frame import Visit
from prichexy_plugin.dashboard.wording import ago
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.security import Role
from prichexy_worker.contract import Reason, State

__all__ = ["OF_ONE_REASON", "HeldLine", "held_lines"]

#: Of these states a reason tells what was wrong with all of its studies.
OF_ONE_REASON: Final = (State.QUARANTINED, State.FAILED)


@dataclass(frozen=True, slots=True)
class HeldLine:
    """All studies of one state and reason; ``query`` finds them, and those alone.

    ``desk`` is the address of the desk for them, below "prichexy"; None for who may not decide, and
    for what failed.
    """

    state: State
    reason: Reason
    count: int
    oldest: str
    query: str
    desk: str | None


def held_lines(ledger: Ledger, state: State, visit: Visit) -> tuple[HeldLine, ...]:
    """Give the reasons of a state, that of the most studies first. Raises SQLAlchemyError."""
    decides = state is State.QUARANTINED and visit.may(Role.OPERATOR)
    lines = (
        HeldLine(
            state,
            reason,
            held.count,
            ago(held.since, visit.at),
            "?" + urlencode({"state": state.value, "reason": reason.value}),
            f"/desk?{urlencode({'reason': reason.value})}" if decides else None,
        )
        for reason, held in ledger.held(state).items()
    )
    return tuple(sorted(lines, key=lambda line: (-line.count, line.reason.value)))
