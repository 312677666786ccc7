"""The backfill on the overview: how far it is, and the button that begins or stops one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from prichexy_plugin.backfill import DEFAULT_RATE, MAX_RATE, Backfill
from prichexy_plugin.dashboard.forms import Forms
from prichexy_plugin.dashboard.frame import Visit
from prichexy_plugin.dashboard.http import Response, go_to, plain
from prichexy_plugin.dashboard.view import Gateway, Overview
from prichexy_plugin.dashboard.wording import ago, person_for
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.security import Role
from prichexy_plugin.studies import StudiesUnavailable

__all__ = ["BackfillPart", "backfill_part", "steer_backfill", "take_backfill"]

_PURPOSE: Final = "backfill"
_RATE_DIGITS: Final = 5


@dataclass(frozen=True, slots=True)
class BackfillPart:
    """What the overview shows; ``token`` is None for whom no button is.

    ``by`` and ``stopped_by`` are as the visitor may know them; blank where nobody stopped it.
    """

    last: Backfill | None
    begun: str
    by: str
    stopped_by: str
    token: str | None
    default_rate: int = DEFAULT_RATE
    max_rate: int = MAX_RATE


def backfill_part(overview: Overview, forms: Forms, visit: Visit) -> BackfillPart | None:
    """Give it; None while there is no ledger to walk for."""
    if overview.problems or overview.ledger != "ok":
        return None
    last = overview.backfill
    return BackfillPart(
        last,
        begun="" if last is None else ago(last.started, visit.at),
        by="" if last is None else person_for(visit.role, last.started_by),
        stopped_by=person_for(visit.role, last.stopped_by) if last and last.stopped_by else "",
        token=forms.token(visit, _PURPOSE) if visit.may(Role.OPERATOR) else None,
    )


def take_backfill(gateway: Gateway | None, forms: Forms, visit: Visit) -> Response:
    """Begin or stop one, then show the overview, which says what came of it. Raises Refused."""
    if not visit.may(Role.OPERATOR):
        return plain(403, "This is for users with the role operator.")
    rate = forms.read(visit, _PURPOSE).get("per_minute", "")
    known = rate.isascii() and rate.isdigit() and len(rate) <= _RATE_DIGITS
    if not known or int(rate) > MAX_RATE:
        return plain(400, f"The rate is not a number from 0 to {MAX_RATE}.")
    ledger = None if gateway is None else gateway.ledger
    if gateway is None or ledger is None:
        return plain(503, "The ledger is not open.")
    if not steer_backfill(gateway, ledger, int(rate), visit.user or ""):
        return plain(503, "Orthanc does not answer the plugin. Try again.")
    return go_to("../prichexy")


def steer_backfill(gateway: Gateway, ledger: Ledger, per_minute: int, user: str) -> bool:
    """Begin a backfill, or stop it with a rate of 0; False when Orthanc does not answer."""
    if per_minute == 0:
        ledger.stop_backfill(user)
        return True
    try:
        gateway.start_backfill(per_minute, user)
    except StudiesUnavailable:
        return False
    return True
