"""The gateway in numbers, for Prometheus. No label holds anything of a study.

Gauges are of the moment of the question. Counters and histograms start at zero with the plugin, as
Prometheus expects, and count every step that is in the audit trail since. ``docs/operating.md``
names them all.
"""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from prichexy_plugin.backfill import Backfill
from prichexy_plugin.dashboard.http import Response
from prichexy_plugin.dashboard.view import Overview
from prichexy_plugin.disk import Disk
from prichexy_plugin.event_feed import EventFeed, Happened
from prichexy_plugin.pauses import Stage
from prichexy_plugin.records import WorkerRecord
from prichexy_plugin.sweep import Cause
from prichexy_plugin.trail import ChainState
from prichexy_worker.contract import (
    ANNOUNCE_INTERVAL_SECONDS,
    CONTRACT_VERSION,
    ENDED,
    SOFTWARE_VERSION,
    State,
)
from prichexy_worker.retry import Blame

__all__ = ["Metrics", "gauges", "metrics_response"]

#: Prometheus' text format.
_MIME: Final = "text/plain; version=0.0.4; charset=utf-8"
_Code = TypeVar("_Code", bound=StrEnum)
#: A worker that missed three announcements is taken for gone.
_LIVES: Final = timedelta(seconds=4 * ANNOUNCE_INTERVAL_SECONDS)
_MINUTE: Final = 60.0
_HOUR: Final = 3600.0
_STUDY_BUCKETS: Final = (
    *(10.0, 30.0, _MINUTE, 2 * _MINUTE, 5 * _MINUTE, 10 * _MINUTE, 30 * _MINUTE),
    *(_HOUR, 4 * _HOUR, 24 * _HOUR, 7 * 24 * _HOUR),
)
_STEP_BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """Counts what ``feed`` tells, and gives it together with the gauges; any thread may ask."""

    def __init__(self, feed: EventFeed) -> None:
        self._feed = feed
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._steps = Counter(
            "prichexy_study_steps",
            "Steps of studies from one state to another.",
            ("before", "after", "reason"),
            registry=self._registry,
        )
        self._studies = Histogram(
            "prichexy_study_seconds",
            "From the first instance of a study to its end, or from its return to its next end.",
            ("end",),
            buckets=_STUDY_BUCKETS,
            registry=self._registry,
        )
        self._work = Histogram(
            "prichexy_work_seconds",
            "What a study's last attempt took, by the worker's step.",
            ("step",),
            buckets=_STEP_BUCKETS,
            registry=self._registry,
        )
        for end in ENDED:
            # A rate needs the zero before the first one.
            self._studies.labels(end.value)

    def count(self) -> None:
        """Take in what happened since the last time. Raises SQLAlchemyError."""
        for one in self._feed.new():
            self._count(one)

    def _count(self, one: Happened) -> None:
        before = "" if one.before is None else one.before.value
        reason = "" if one.reason is None else one.reason.value
        self._steps.labels(before, one.after.value, reason).inc()
        if one.seconds is not None:
            self._studies.labels(one.after.value).observe(one.seconds)
        for step, seconds in one.durations.items():
            self._work.labels(step).observe(seconds)

    def exposition(self) -> str:
        """Give the counters and histograms in Prometheus' text format."""
        return generate_latest(self._registry).decode()


class _Families(Collector):
    """Lets ``generate_latest`` write families that were made for one answer."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def metrics_response(overview: Overview, disk: Disk | None, metrics: Metrics | None) -> Response:
    """Answer Prometheus; without ``metrics`` or a working ledger with the gauges alone."""
    text = gauges(overview, disk)
    if metrics is not None:
        with suppress(SQLAlchemyError):  # which the gauges tell of
            metrics.count()
        text += metrics.exposition()
    return Response(200, _MIME, text)


def gauges(overview: Overview, disk: Disk | None) -> str:
    """Give how the gateway is now in Prometheus' text format."""
    return generate_latest(_Families(_gauges(overview, disk))).decode()


def _gauges(overview: Overview, disk: Disk | None) -> Iterator[Metric]:
    yield InfoMetricFamily(
        "prichexy",
        "The plugin's version, and that of its messages.",
        value={"software": SOFTWARE_VERSION, "contract": str(CONTRACT_VERSION)},
    )
    yield _gauge(
        "problems",
        "Faults of the configuration or of the plugin's threads, which keep all studies waiting.",
        len(overview.problems) + len(overview.troubles),
    )
    yield _gauge("ledger_up", "1 when the ledger works.", overview.ledger == "ok")
    yield _gauge("broker_up", "1 when the broker answered last time.", overview.broker.reachable)
    if disk is not None:
        yield _gauge("disk_free_bytes", "Left on the disk of Orthanc's storage.", disk.free)
        yield _gauge("disk_size_bytes", "Size of the disk of Orthanc's storage.", disk.total)
    if overview.ledger != "ok":
        # No numbers rather than zeros: nothing is known.
        return
    yield _by(
        "studies", "Studies by their state.", "state", State, lambda s: overview.counts.get(s, 0)
    )
    yield _gauge(
        "studies_unreadable",
        "Studies that Orthanc's storage does not give now, and that are looked at again.",
        overview.unreadable,
    )
    late = Counts[Cause]()
    for group in overview.late:
        late[group.cause] += group.count
    yield _by(
        "studies_late",
        "Studies that have waited for unusually long, by cause.",
        "cause",
        Cause,
        lambda cause: late[cause],
    )
    is_open = {circuit.blame for circuit in overview.circuits}
    yield _by(
        "circuit_open",
        "1 when the handing out is stopped for this reason.",
        "blame",
        Blame,
        lambda blame: blame in is_open,
    )
    yield _gauge(
        "workers_with_another_key",
        "Workers that get no study for their pseudonyms' key; their studies wait for others.",
        len(overview.other_keys),
    )
    yield from _audit(overview.audit, overview.at)
    paused = {pause.stage for pause in overview.pauses}
    yield _by(
        "paused",
        "1 while somebody has paused it; target: the export to one or more targets.",
        "stage",
        Stage,
        lambda stage: stage in paused,
    )
    yield from _backfill(overview.backfill)
    yield from _workers(overview.workers, overview.at)


def _audit(chain: ChainState | None, now: datetime) -> Iterator[Metric]:
    if chain is None:
        return
    yield _gauge("audit_lines", "Lines of the audit trail in the ledger.", chain.lines)
    if chain.told is not None:
        since = chain.untold_since
        yield _gauge(
            "audit_untold_lines",
            "Lines of the audit trail that the syslog server has yet to be told.",
            chain.head.number - chain.told,
        )
        yield _gauge(
            "audit_untold_seconds",
            "How long the first of them has waited; 0 with none.",
            0 if since is None else (now - since).total_seconds(),
        )


def _backfill(walk: Backfill | None) -> Iterator[Metric]:
    running = walk is not None and walk.ended is None
    yield _gauge("backfill_running", "1 while a backfill is under way.", running)
    if walk is not None:
        yield _gauge("backfill_studies_seen", "Studies that the last backfill read.", walk.seen)
        yield _gauge(
            "backfill_studies",
            "Studies that Orthanc held when it began.",
            walk.total,
        )


def _workers(workers: Iterable[WorkerRecord], now: datetime) -> Iterator[Metric]:
    workers = tuple(workers)
    yield _gauge(
        "workers_alive",
        "Workers that the plugin has heard of lately.",
        sum(abs(now - record.seen) < _LIVES for record in workers),
    )
    seen = _named(
        "announced_worker_seen_seconds", "Since the plugin last heard of the worker.", ("worker",)
    )
    info = InfoMetricFamily(
        "prichexy_announced_worker",
        "What the worker said of itself.",
        labels=("worker", "software", "device", "model", "model_version", "evidence"),
    )
    for record in workers:
        worker, model = record.announcement, record.announcement.model
        seen.add_metric((worker.worker_id,), (now - record.seen).total_seconds())
        about = (worker.software, worker.device, model.digest, model.model_version, model.evidence)
        info.add_metric((worker.worker_id, *about), {})
    yield seen
    yield info


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"prichexy_{name}", help_text, value=float(value))


def _named(name: str, help_text: str, labels: tuple[str, ...]) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"prichexy_{name}", help_text, labels=labels)


def _by(
    name: str, help_text: str, label: str, codes: type[_Code], value: Callable[[_Code], float]
) -> Metric:
    """Give a gauge with one label, and all values of it."""
    family = _named(name, help_text, (label,))
    for code in codes:
        family.add_metric((code.value,), float(value(code)))
    return family
