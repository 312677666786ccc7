"""Does one deed with all studies that were held or given up for one reason.

They are tried again, when it is mended, or turned away, each as by its own button. A form is about
those that its page counted: what came since, or moved meanwhile, is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final
from urllib.parse import urlencode

from prichexy_plugin.dashboard.actions import UNDONE, Action, Hands, Wish
from prichexy_plugin.dashboard.forms import Forms, Refused
from prichexy_plugin.dashboard.frame import Visit, render
from prichexy_plugin.dashboard.held import OF_ONE_REASON
from prichexy_plugin.dashboard.http import BadQuery, Response, go_to, plain
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.queries import Mark, StudySearch
from prichexy_plugin.records import StudyRecord
from prichexy_worker.contract import Reason, State

__all__ = ["many_page", "take_many"]

#: So many go their way with one form: each is a transaction, and Orthanc's thread waits for all.
_AT_ONCE: Final = 200
_COUNTED: Final = 10_000
_MOMENT: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class _Batch:
    """The studies of one form: all with which it can be done, from the newest to the oldest."""

    newest: Mark
    oldest: Mark
    count: int

    @classmethod
    def of(cls, studies: tuple[StudyRecord, ...]) -> _Batch | None:
        """Give the batch of these, the newest first; None of none."""
        if not studies:
            return None
        first, last = (Mark(one.updated, one.study_id) for one in (studies[0], studies[-1]))
        return cls(first, last, len(studies))

    @classmethod
    def read(cls, text: str) -> _Batch:
        """Read what ``str`` wrote. Raises Refused: a page wrote nothing else."""
        try:
            newest, oldest, count = text.split(" ")
            return cls(Mark.read(newest), Mark.read(oldest), int(count))
        except ValueError:
            raise Refused from None

    def __str__(self) -> str:
        """Write it for the form."""
        return f"{self.newest} {self.oldest} {self.count}"

    def has(self, study: StudyRecord) -> bool:
        """Say whether a study is where it was when the page was shown."""
        place = (study.updated, study.study_id)
        oldest, newest = ((one.updated, one.study_id) for one in (self.oldest, self.newest))
        return oldest <= place <= newest


def many_page(action: Action, ledger: Ledger, forms: Forms, visit: Visit) -> Response:
    """Say what would happen, and ask; after a form, how many went. Raises BadQuery."""
    search = _search_of(visit.request.query)
    done = visit.request.number("done", default=0, minimum=0, maximum=_AT_ONCE)
    left = visit.request.number("left", default=0, minimum=0, maximum=_AT_ONCE)
    batch = _Batch.of(ledger.search(_fit_for(action, search), limit=_AT_ONCE).studies)
    count = ledger.count(search, _COUNTED + 1)
    withdrawals = 0
    if action.needs_originals:
        those = replace(_fit_for(action, search), withdrawing=True)
        withdrawals = ledger.count(those, _COUNTED + 1)
    return render(
        "many.html",
        visit,
        action=action,
        state=search.state,
        reason=search.reason,
        count=count,
        told=_told(count),
        batch=batch,
        withdrawals=_told(withdrawals) if withdrawals else "",
        stay=[
            (_told(number), why)
            for why, those in _staying(action, search)
            if (number := ledger.count(those, _COUNTED + 1))
        ],
        done=done if "done" in visit.request.query else None,
        left=left,
        token="" if batch is None else forms.token(visit, _purpose(action, search, str(batch))),
        back="?" + urlencode(_words(search)),
    )


def take_many(action: Action, ledger: Ledger, forms: Forms, visit: Visit) -> Response:
    """Do it with those that the page showed, each as by its own button. Raises Refused, BadQuery.

    What it was done with has moved by that: the same form does nothing again.
    """
    shown = visit.request.form()
    search, text = _search_of(shown), shown.get("batch", "")
    why = forms.read(visit, _purpose(action, search, text)).get("why")
    batch = _Batch.read(text)
    chosen = next((one for one in action.reasons if one.value == why), None)
    if action.reasons and chosen is None:
        return plain(400, "No reason was chosen. Nothing was changed. Go back and choose one.")
    # Neither of the two asks Orthanc for anything.
    hands = Hands(ledger, studies=None, tidy=lambda: None)
    notes = [
        action.deed(hands, Wish(study.job_id, study.revision, study.as_seen, visit.actor, chosen))
        for study in _still_there(ledger, _fit_for(action, search), batch)
    ]
    done = sum(note not in UNDONE for note in notes)
    told = {**_words(search), "left": str(max(0, batch.count - done)), "done": str(done)}
    return go_to(f"{action.name}?" + urlencode(told))


def _still_there(ledger: Ledger, search: StudySearch, batch: _Batch) -> list[StudyRecord]:
    """Give those of the batch that have not moved since."""
    within = replace(search, since=batch.oldest.updated, until=batch.newest.updated + _MOMENT)
    return list(filter(batch.has, ledger.search(within, limit=_AT_ONCE).studies))[: batch.count]


def _fit_for(action: Action, search: StudySearch) -> StudySearch:
    """Narrow a search to those with which it is done together.

    Whose originals are gone, and what is not consented to, is not tried again together; a
    withdrawal that failed is not turned away.
    """
    if action.needs_originals:
        return replace(search, originals=True, consented=True)
    return replace(search, withdrawing=False)


def _staying(action: Action, search: StudySearch) -> tuple[tuple[str, StudySearch], ...]:
    """Give the others, each among one of these, and why they stay."""
    if not action.needs_originals:
        return (("their export is to be withdrawn", replace(search, withdrawing=True)),)
    return (
        ("their originals are not all here", replace(search, originals=False)),
        ("their use is not consented to", replace(search, originals=True, consented=False)),
    )


def _told(count: int) -> str:
    return f"more than {_COUNTED}" if count > _COUNTED else str(count)


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


def _purpose(action: Action, search: StudySearch, batch: str) -> str:
    return " ".join([action.name, *_words(search).values(), batch])
