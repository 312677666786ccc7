"""Renders the pages: frozen values in, HTML out. They work without any script."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from importlib import resources
from typing import Final
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined

from prichexy_plugin.backfill import DEFAULT_RATE, MAX_RATE
from prichexy_plugin.dashboard.http import Request, Response
from prichexy_plugin.dashboard.view import Gateway, Overview
from prichexy_plugin.records import StudyRecord, WorkerRecord
from prichexy_worker.contract import ANNOUNCE_INTERVAL_SECONDS, ENDED, SOFTWARE_VERSION, State
from prichexy_worker.retry import Blame

__all__ = ["ago", "static_file", "studies_page", "took"]

_HTML: Final = "text/html; charset=utf-8"
_PAGE: Final = 50
#: A worker that missed three announcements is shown as silent.
_SILENT_AFTER: Final = timedelta(seconds=3 * ANNOUNCE_INTERVAL_SECONDS)
_STATIC: Final[Mapping[str, str]] = {"dashboard.css": "text/css", "icon.svg": "image/svg+xml"}

#: What each state means, for people.
_MEANING: Final[Mapping[State, str]] = {
    State.WATCHED: "Arrived, still receiving instances",
    State.PENDING: "Taken in, not yet handed to the broker",
    State.QUEUED: "Waiting for a worker",
    State.PROCESSING: "A worker has it",
    State.EXPORTED: "At the export target, read back and compared",
    State.QUARANTINED: "Could not be made safe; a human decides",
    State.FAILED: "Given up after several attempts",
    State.REJECTED: "Not taken in",
}


#: Where to look when a circuit is open.
_ADVICE: Final[Mapping[Blame, str]] = {
    Blame.SOURCE: "Check that workers reach this Orthanc with WorkerUser's password.",
    Blame.TARGET: "Check the export target: does it run, is its disk full, is the password right?",
    Blame.WORKER: "The workers' logs name the error by the job id.",
}


@dataclass(frozen=True, slots=True)
class Tab:
    """One choice of the filter."""

    name: str
    title: str
    count: int
    href: str
    current: bool


@dataclass(frozen=True, slots=True)
class Line:
    """One study of the list, ready to be shown; ``pictures`` are numbered from 1."""

    study: StudyRecord
    meaning: str
    seen: str
    updated: str
    took: str
    pictures: range


@dataclass(frozen=True, slots=True)
class WorkerLine:
    """One worker, ready to be shown."""

    worker: WorkerRecord
    seen: str
    silent: bool


def studies_page(
    overview: Overview, gateway: Gateway | None, request: Request, *, token: str
) -> Response:
    """List the studies with their state, time and reason; ``token`` goes into the page's forms.

    Raises BadQuery, SQLAlchemyError.
    """
    chosen = request.state()
    offset = request.number("offset", default=0, minimum=0)
    total = 0
    lines: tuple[Line, ...] = ()
    if gateway is not None and gateway.ledger is not None and overview.ledger == "ok":
        page = gateway.ledger.studies(state=chosen, limit=_PAGE, offset=offset)
        total = page.total
        lines = tuple(_line(study, overview.at) for study in page.studies)
    workers = tuple(_worker_line(worker, overview.at) for worker in overview.workers)
    models = {worker.announcement.model for worker in overview.workers}
    untrained = {model.statement for model in models if model.evidence == "untrained"}
    trained = {model.statement for model in models if model.evidence != "untrained"}
    body = (
        _environment()
        .get_template("studies.html")
        .render(
            overview=overview,
            version=SOFTWARE_VERSION,
            tabs=_tabs(overview.counts, chosen),
            chosen=chosen,
            lines=lines,
            workers=workers,
            living=sum(not worker.silent for worker in workers),
            untrained=sorted(untrained),
            trained=sorted(trained),
            waiting=overview.counts.get(State.PENDING, 0),
            total=total,
            first=offset + 1,
            last=offset + len(lines),
            newer=_address(chosen, max(0, offset - _PAGE)) if offset else None,
            older=_address(chosen, offset + _PAGE) if offset + _PAGE < total else None,
            here=_address(chosen, offset),
            ago=ago,
            token=token,
            default_rate=DEFAULT_RATE,
            max_rate=MAX_RATE,
            blame_advice=_ADVICE,
            now=overview.at.strftime("%Y-%m-%d %H:%M:%S UTC"),
        )
    )
    return Response(200, _HTML, body)


def static_file(name: str) -> Response:
    """Give a style sheet or an icon; only those that are named here."""
    mime = _STATIC.get(name)
    if mime is None:
        return Response(404, "text/plain; charset=utf-8", "There is no such file.\n")
    file = resources.files("prichexy_plugin.dashboard") / "static" / name
    return Response(200, mime, file.read_text(encoding="utf-8"))


def ago(past: datetime, now: datetime) -> str:
    """Say how long ago, in one unit; "just now" below five seconds and for the future."""
    seconds = (now - past).total_seconds()
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (5, "s")):
        if seconds >= size:
            return f"{seconds // (1 if unit == 's' else size):.0f} {unit} ago"
    return "just now"


def took(seconds: float) -> str:
    """Write a duration in seconds with the precision that people use."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _line(study: StudyRecord, now: datetime) -> Line:
    if study.state is State.PROCESSING:
        duration = f"for {took((now - study.updated).total_seconds())}"
    elif study.state in ENDED and study.durations:
        duration = f"took {took(sum(study.durations.values()))}"
    else:
        duration = ""
    return Line(
        study=study,
        meaning=_MEANING[study.state],
        seen=ago(study.first_seen, now),
        updated=ago(study.updated, now),
        took=duration,
        pictures=_pictures(study),
    )


def _pictures(study: StudyRecord) -> range:
    """Give the numbers of the pictures that a human must look at."""
    count = study.measures.get("text_pictures", 0) if study.state is State.QUARANTINED else 0
    return range(1, 1 + int(count))


def _worker_line(worker: WorkerRecord, now: datetime) -> WorkerLine:
    return WorkerLine(
        worker=worker, seen=ago(worker.seen, now), silent=now - worker.seen > _SILENT_AFTER
    )


def _tabs(counts: Mapping[State, int], chosen: State | None) -> tuple[Tab, ...]:
    everything = Tab(
        name="all",
        title="All studies",
        count=sum(counts.values()),
        href=_address(None, 0),
        current=chosen is None,
    )
    return (
        everything,
        *(
            Tab(
                name=state.value,
                title=_MEANING[state],
                count=counts.get(state, 0),
                href=_address(state, 0),
                current=state is chosen,
            )
            for state in State
        ),
    )


def _address(state: State | None, offset: int) -> str:
    query = {"state": state.value if state else "", "offset": str(offset) if offset else ""}
    return "?" + urlencode({key: value for key, value in query.items() if value})


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("prichexy_plugin.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
