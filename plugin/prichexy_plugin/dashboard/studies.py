"""The list of studies with its search, and the page of one study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final
from urllib.parse import urlencode

from prichexy_plugin.chain import Damaged, Deed
from prichexy_plugin.dashboard.actions import DELETIONS, NOTES, UNDONE, actions_for
from prichexy_plugin.dashboard.frame import Visit, render
from prichexy_plugin.dashboard.held import OF_ONE_REASON
from prichexy_plugin.dashboard.http import LIVE, SCRIPTED, BadQuery, Request, Response, plain
from prichexy_plugin.dashboard.images import images_of
from prichexy_plugin.dashboard.needs import troubles_of
from prichexy_plugin.dashboard.rerun import can_rerun
from prichexy_plugin.dashboard.view import Overview
from prichexy_plugin.dashboard.wording import (
    MEANING,
    MEANT,
    actor_for,
    ago,
    meaning_of,
    sentence_of,
    told_measures,
    took,
)
from prichexy_plugin.decisions import RELEASES
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.pauses import WHY_PAUSED
from prichexy_plugin.pictures import Pictures
from prichexy_plugin.queries import Found, Mark, StudySearch, is_pseudonym
from prichexy_plugin.records import EventRecord, StudyRecord
from prichexy_plugin.security import Role
from prichexy_worker.contract import ENDED, TARGET_NAME, Reason, State

__all__ = ["day_after", "day_of", "studies_page", "study_page"]

_PAGE: Final = 50
#: Reasons of lines of the trail that no study has when it has ended.
_OF_NO_STUDY: Final = frozenset({*DELETIONS, *RELEASES, *WHY_PAUSED, Reason.WITHDRAWN})
#: Beyond this a search says "more than": counting all would cost more than it tells.
_COUNTED: Final = 1000
_NAME_LENGTH: Final = 44
#: Of one study's lines of the audit trail; the audit page has them all.
_MOST_LINES: Final = 500


@dataclass(frozen=True, slots=True)
class _Tab:
    name: str
    title: str
    count: int
    href: str
    current: bool


#: In which states a note that a study is on its way is no longer true. A rejected one that is tried
#: again stays so until the intake rules have decided.
_ARRIVED: Final[Mapping[str, frozenset[State]]] = {
    "retried": ENDED - {State.REJECTED},
    "rerun": ENDED,
    "withdrawn": ENDED,
    "taken_back": ENDED,
}


@dataclass(frozen=True, slots=True)
class _Line:
    study: StudyRecord
    meaning: str
    seen: str
    updated: str
    took: str
    pictures: int


@dataclass(frozen=True, slots=True)
class _Step:
    """One line of a study's time line; ``attempt`` is 0 where none begins."""

    event: EventRecord
    meaning: str
    after: str
    attempt: int


@dataclass(frozen=True, slots=True)
class _Measure:
    title: str
    value: str
    meant: str


def studies_page(overview: Overview, ledger: Ledger | None, visit: Visit) -> Response:
    """List the studies that are searched for. Raises BadQuery, SQLAlchemyError."""
    request = visit.request
    search = _search_of(request)
    if is_pseudonym(search.name) and visit.role < Role.OPERATOR:
        return plain(403, "This tells whose an exported study is: it is for operators.")
    found = Found((), newer=None, older=None)
    total = 0
    if ledger is not None and overview.ledger == "ok":
        found = ledger.search(
            search,
            limit=_PAGE,
            older_than=_mark(request, "older"),
            newer_than=_mark(request, "newer"),
        )
        total = len(found.studies)
        if _narrows(search) and (found.newer or found.older):
            total = ledger.count(search, _COUNTED + 1)
    words = _words(request)
    page = render(
        "studies.html",
        visit,
        overview=overview,
        needs=tuple(troubles_of(overview)),
        tabs=_tabs(overview.counts, search, words),
        words=words,
        # One that no rule names any more can still be searched for.
        targets=sorted({*overview.targets, *filter(None, [search.target])}),
        rules=sorted({*(rule.name for rule in overview.rules), *filter(None, [search.rule])}),
        reasons=[(one.value, one.sentence) for one in Reason if one not in _OF_NO_STUDY],
        lines=[_line(study, visit.at) for study in found.studies],
        by_pseudonym=visit.role >= Role.OPERATOR,
        told=_told(total) if _narrows(search) else "",
        searched=search != StudySearch(),
        # The whole of one state and reason; see many.py.
        together=(
            visit.may(Role.OPERATOR)
            and search.state in OF_ONE_REASON
            and search == StudySearch(state=search.state, reason=search.reason)
            and search.reason is not None
        ),
        paged=bool(request.query.get("older") or request.query.get("newer")),
        newer=None if found.newer is None else _address(words, newer=str(found.newer)),
        older=None if found.older is None else _address(words, older=str(found.older)),
        first=_address(words),
        here=_address(words, **{key: request.query.get(key, "") for key in ("older", "newer")}),
    )
    return replace(page, headers=LIVE)


def study_page(
    study: StudyRecord, ledger: Ledger, visit: Visit, kept: Pictures | None = None
) -> Response:
    """Show one study: what became of it, when, by whom and why, and what can be done.

    ``kept`` is where its pictures are.
    Raises SQLAlchemyError.
    """
    events = ledger.events(study.job_id)
    others = [
        line
        for line in ledger.lines(job_id=study.job_id, limit=_MOST_LINES)
        if not isinstance(line, Damaged) and line.deed != Deed.STEP
    ]
    spent = sum(study.durations.values())
    pictures = study.text_pictures if visit.role >= Role.OPERATOR else 0
    images = images_of(study, kept) if visit.role >= Role.OPERATOR else ()
    noted = visit.request.query.get("note", "")
    page = render(
        "study.html",
        visit,
        images=images,
        study=study,
        line=_line(study, visit.at),
        steps=_steps(events, study),
        others=others,
        sentence=sentence_of,
        named=partial(actor_for, visit.role),
        durations=[(name, took(seconds), seconds) for name, seconds in study.durations.items()],
        spent=spent,
        spent_told=took(spent),
        measures=_measures(study.measures),
        pictures=range(1, 1 + pictures),
        actions=actions_for(study, visit),
        rerun=can_rerun(study, visit),
        on_desk=study.state is State.QUARANTINED and visit.may(Role.OPERATOR),
        in_work=(
            study.state is State.PROCESSING
            and not study.is_being_withdrawn
            and visit.may(Role.OPERATOR)
        ),
        note=None if study.state in _ARRIVED.get(noted, ()) else NOTES.get(noted),
        undone=noted in UNDONE,
        ended=study.state in ENDED,
        exported=study.state is State.EXPORTED,
        judged="max_recognised" in study.measures,
    )
    if study.state not in ENDED:
        return replace(page, headers=LIVE)
    return replace(page, headers=SCRIPTED) if images else page


def day_of(request: Request, key: str) -> datetime | None:
    """Read a day in UTC from the address, as a browser's date field writes it. Raises BadQuery."""
    text = request.query.get(key, "")
    if not text:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise BadQuery(key) from None


def day_after(request: Request, key: str) -> datetime | None:
    """Read the end of a day in UTC from the address, as ``day_of`` reads its beginning."""
    day = day_of(request, key)
    try:
        return None if day is None else day + timedelta(days=1)
    except OverflowError:
        raise BadQuery(key) from None


def _search_of(request: Request) -> StudySearch:
    reason = request.query.get("reason", "")
    if reason and reason not in set(Reason):
        raise BadQuery("reason")
    name = request.query.get("name", "").strip().lower()
    if len(name) > _NAME_LENGTH:
        raise BadQuery("name")
    target = request.query.get("target", "").strip()
    if target and not TARGET_NAME.fullmatch(target):
        raise BadQuery("target")
    rule = request.query.get("rule", "").strip()
    if "\0" in rule:
        raise BadQuery("rule")
    verified = request.query.get("verified", "")
    if verified not in ("", "no"):
        raise BadQuery("verified")
    return StudySearch(
        state=request.state(),
        reason=Reason(reason) if reason else None,
        since=day_of(request, "since"),
        until=day_after(request, "until"),
        target=target,
        name=name,
        unproved=verified == "no",
        rule=rule,
    )


def _narrows(search: StudySearch) -> bool:
    """Say whether more than the state is asked for; of a state alone the number is known."""
    return search != StudySearch(state=search.state)


def _mark(request: Request, key: str) -> Mark | None:
    text = request.query.get(key, "")
    if not text:
        return None
    try:
        return Mark.read(text)
    except ValueError:
        raise BadQuery(key) from None


def _words(request: Request) -> dict[str, str]:
    keys = ("state", "reason", "target", "since", "until", "name", "verified", "rule")
    return {key: request.query.get(key, "").strip() for key in keys}


def _address(words: Mapping[str, str], **more: str) -> str:
    query = {key: value for key, value in {**words, **more}.items() if value}
    return "?" + urlencode(query)


def _told(total: int) -> str:
    if total > _COUNTED:
        return f"more than {_COUNTED} studies"
    return "1 study" if total == 1 else f"{total} studies"


def _tabs(
    counts: Mapping[State, int], search: StudySearch, words: Mapping[str, str]
) -> tuple[_Tab, ...]:
    """Give the states with the number of all their studies, whatever else is searched for."""
    whole = {**words, "state": ""}
    everything = _Tab(
        name="all",
        title="All studies",
        count=sum(counts.values()),
        href=_address(whole),
        current=search.state is None,
    )
    return (
        everything,
        *(
            _Tab(
                name=state.value,
                title=MEANING[state],
                count=counts.get(state, 0),
                href=_address({**whole, "state": state.value}),
                current=state is search.state,
            )
            for state in State
        ),
    )


def _line(study: StudyRecord, now: datetime) -> _Line:
    if study.state is State.PROCESSING:
        duration = f"for {took((now - study.updated).total_seconds())}"
    elif study.state in ENDED and study.durations:
        duration = f"took {took(sum(study.durations.values()))}"
    else:
        duration = ""
    return _Line(
        study=study,
        meaning=meaning_of(study),
        seen=ago(study.first_seen, now),
        updated=ago(study.updated, now),
        took=duration,
        pictures=study.text_pictures,
    )


def _steps(events: tuple[EventRecord, ...], study: StudyRecord) -> tuple[_Step, ...]:
    """Give the time line, oldest first, with the pauses between its lines.

    Whether anything shows an export is known of the last one alone.
    """
    last = next((one for one in reversed(events) if one.from_state is not one.to_state), None)
    steps, attempt = [], 0
    before: datetime | None = None
    for event in events:
        if event.to_state is State.PENDING and event.from_state in (State.WATCHED, *ENDED):
            attempt = 0
        claimed = event.to_state is State.PROCESSING
        attempt += claimed
        steps.append(
            _Step(
                event,
                meaning_of(study) if event is last else MEANING[event.to_state],
                after="" if before is None else took(max(0.0, (event.at - before).total_seconds())),
                attempt=attempt if claimed else 0,
            )
        )
        before = event.at
    return tuple(steps)


def _measures(measures: Mapping[str, float]) -> tuple[_Measure, ...]:
    return tuple(
        _Measure(title, value, MEANT.get(name, ""))
        for name, title, value in told_measures(measures)
    )
