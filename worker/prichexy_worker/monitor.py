"""How this worker is doing, for whoever watches it; nothing of a study is in it.

``docs/operating.md`` names the metrics and says what the two answers are good for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from prichexy_worker.contract import WorkerAnnouncement
from prichexy_worker.study import Outcome

__all__ = ["Attempt", "Monitor"]

Clock = Callable[[], float]

_BUCKETS: Final = (1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
#: A study that the ledger took from this worker, or of which it could not be told.
_UNTOLD: Final = "untold"


class Attempt:
    """One study under way; ``ended`` is told how it came out."""

    def __init__(self) -> None:
        self.outcome: Outcome | None = None

    def ended(self, outcome: Outcome) -> None:
        """Keep how the attempt came out."""
        self.outcome = outcome


class Monitor:
    """Counts attempts, and answers whether the worker lives and whether it can take a study.

    ``longest`` is how many seconds an attempt may take, ``heard`` says whether the plugin took the
    last announcement, and a worker that waits calls ``waits`` at least every ``wait_seconds``. Any
    thread may call any method.
    """

    def __init__(
        self,
        *,
        longest: float,
        wait_seconds: float,
        heard: Callable[[], bool],
        clock: Clock = time.monotonic,
    ) -> None:
        self._longest = longest
        # Three calls may be late before it is said that none comes.
        self._patience = 3 * wait_seconds
        self._heard = heard
        self._clock = clock
        self._lock = threading.Lock()
        self._busy_since: float | None = None
        self._waited: float | None = None
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._attempts = Counter(
            "prichexy_worker_attempts",
            "Attempts of this worker at studies, by what the ledger was told.",
            ("state", "reason"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "prichexy_worker_attempt_seconds",
            "What an attempt took, from the claim to the report.",
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._info = Info("prichexy_worker", "This worker and its model.", registry=self._registry)
        for name, text, value in (
            (
                "busy_seconds",
                "How long the study under way has been so; 0 with none.",
                self._busy,
            ),
            ("heard", "1 when the plugin took the last announcement.", self._hears),
            ("ready", "1 when it can take a study, or works on one.", self._is_ready),
        ):
            gauge = Gauge(f"prichexy_worker_{name}", text, registry=self._registry)
            gauge.set_function(value)

    def announced(self, worker: WorkerAnnouncement) -> None:
        """Take in who this worker is from now on."""
        self._info.info(
            {
                "worker": worker.worker_id,
                "software": worker.software,
                "device": worker.device,
                "model": worker.model.digest,
                "model_version": worker.model.model_version,
                "evidence": worker.model.evidence,
            }
        )

    def waits(self) -> None:
        """Hear that the worker waits for a study, with a broker that it is connected to."""
        self._waited = self._clock()

    @contextmanager
    def attempt(self) -> Iterator[Attempt]:
        """Count the attempt in the block, also when it raises."""
        attempt = Attempt()
        start = self._clock()
        with self._lock:
            self._busy_since = start
        try:
            yield attempt
        finally:
            with self._lock:
                self._busy_since = None
            self.waits()
            self._seconds.observe(self._clock() - start)
            self._attempts.labels(*_told(attempt.outcome)).inc()

    def trouble(self) -> str | None:
        """Say why this process should be started anew, None when it should not."""
        busy = self._busy()
        if busy > self._longest:
            allowed = f"{self._longest:.0f} are allowed"
            return f"a study has been under way for {busy:.0f} seconds; {allowed}"
        return None

    def absence(self) -> str | None:
        """Say why no study can be taken now, None when one can, or one is under way."""
        trouble = self.trouble()
        if trouble is not None:
            return trouble
        if not self._heard():
            return "the plugin does not hear this worker"
        with self._lock:
            busy, waited = self._busy_since is not None, self._waited
        if not busy and (waited is None or self._clock() - waited > self._patience):
            return "not connected to the broker"
        return None

    def exposition(self) -> bytes:
        """Give all of it in Prometheus' text format."""
        return generate_latest(self._registry)

    def _busy(self) -> float:
        with self._lock:
            since = self._busy_since
        return 0.0 if since is None else self._clock() - since

    def _hears(self) -> float:
        return float(self._heard())

    def _is_ready(self) -> float:
        return float(self.absence() is None)


def _told(outcome: Outcome | None) -> tuple[str, str]:
    state = _UNTOLD if outcome is None or outcome.state is None else outcome.state.value
    reason = "" if outcome is None or outcome.reason is None else outcome.reason.value
    return state, reason
