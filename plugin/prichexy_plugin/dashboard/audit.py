"""The audit trail of all studies, searchable, and as a CSV file."""

from __future__ import annotations

import csv
import io
import json
import re
import threading
from dataclasses import replace
from typing import Final
from urllib.parse import urlencode

from prichexy_plugin.chain import Damaged, Deed, Line
from prichexy_plugin.dashboard.frame import Visit, render
from prichexy_plugin.dashboard.http import LIVE, BadQuery, Request, Response
from prichexy_plugin.dashboard.studies import day_after, day_of
from prichexy_plugin.dashboard.verifying import Verifications
from prichexy_plugin.dashboard.wording import ago, sentence_of
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.queries import TrailSearch
from prichexy_worker.contract import Reason, State

__all__ = ["AuditFiles", "audit_file", "audit_page", "chain_page"]

_PAGE: Final = 100
#: Lines of one file, some 7 MB: Orthanc keeps the whole answer in memory.
_FILE_LINES: Final = 50_000
_FILE_SECONDS: Final = 5
_ACTOR_LENGTH: Final = 128
_JOB: Final = re.compile(r"[0-9a-f]{32}")
#: A table program would take a field that begins so for a formula.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
#: Digests are longer, what people read is not.
_SHOWN: Final = 24
_COLUMNS: Final = (
    *("number", "at", "deed", "job_id", "from", "to", "actor", "reason", "details"),
    *("key_id", "digest"),
)


def audit_page(ledger: Ledger, visit: Visit) -> Response:
    """Show the lines that are searched for, the newest first. Raises BadQuery, SQLAlchemyError."""
    request = visit.request
    search = _search_of(request)
    before, after = (_number(request, key) for key in ("before", "after"))
    # One more than is shown tells whether the list goes on.
    lines = ledger.trail(search, limit=_PAGE + 1, before=before, after=after)
    more = len(lines) > _PAGE
    lines = lines[-_PAGE:] if after is not None else lines[:_PAGE]
    newer = bool(lines) and (more if after is not None else before is not None)
    older = bool(lines) and (more or after is not None)
    words = _words(request)
    return render(
        "audit.html",
        visit,
        lines=lines,
        damaged=[line.number for line in lines if isinstance(line, Damaged)],
        sentence=sentence_of,
        short=_short,
        words=words,
        states=[state.value for state in State],
        deeds=[deed.value for deed in Deed],
        reasons=[(reason.value, reason.sentence) for reason in Reason],
        searched=any(words.values()),
        first=_address(words),
        newer=_address(words, after=str(lines[0].number)) if newer else None,
        older=_address(words, before=str(lines[-1].number)) if older else None,
        file=_address(words),
        most=_FILE_LINES,
        chain=ledger.chain_state(),
    )


def chain_page(ledger: Ledger, verifications: Verifications, visit: Visit) -> Response:
    """Verify the trail and say what came of it, or how far it is. Raises SQLAlchemyError."""
    state = ledger.chain_state()
    look = verifications.look(ledger, state)
    began = "" if look.found is None else ago(look.found.at, visit.at)
    page = render("chain.html", visit, state=state, look=look, began=began)
    return page if look.seen is None else replace(page, headers=LIVE)


class AuditFiles:
    """Makes one file at a time: each may take seconds of the processor that Orthanc has."""

    def __init__(self) -> None:
        self._busy = threading.Lock()

    def answer(self, ledger: Ledger, visit: Visit) -> Response:
        """Give the file, or say that another one is being made; raises what ``audit_file`` does."""
        if not self._busy.acquire(blocking=False):
            page = render("busy.html", visit)
            return replace(page, status=503, headers={"Retry-After": str(_FILE_SECONDS)})
        try:
            return audit_file(ledger, visit.request)
        finally:
            self._busy.release()


def audit_file(ledger: Ledger, request: Request) -> Response:
    """Give the newest lines that are searched for as CSV. Raises BadQuery, SQLAlchemyError.

    ``before``, the smallest number of one file, gives the next older ones.
    """
    lines = ledger.trail(_search_of(request), limit=_FILE_LINES, before=_number(request, "before"))
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(_COLUMNS)
    writer.writerows([_harmless(field) for field in _fields(line)] for line in lines)
    return Response(
        200,
        "text/csv; charset=utf-8",
        text.getvalue(),
        headers={"Content-Disposition": 'attachment; filename="prichexy-audit.csv"'},
    )


def _search_of(request: Request) -> TrailSearch:
    words = _words(request)
    if words["job"] and not _JOB.fullmatch(words["job"]):
        raise BadQuery("job")
    # PostgreSQL takes no text with a NUL.
    if len(words["actor"]) > _ACTOR_LENGTH or "\0" in words["actor"]:
        raise BadQuery("actor")
    if words["deed"] not in ("", *Deed):
        raise BadQuery("deed")
    if words["reason"] not in ("", *Reason):
        raise BadQuery("reason")
    return TrailSearch(
        state=request.state(),
        deed=Deed(words["deed"]) if words["deed"] else None,
        reason=Reason(words["reason"]) if words["reason"] else None,
        actor=words["actor"],
        job_id=words["job"],
        since=day_of(request, "since"),
        until=day_after(request, "until"),
    )


def _short(value: int | str) -> str:
    """Give a value as far as it tells one from another; the file has all of it."""
    text = str(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]}…"


def _number(request: Request, key: str) -> int | None:
    return request.number(key, default=0, minimum=0) or None


def _words(request: Request) -> dict[str, str]:
    keys = ("state", "deed", "reason", "actor", "job", "since", "until")
    return {key: request.query.get(key, "").strip() for key in keys}


def _address(words: dict[str, str], **more: str) -> str:
    query = {key: value for key, value in {**words, **more}.items() if value}
    return "?" + urlencode(query)


def _fields(line: Line | Damaged) -> tuple[str, ...]:
    if isinstance(line, Damaged):
        altered = f"altered: {line.where} holds what no line has"
        return (str(line.number), "", altered, *[""] * (len(_COLUMNS) - 3))
    return (
        str(line.number),
        line.at.isoformat(),
        line.deed,
        line.job_id or "",
        line.from_state or "",
        line.to_state or "",
        line.actor,
        line.reason or "",
        json.dumps(dict(line.details), sort_keys=True) if line.details else "",
        line.key_id,
        line.digest,
    )


def _harmless(field: str) -> str:
    return f"'{field}" if field.startswith(_FORMULA) else field
