"""One study: claimed, anonymised whole, exported, read back, reported.

The order is what makes it safe to do twice and to stop anywhere:

1. Claim. Whoever is refused drops the study without a trace.
2. Fetch and anonymise every instance. Nothing is exported before all of them are safe.
3. Store every instance, then read every one back. The new UIDs are functions of the old ones and
   the key, so a second attempt overwrites what an earlier one left.
4. Report. Only when the ledger has taken the report is the study done.

A failed attempt first tells the ledger, then removes the study's instances from the target. In
that order: when two workers hold the same study, because the broker took one of them for lost,
the ledger refuses the one that comes late, and it must not remove what the other exported. For
the same reason nothing is removed while the ledger does not answer; the next attempt overwrites.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from prichexy_worker import pipeline
from prichexy_worker.contract import Reason, State, StudyMessage, StudyReport
from prichexy_worker.errors import Rejected, Retryable
from prichexy_worker.logs import bound_to, where
from prichexy_worker.pipeline import Anonymized, Stopwatch, Tools
from prichexy_worker.ports import ExportTarget, Reporter, StudySource
from prichexy_worker.readback import differences
from prichexy_worker.retry import RetryPolicy

__all__ = ["Anonymizer", "Outcome", "process_study", "summarized"]

_LOG: Final = logging.getLogger(__name__)

Anonymizer = Callable[[bytes, Tools], Anonymized]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended.

    ``state`` is what the ledger was told and accepted, None when it refused or did not answer.
    ``again`` asks for another attempt, to which ``failures`` is handed on (see retry.py).
    """

    state: State | None
    reason: Reason | None = None
    again: bool = False
    failures: int = 0


@dataclass(slots=True)
class _Attempt:
    """What one attempt has come to so far."""

    results: list[Anonymized] = field(default_factory=list)
    stored: bool = False  # something of it may be at the target
    watch: Stopwatch = field(default_factory=Stopwatch)


@dataclass(frozen=True, slots=True)
class _Ledger:
    """The plugin's ledger, on one study at one revision."""

    message: StudyMessage
    reporter: Reporter
    worker_id: str

    def tell(
        self, state: State, reason: Reason | None = None, attempt: _Attempt | None = None
    ) -> bool:
        """Report ``state``; the answer tells whether it was accepted. Raises Retryable."""
        results = [] if attempt is None else attempt.results
        report = StudyReport(
            job_id=self.message.job_id,
            revision=self.message.revision,
            state=state,
            worker_id=self.worker_id,
            reason=reason,
            instances=len(results),
            durations={} if attempt is None else dict(attempt.watch.seconds),
            measures=summarized([result.measures for result in results]),
        )
        return self.reporter.report(report).proceed


def process_study(
    message: StudyMessage,
    source: StudySource,
    target: ExportTarget,
    reporter: Reporter,
    tools: Tools,
    *,
    worker_id: str = "worker",
    max_instances: int = 64,
    failures: int = 0,
    policy: RetryPolicy | None = None,
    anonymize: Anonymizer = pipeline.anonymize,
) -> Outcome:
    """Bring one study to an end, or to another attempt; never raises for what a study holds.

    ``failures`` is the number of attempts that failed before this one.
    """
    ledger = _Ledger(message, reporter, worker_id)
    policy = RetryPolicy() if policy is None else policy
    with bound_to(message.job_id):
        try:
            claimed = ledger.tell(State.PROCESSING)
        except Retryable as error:
            _LOG.warning("the study could not be claimed: %s", error)
            return Outcome(None, error.reason, again=True, failures=failures)
        if not claimed:
            _LOG.info("dropped: the ledger gave no claim")
            return Outcome(None)
        _LOG.info("claimed, revision %d", message.revision)
        attempt = _Attempt()
        failure: Reason
        try:
            _anonymize_all(message, source, tools, anonymize, max_instances, attempt)
            _export_all(target, attempt)
        except Rejected as error:
            return _turn_away(error, ledger, target, attempt, failures)
        except Retryable as error:
            _LOG.warning("the attempt failed: %s", error)
            failure = error.reason
        except Exception as error:  # noqa: BLE001 - whatever it was, the study must not be lost
            _LOG.error("the attempt met an unexpected error: %s", where(error))
            failure = Reason.UNEXPECTED
        else:
            return _finish(ledger, attempt, failures)
        last = policy.is_last(failures)
        return _give_back(failure, ledger, target, attempt, failures, last=last)


def _anonymize_all(
    message: StudyMessage,
    source: StudySource,
    tools: Tools,
    anonymize: Anonymizer,
    max_instances: int,
    attempt: _Attempt,
) -> None:
    """Fill ``attempt.results`` with every instance. Raises Rejected, Retryable.

    Of a study that may have been exported before (at an earlier revision), all instances are
    looked at even after one is turned away, so that the earlier ones can be withdrawn.
    """
    with attempt.watch.step("fetch"):
        before = source.snapshot(message.study_id)
    if len(before.instances) > max_instances:
        detail = f"{len(before.instances)}, of which {max_instances} are allowed"
        raise Rejected(Reason.TOO_MANY_INSTANCES, detail)
    rejections: list[Rejected] = []
    for instance in before.instances:
        with attempt.watch.step("fetch"):
            content = source.fetch(instance)
        try:
            attempt.results.append(anonymize(content, tools))
        except Rejected as error:
            rejections.append(error)
            if message.revision == 1:
                break
    for result in attempt.results:
        for step, seconds in result.durations.items():
            attempt.watch.add(step, seconds)
    with attempt.watch.step("fetch"):
        unchanged = source.snapshot(message.study_id) == before
    if not before.instances or not unchanged:
        raise Retryable(Reason.CHANGED_MEANWHILE)
    if rejections:
        raise rejections[0]
    if len({(result.patient_id, result.study_uid) for result in attempt.results}) > 1:
        raise Rejected(Reason.MIXED_PATIENTS)


def _export_all(target: ExportTarget, attempt: _Attempt) -> None:
    """Store every instance and read every one back. Raises Retryable."""
    attempt.stored = True
    with attempt.watch.step("store"):
        for result in attempt.results:
            target.store(result)
    with attempt.watch.step("verify"):
        for result in attempt.results:
            differing = differences(result.content, target.fetch(result))
            if differing:
                raise Retryable(Reason.READ_BACK_DIFFERS, ", ".join(differing[:20]))


def _finish(ledger: _Ledger, attempt: _Attempt, failures: int) -> Outcome:
    """Report the export. What is at the target stays there, whatever the ledger answers."""
    try:
        accepted = ledger.tell(State.EXPORTED, attempt=attempt)
    except Retryable as error:
        _LOG.warning("exported, but the ledger could not be told: %s", error)
        return Outcome(None, error.reason, again=True, failures=failures)
    if not accepted:
        _LOG.info("exported, but the ledger had moved on")
        return Outcome(None)
    _LOG.info("exported %d instances", len(attempt.results))
    return Outcome(State.EXPORTED)


def _turn_away(
    error: Rejected, ledger: _Ledger, target: ExportTarget, attempt: _Attempt, failures: int
) -> Outcome:
    """Report the quarantine and withdraw what an earlier revision may have exported."""
    # A study that is gone leaves nothing for a human to decide.
    state = State.FAILED if error.reason is Reason.GONE else State.QUARANTINED
    try:
        accepted = ledger.tell(state, error.reason)
    except Retryable as unreachable:
        _LOG.warning("turned away, but the ledger could not be told: %s", unreachable)
        return Outcome(None, unreachable.reason, again=True, failures=failures)
    if not accepted:
        _LOG.info("turned away, but the ledger had moved on")
        return Outcome(None)
    _LOG.info("%s: %s", state.value, error)
    if ledger.message.revision > 1:
        _withdraw(target, attempt.results)
    return Outcome(state, error.reason)


def _give_back(
    reason: Reason,
    ledger: _Ledger,
    target: ExportTarget,
    attempt: _Attempt,
    failures: int,
    *,
    last: bool,
) -> Outcome:
    """Report a failed attempt, then leave nothing of the study at the target."""
    state = State.FAILED if last else State.QUEUED
    try:
        accepted = ledger.tell(state, reason)
    except Retryable as error:
        # The attempt is not counted: the ledger would never hear of the last one.
        _LOG.warning("failed, but the ledger could not be told: %s", error)
        return Outcome(None, reason, again=True, failures=failures)
    if not accepted:
        _LOG.info("failed, but the ledger had moved on")
        return Outcome(None)
    if attempt.stored:
        _withdraw(target, attempt.results)
    if last:
        _LOG.error("given up after %d failed attempts: %s", failures + 1, reason.value)
        return Outcome(state, reason)
    return Outcome(state, reason, again=True, failures=failures + 1)


def _withdraw(target: ExportTarget, results: Iterable[Anonymized]) -> None:
    """Remove all of the study from the target, as far as it answers."""
    left = 0
    for result in results:
        try:
            target.withdraw(result)
        except Retryable:
            left += 1
    if left:
        _LOG.error("%d instances may be left at the export target", left)


def summarized(measures: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Give one figure a name for a whole study: the worst of its images, else their mean.

    ``max_…`` is the largest, ``psnr_…`` the smallest, all others the mean. A figure that is not
    finite (the PSNR of an image that did not change) has no place in JSON and is left out.
    """
    by_name: dict[str, list[float]] = {}
    for figures in measures:
        for name, value in figures.items():
            if math.isfinite(value):
                by_name.setdefault(name, []).append(float(value))
    summary: dict[str, float] = {}
    for name, values in by_name.items():
        if name.startswith("max_"):
            summary[name] = max(values)
        elif name.startswith("psnr_"):
            summary[name] = min(values)
        else:
            summary[name] = math.fsum(values) / len(values)
    return summary
