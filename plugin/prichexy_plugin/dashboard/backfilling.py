"""The backfill on the overview: how far it is, and the button that begins or stops one."""

from __future__ import annotations

from collections.abc import Mapping
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
_NUMBER_DIGITS: Final = 9
#: What the overview says after the form, by the name that stands in its address.
_NOTES: Final[Mapping[str, str]] = {
    "begun": "Done. The backfill has begun.",
    "rated": "One was under way already: it has the rate that you gave, and goes through the "
    "list once more.",
    "stopped": "Done. The backfill is stopped; what it brought goes on.",
    "other": "Nothing was stopped: the backfill that you saw had ended. It is now as below.",
}
_UNDONE: Final = frozenset({"other"})
#: The page brings itself up to date under the same address, also when the backfill has ended.
_OF_ONE_UNDER_WAY: Final = frozenset({"begun", "rated"})


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
    note: str | None = None
    undone: bool = False


def backfill_part(overview: Overview, forms: Forms, visit: Visit) -> BackfillPart | None:
    """Give it; None while there is no ledger to walk for."""
    if overview.problems or overview.ledger != "ok":
        return None
    last = overview.backfill
    noted = visit.request.query.get("note", "")
    over = last is None or not last.running
    return BackfillPart(
        last,
        begun="" if last is None else ago(last.started, visit.at),
        by="" if last is None else person_for(visit.role, last.started_by),
        stopped_by=person_for(visit.role, last.stopped_by) if last and last.stopped_by else "",
        token=forms.token(visit, _PURPOSE) if visit.may(Role.OPERATOR) else None,
        note=None if over and noted in _OF_ONE_UNDER_WAY else _NOTES.get(noted),
        undone=noted in _UNDONE,
    )


def take_backfill(gateway: Gateway | None, forms: Forms, visit: Visit) -> Response:
    """Begin or stop one, then show the overview, which says what came of it. Raises Refused."""
    if not visit.may(Role.OPERATOR):
        return plain(403, "This is for users with the role operator.")
    form = forms.read(visit, _PURPOSE)
    rate = _number(form.get("per_minute", ""), _RATE_DIGITS)
    if rate is None or rate > MAX_RATE:
        return plain(400, f"The rate is not a number from 0 to {MAX_RATE}.")
    number = _number(form.get("number", ""), _NUMBER_DIGITS)
    if rate == 0 and number is None:
        return plain(400, "The form is not complete. Open it anew.")
    ledger = None if gateway is None else gateway.ledger
    if gateway is None or ledger is None:
        return plain(503, "The ledger is not open.")
    if rate == 0:
        stopped = ledger.stop_backfill(visit.user or "", number=number)
        return _shown("stopped" if stopped else "other")
    before = ledger.backfill()
    if not steer_backfill(gateway, ledger, rate, visit.user or ""):
        return plain(503, "Orthanc does not answer the plugin. Try again.")
    return _shown("rated" if before is not None and before.running else "begun")


def _shown(note: str) -> Response:
    return go_to(f"../prichexy?note={note}#backfill-title")


def _number(text: str, digits: int) -> int | None:
    known = text.isascii() and text.isdigit() and len(text) <= digits
    return int(text) if known else None


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
