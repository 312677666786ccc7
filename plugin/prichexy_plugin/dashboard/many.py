"""Does one deed with all studies that were held or given up for one reason.

They are tried again, when it is mended, or turned away, each as by its own button.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode

from prichexy_plugin.dashboard.actions import UNDONE, Action, Hands, Wish
from prichexy_plugin.dashboard.forms import Forms
from prichexy_plugin.dashboard.frame import Visit, render
from prichexy_plugin.dashboard.held import OF_ONE_REASON
from prichexy_plugin.dashboard.http import BadQuery, Response, go_to, plain
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.queries import StudySearch
from prichexy_plugin.records import StudyRecord
from prichexy_worker.contract import Reason, State

__all__ = ["many_page", "take_many"]

#: So many go their way with one form: each is a transaction, and Orthanc's thread waits for all.
_AT_ONCE: Final = 200
#: So many are looked at for it: some may have no originals any more.
_LOOKED_AT: Final = 1000
_PAGE: Final = 100
_COUNTED: Final = 10_000


def many_page(action: Action, ledger: Ledger, forms: Forms, visit: Visit) -> Response:
    """Say what would happen, and ask; after a form, how many went. Raises BadQuery."""
    search = _search_of(visit.request.query)
    done = visit.request.number("done", default=0, minimum=0, maximum=_AT_ONCE)
    count = ledger.count(search, _COUNTED + 1)
    return render(
        "many.html",
        visit,
        action=action,
        state=search.state,
        reason=search.reason,
        count=count,
        told=f"more than {_COUNTED}" if count > _COUNTED else str(count),
        at_once=min(_AT_ONCE, count),
        done=done if "done" in visit.request.query else None,
        token=forms.token(visit, _purpose(action, search)),
        back="?" + urlencode(_words(search)),
    )


def take_many(action: Action, ledger: Ledger, forms: Forms, visit: Visit) -> Response:
    """Do it with the next of them, each as by its own button. Raises Refused, BadQuery."""
    search = _search_of(visit.request.form())
    why = forms.read(visit, _purpose(action, search)).get("why")
    chosen = next((one for one in action.reasons if one.value == why), None)
    if action.reasons and chosen is None:
        return plain(400, "No reason was chosen. Nothing was changed. Go back and choose one.")
    # Neither of the two asks Orthanc for anything.
    hands = Hands(ledger, studies=None, tidy=lambda: None)
    notes = [
        action.deed(hands, Wish(study.job_id, study.revision, visit.actor, chosen))
        for study in _next(action, ledger, search)
    ]
    done = sum(note not in UNDONE for note in notes)
    return go_to(f"{action.name}?" + urlencode({**_words(search), "done": str(done)}))


def _next(action: Action, ledger: Ledger, search: StudySearch) -> list[StudyRecord]:
    """Give the newest of them with which it can be done."""
    found: list[StudyRecord] = []
    page = ledger.search(search, limit=_PAGE)
    for _ in range(_LOOKED_AT // _PAGE):
        found += [study for study in page.studies if _fits(action, study)]
        if page.older is None or len(found) >= _AT_ONCE:
            break
        page = ledger.search(search, limit=_PAGE, older_than=page.older)
    return found[:_AT_ONCE]


def _fits(action: Action, study: StudyRecord) -> bool:
    """Whose originals are gone, and what is not consented to, is not tried again together.

    A withdrawal that failed is: it is the withdrawal that is tried again.
    """
    consented = study.is_being_withdrawn or not study.unconsented
    return action.only(study) and (
        not action.needs_originals or (study.has_originals and consented)
    )


def _search_of(words: Mapping[str, str]) -> StudySearch:
    state, reason = words.get("state", ""), words.get("reason", "")
    if state not in OF_ONE_REASON:
        raise BadQuery("state")
    if reason not in set(Reason):
        raise BadQuery("reason")
    return StudySearch(state=State(state), reason=Reason(reason))


def _words(search: StudySearch) -> dict[str, str]:
    words = {"state": search.state, "reason": search.reason}
    return {key: one.value for key, one in words.items() if one is not None}


def _purpose(action: Action, search: StudySearch) -> str:
    return " ".join([action.name, *_words(search).values()])
