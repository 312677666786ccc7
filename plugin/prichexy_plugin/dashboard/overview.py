"""The first page: what needs somebody now, and how the gateway has been doing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from prichexy_plugin.dashboard.backfilling import BackfillPart
from prichexy_plugin.dashboard.frame import Visit, render
from prichexy_plugin.dashboard.held import OF_ONE_REASON, HeldLine, held_lines
from prichexy_plugin.dashboard.http import LIVE, Response
from prichexy_plugin.dashboard.models_in_use import models_in_use
from prichexy_plugin.dashboard.needs import is_silent, needs_of
from prichexy_plugin.dashboard.plots import Plot, latency, percentile, throughput
from prichexy_plugin.dashboard.rules import TargetLine, target_lines
from prichexy_plugin.dashboard.view import Overview
from prichexy_plugin.dashboard.wording import ago, amount, took
from prichexy_plugin.disk import Disk
from prichexy_plugin.history import DAY, PLOTTED, History
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.records import Span, WorkerRecord
from prichexy_plugin.security import Role
from prichexy_worker.contract import State

__all__ = ["overview_page"]

#: So many workers, and models of theirs, are listed.
_LISTED: Final = 20


@dataclass(frozen=True, slots=True)
class _WorkerLine:
    worker: WorkerRecord
    seen: str
    silent: bool
    working: int


@dataclass(frozen=True, slots=True)
class _SpanLine:
    begin: datetime
    exported: int
    quarantined: int
    failed: int
    median: str
    most: str


@dataclass(frozen=True, slots=True)
class _Chart:
    """Two plots over the same spans, and their figures for who cannot see plots."""

    name: str
    plots: tuple[Plot, Plot]
    lines: tuple[_SpanLine, ...]


def overview_page(
    overview: Overview,
    ledger: Ledger | None,
    disk: Disk | None,
    visit: Visit,
    *,
    backfill: BackfillPart | None,
    history: History,
) -> Response:
    """Show it, with what can be known: a ledger that fails takes its own part away only."""
    charts: tuple[_Chart, ...] = ()
    working: dict[str, int] = {}
    oldest = None
    targets: tuple[TargetLine, ...] = ()
    held: list[HeldLine] = []
    if ledger is not None and overview.ledger == "ok":
        try:
            charts = tuple(
                _chart(
                    "day" if step == DAY else "hour", history.spans(ledger, visit.at, step, count)
                )
                for step, count in PLOTTED
            )
            for state in OF_ONE_REASON:
                held += held_lines(ledger, state, visit)
            working, oldest = ledger.working(), ledger.oldest_waiting()
            targets = tuple(target_lines(overview, ledger, visit))
        except SQLAlchemyError:
            charts = ()
    workers = [
        _WorkerLine(
            worker,
            ago(worker.seen, visit.at),
            is_silent(worker, visit.at),
            working.get(worker.announcement.worker_id, 0),
        )
        for worker in overview.workers
    ]
    waiting = overview.counts.get(State.PENDING, 0) + overview.counts.get(State.QUEUED, 0)
    page = render(
        "overview.html",
        visit,
        overview=overview,
        needs=needs_of(overview, disk=disk, decides=visit.may(Role.OPERATOR)),
        held=held,
        decides=visit.may(Role.OPERATOR),
        backfill=backfill,
        charts=charts,
        # Those that live first.
        workers=sorted(workers, key=lambda line: line.silent)[:_LISTED],
        more_workers=max(0, len(workers) - _LISTED),
        living=sum(not line.silent for line in workers),
        models=models_in_use(overview)[:_LISTED],
        waiting=waiting,
        processing=overview.counts.get(State.PROCESSING, 0),
        oldest=None if oldest is None else ago(oldest, visit.at),
        recorded=sum(overview.counts.values()),
        counts=[(state.value, overview.counts.get(state, 0)) for state in State],
        targets=targets,
        disk=None if disk is None else (amount(disk.free), amount(disk.total)),
        used=0.0 if disk is None or not disk.total else 1 - disk.free / disk.total,
    )
    return replace(page, headers=LIVE)


def _chart(name: str, spans: tuple[Span, ...]) -> _Chart:
    return _Chart(
        name,
        plots=(
            throughput(spans, f"Studies that ended in each {name}"),
            latency(spans, f"From arrival to export, by {name}"),
        ),
        lines=tuple(_span_line(span) for span in reversed(spans)),
    )


def _span_line(span: Span) -> _SpanLine:
    median, most = percentile(span.seconds, 0.5), percentile(span.seconds, 0.95)
    return _SpanLine(
        span.begin,
        exported=span.ended.get(State.EXPORTED, 0),
        quarantined=span.ended.get(State.QUARANTINED, 0),
        failed=span.ended.get(State.FAILED, 0),
        median="–" if median is None else took(median),
        most="–" if most is None else took(most),
    )
