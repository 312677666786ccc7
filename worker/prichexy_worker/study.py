"""One study: claimed, anonymised whole, exported, read back, reported.

The order is what makes it safe to do twice and to stop anywhere:

1. Claim. Whoever is refused drops the study without a trace. The claim's number goes with every
   report: once another worker has claimed the study, or it has a newer revision, ours are void.
2. Fetch and anonymise every instance. Nothing is exported before all of them are safe.
3. Store every instance, asking before each whether the claim still holds; then read every one
   back; then take away the images that an earlier revision or attempt exported and that the study
   no longer holds, and all that was exported of it under a key that was retired since. The new
   UIDs are functions of the old ones and the key, so a second attempt overwrites what an earlier
   one left.
4. Report. Only when the ledger has taken the report is the study done.

An attempt that comes to no export asks once more whether its claim holds, then withdraws, then
reports. Without the claim, or without an answer, it does nothing: the study is another's, whose
export it must not remove. After the report it would be too late: the study would be open to
another worker, or shown as withdrawn while it is not. An attempt ends before the broker takes its
worker for lost, so between the question and the withdrawal no other can have exported the study.

What is withdrawn:

* QUARANTINED, FAILED: the study as a whole, by its pseudonymous StudyInstanceUID; that is also
  what an earlier revision or a killed attempt left of it, and instances that are now turned away.
  A target that does not let go of it makes this a failed attempt: the end is reported when it is
  true. Only the last attempt reports it anyway, and logs that something may be left.
* QUEUED at revision 1, once storing has begun: the study as a whole. No earlier revision was
  exported, so nothing is lost, and no half study waits for the next attempt.
* QUEUED at a later revision: the instances that the target lacked before this attempt. Those of
  the earlier revision were verified and nothing is wrong with them: they stay.
* QUEUED before storing has begun: nothing. The target holds what it held.

How often a study is tried is the plugin's to say, with each claim (see retry.py). A claim with no
attempt left is none: whoever got it opens no instance, for the study may have killed the workers
before, withdraws the study as a whole and reports FAILED. The last attempt ends the study itself,
except where the ingest Orthanc or the target was to blame: that may not have counted.

A study whose StudyInstanceUID another patient has in the source, too, is not opened. At its first
attempt nothing is withdrawn: what bears that name at the target is the other patient's, and is
judged when that study comes again.

A study that is gone from its source cannot be named any more, as its name at the target is a
function of its own StudyInstanceUID: what an earlier attempt left then stays, and the log says so.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from prichexy_worker import pipeline
from prichexy_worker.contract import (
    MOST_PICTURES,
    Claim,
    Reason,
    State,
    StudyMessage,
    StudyReport,
    TextPictures,
)
from prichexy_worker.errors import Rejected, Retryable
from prichexy_worker.logs import bound_to, where
from prichexy_worker.pipeline import Anonymized, Clock, Stopwatch, Tools
from prichexy_worker.ports import ExportTarget, Reporter, StudySource
from prichexy_worker.readback import differences
from prichexy_worker.retry import BLAMED, Blame
from prichexy_worker.summary import summarized

__all__ = ["Anonymizer", "Outcome", "process_study"]

_LOG: Final = logging.getLogger(__name__)

Anonymizer = Callable[[bytes, Tools], Anonymized]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended.

    ``state`` is what the ledger was told and accepted, None when it refused or did not answer.
    ``again`` asks for another attempt.
    """

    state: State | None
    reason: Reason | None = None
    again: bool = False


class _ClaimLost(Exception):
    """The study is another worker's now, or of a newer revision."""


@dataclass(slots=True)
class _Attempt:
    """What one attempt has come to so far."""

    first: bool = True  # no attempt before it can have left anything at the target
    study_uid: str = ""  # the pseudonymous one; blank while the source has not told
    retired_uids: frozenset[str] = frozenset()  # those under keys that were retired
    results: list[Anonymized] = field(default_factory=list)
    added: list[Anonymized] = field(default_factory=list)  # not at the target before
    stored: bool = False  # something of it may be at the target
    pictures: tuple[bytes, ...] = field(default=(), repr=False)  # of what a human must look at
    watch: Stopwatch = field(default_factory=Stopwatch)

    def study_uids(self) -> set[str]:
        """Give the study's name at the target; nothing when it was never learnt."""
        if self.study_uid:
            return {self.study_uid, *self.retired_uids}
        return {result.study_uid for result in self.results}


@dataclass(frozen=True, slots=True)
class _Ledger:
    """The plugin's ledger, on one study at one revision, under the claim of this number."""

    message: StudyMessage
    reporter: Reporter
    worker_id: str
    key_id: str
    profile: str
    number: int = 0
    last: bool = False  # the study ends with this attempt

    def tell(
        self,
        state: State,
        reason: Reason | None = None,
        attempt: _Attempt | None = None,
        measures: Mapping[str, float] = MappingProxyType({}),
    ) -> Claim:
        """Report ``state``; the answer tells whether it was accepted. Raises Retryable."""
        results = [] if attempt is None else attempt.results
        report = StudyReport(
            job_id=self.message.job_id,
            revision=self.message.revision,
            attempt=self.number,
            state=state,
            worker_id=self.worker_id,
            reason=reason,
            instances=len(results),
            durations={} if attempt is None else dict(attempt.watch.seconds),
            measures={**summarized([result.measures for result in results]), **measures},
            key_id=self.key_id,
            profile=self.profile,
        )
        return self.reporter.report(report)

    def show(self, pictures: tuple[bytes, ...]) -> int:
        """Have pictures kept beside the originals; gives how many are.

        A study in doubt goes to quarantine with its pictures or without them. Raises _ClaimLost.
        """
        if not pictures:
            return 0
        message = self.message
        shown = TextPictures(
            message.job_id, message.revision, self.number, pictures[:MOST_PICTURES]
        )
        try:
            if not self.reporter.show(shown).proceed:
                raise _ClaimLost
        except Retryable as error:
            _LOG.warning("the pictures of what is in doubt are not kept: %s", error)
            return 0
        return len(shown.pictures)

    def confirm(self) -> None:
        """Return when the claim still holds. Raises _ClaimLost, Retryable."""
        if not self.tell(State.PROCESSING).proceed:
            raise _ClaimLost


@dataclass(frozen=True, slots=True)
class _Deadline:
    """When the attempt has to be over, on ``clock``."""

    at: float
    clock: Clock

    def check(self) -> None:
        """Raise Retryable (TOOK_TOO_LONG) when the time is over."""
        if self.clock() > self.at:
            raise Retryable(Reason.TOOK_TOO_LONG)


def process_study(
    message: StudyMessage,
    source: StudySource,
    target: ExportTarget,
    reporter: Reporter,
    tools: Tools,
    *,
    worker_id: str = "worker",
    max_instances: int = 64,
    max_seconds: float = math.inf,
    anonymize: Anonymizer = pipeline.anonymize,
    clock: Clock = time.monotonic,
) -> Outcome:
    """Bring one study to an end, or to another attempt; never raises for what a study holds.

    ``max_seconds`` is looked at between instances and steps: a step under way is ended first.
    """
    key_id, profile = tools.pseudonyms.key_id, tools.profile.digest
    ledger = _Ledger(message, reporter, worker_id, key_id, profile)
    deadline = _Deadline(clock() + max_seconds, clock)
    with bound_to(message.job_id):
        try:
            claim = ledger.tell(State.PROCESSING)
        except Retryable as error:
            _LOG.warning("the study could not be claimed: %s", error)
            return Outcome(None, error.reason, again=True)
        if not claim.proceed:
            _LOG.info("dropped: the ledger gave no claim")
            return Outcome(None)
        _LOG.info("claimed, revision %d", message.revision)
        last = claim.left == 1 or claim.final
        ledger = replace(ledger, number=claim.attempt, last=last)
        attempt = _Attempt(first=claim.attempt == message.revision == 1)
        if claim.left == 0:
            return _give_up(source, target, ledger, attempt, tools)
        state, reason = State.FAILED if last else State.QUEUED, Reason.UNEXPECTED
        try:
            _anonymize_all(message, source, tools, anonymize, max_instances, attempt, deadline)
            _export_all(target, ledger, attempt, deadline)
        except _ClaimLost:
            _LOG.info("dropped: the claim holds no longer")
            return Outcome(None)
        except Rejected as error:
            _LOG.info("turned away: %s", error)
            # A study that is gone leaves nothing for a human to decide.
            gone = error.reason is Reason.GONE
            state, reason = State.FAILED if gone else State.QUARANTINED, error.reason
            attempt.pictures = error.pictures
        except Retryable as error:
            _LOG.warning("the attempt failed: %s", error)
            reason = error.reason
            if BLAMED.get(reason) in (Blame.SOURCE, Blame.TARGET) and not claim.final:
                state = State.QUEUED
        except Exception as error:  # noqa: BLE001 - whatever it was, the study must not be lost
            _LOG.error("the attempt met an unexpected error: %s", where(error))
        else:
            return _finish(ledger, attempt)
        return _end(state, reason, ledger, target, attempt)


def _anonymize_all(
    message: StudyMessage,
    source: StudySource,
    tools: Tools,
    anonymize: Anonymizer,
    max_instances: int,
    attempt: _Attempt,
    deadline: _Deadline,
) -> None:
    """Fill ``attempt.results`` with every instance. Raises Rejected, Retryable."""
    with attempt.watch.step("fetch"):
        before = source.snapshot(message.study_id)
    mixed = before.patients > 1
    # Before its first attempt nothing at the target is this study's: what bears its name there is
    # the other patient's.
    if before.study_uid and not (mixed and attempt.first):
        attempt.study_uid = tools.study_uid(before.study_uid)
        attempt.retired_uids = tools.retired_study_uids(before.study_uid)
    if mixed:
        raise Rejected(Reason.MIXED_PATIENTS)
    if len(before.instances) > max_instances:
        detail = f"{len(before.instances)}, of which {max_instances} are allowed"
        raise Rejected(Reason.TOO_MANY_INSTANCES, detail)
    rejection: Rejected | None = None
    for instance in before.instances:
        deadline.check()
        with attempt.watch.step("fetch"):
            content = source.fetch(instance)
        try:
            attempt.results.append(anonymize(content, tools))
        except Rejected as error:
            rejection = error
            break
    for result in attempt.results:
        for step, seconds in result.durations.items():
            attempt.watch.add(step, seconds)
    deadline.check()
    with attempt.watch.step("fetch"):
        unchanged = source.snapshot(message.study_id) == before
    if not before.instances or not unchanged:
        raise Retryable(Reason.CHANGED_MEANWHILE)
    if rejection is not None:
        raise rejection
    if len({(result.patient_id, result.study_uid) for result in attempt.results}) > 1:
        raise Rejected(Reason.MIXED_PATIENTS)
    contents: dict[str, bytes] = {}
    for result in attempt.results:
        if contents.setdefault(result.sop_uid, result.content) != result.content:
            raise Rejected(Reason.AMBIGUOUS_INSTANCE)


def _export_all(
    target: ExportTarget, ledger: _Ledger, attempt: _Attempt, deadline: _Deadline
) -> None:
    """Make the target hold the study as it is now, read back. Raises Retryable, _ClaimLost."""
    with attempt.watch.step("store"):
        if ledger.message.revision > 1:
            for result in attempt.results:
                deadline.check()
                if target.fetch(result) is None:
                    attempt.added.append(result)
        for result in attempt.results:
            deadline.check()
            ledger.confirm()
            attempt.stored = True
            target.store(result)
    with attempt.watch.step("verify"):
        for result in attempt.results:
            deadline.check()
            differing = differences(result.content, target.fetch(result))
            if differing:
                raise Retryable(Reason.READ_BACK_DIFFERS, ", ".join(differing[:20]))
        ledger.confirm()
        target.withdraw_others(attempt.results)
        for uid in sorted(attempt.retired_uids):
            target.withdraw_study(uid)


def _finish(ledger: _Ledger, attempt: _Attempt) -> Outcome:
    """Report the export. What is at the target stays there, whatever the ledger answers."""
    try:
        accepted = ledger.tell(State.EXPORTED, attempt=attempt).proceed
    except Retryable as error:
        _LOG.warning("exported, but the ledger could not be told: %s", error)
        return Outcome(None, error.reason, again=True)
    if not accepted:
        _LOG.info("exported, but the ledger had moved on")
        return Outcome(None)
    _LOG.info("exported %d instances", len(attempt.results))
    return Outcome(State.EXPORTED)


def _give_up(
    source: StudySource,
    target: ExportTarget,
    ledger: _Ledger,
    attempt: _Attempt,
    tools: Tools,
) -> Outcome:
    """Withdraw and end a study that was tried too often, without opening any of it."""
    state, reason = State.FAILED, Reason.TOO_MANY_ATTEMPTS
    try:
        study_uid = source.snapshot(ledger.message.study_id).study_uid
        attempt.study_uid = tools.study_uid(study_uid) if study_uid else ""
        attempt.retired_uids = tools.retired_study_uids(study_uid) if study_uid else frozenset()
    except Rejected as error:
        reason = error.reason
    except Retryable as error:
        _LOG.warning("the study cannot be named yet: %s", error)
        if not ledger.last:
            state, reason = State.QUEUED, error.reason
    return _end(state, reason, ledger, target, attempt)


def _end(
    state: State,
    reason: Reason,
    ledger: _Ledger,
    target: ExportTarget,
    attempt: _Attempt,
) -> Outcome:
    """Withdraw what ``state`` asks for, under a claim that still holds, then report."""
    try:
        ledger.confirm()
        if state is State.QUEUED:
            _undo(target, attempt, ledger)
        else:
            trouble = _withdraw(target, attempt, ledger)
            if trouble is not None and not ledger.last:
                state, reason = State.QUEUED, trouble
        shown = ledger.show(attempt.pictures) if state is State.QUARANTINED else 0
        measures = {"text_pictures": float(shown)} if shown else {}
        accepted = ledger.tell(state, reason, measures=measures).proceed
    except _ClaimLost:
        _LOG.info("no export, and the claim holds no longer")
        return Outcome(None)
    except Retryable as error:
        _LOG.warning("no export, but the ledger could not be told: %s", error)
        return Outcome(None, reason, again=True)
    if not accepted:
        _LOG.warning("withdrawn, but the ledger had moved on meanwhile")
        return Outcome(None)
    if state is State.QUEUED:
        return Outcome(state, reason, again=True)
    _LOG.log(logging.INFO if state is State.QUARANTINED else logging.ERROR, "%s: %s", state, reason)
    return Outcome(state, reason)


def _undo(target: ExportTarget, attempt: _Attempt, ledger: _Ledger) -> None:
    """Leave no half study for the next attempt, and what an earlier revision exported."""
    if not attempt.stored:
        return
    if ledger.message.revision == 1:
        _withdraw(target, attempt, ledger)
        return
    left = 0
    for result in attempt.added:
        try:
            target.withdraw(result)
        except Retryable:
            left += 1
    if left:
        _LOG.error("%d instances may be left at the export target", left)


def _withdraw(target: ExportTarget, attempt: _Attempt, ledger: _Ledger) -> Reason | None:
    """Remove all of the study from the target; gives the reason when that was not possible."""
    uids = attempt.study_uids()
    if not uids and (ledger.message.revision > 1 or ledger.number > 1):
        _LOG.error("what an earlier attempt left at the export target stays: it cannot be named")
    trouble: Reason | None = None
    for uid in sorted(uids):
        try:
            target.withdraw_study(uid)
        except Retryable as error:
            _LOG.error("the study may be left at the export target: %s", error)
            trouble = error.reason
    return trouble
