"""One study: claimed, anonymised whole, exported, read back, reported.

The order is what makes it safe to do twice and to stop anywhere:

1. Claim. Whoever is refused drops the study without a trace. The claim's number goes with every
   report: once another worker has claimed the study, or it has a newer revision, ours are void.
2. Fetch and anonymise every instance. Nothing is exported before all of them are safe.
3. Store every instance at every target, asking before each whether the claim still holds; then
   compare; then take away the images that an earlier revision or attempt exported and that the
   study no longer holds, and all that was exported of it under a key that was retired since (see
   exporting.py). The new UIDs are functions of the old ones and the key, so a second attempt
   overwrites what an earlier one left.
4. Report. Only when the ledger has taken the report is the study done.

An attempt that comes to no export asks once more whether its claim holds, then withdraws, then
reports. Without the claim, or without an answer, it does nothing: the study is another's, whose
export it must not remove. After the report it would be too late: the study would be open to
another worker, or shown as withdrawn while it is not. A target may be slow, and the broker takes a
worker for lost in the end: so it asks anew before each single removal, and removes nothing any more
when another worker may soon have the study.

What is withdrawn, from each target that can take back, and always of what this ledger had sent
alone (see sent.py): another gateway's images in the same study stay.

* EXPORTED: what an earlier revision had at targets that the study no longer goes to. One of these
  that does not answer holds nothing up: at which ones something may be left goes with the report.
* QUARANTINED, FAILED: all of the study, by its pseudonymous StudyInstanceUID; that is also
  what an earlier revision or a killed attempt left of it, and instances that are now turned away.
  A target that does not let go of it makes this a failed attempt: the end is reported when it is
  true. Only the last attempt reports it anyway, and logs that something may be left. At how many
  targets that is, those included that cannot take back, goes with the report.
* QUEUED at revision 1, once storing has begun: the study as a whole. No earlier revision was
  exported, so nothing is lost, and no half study waits for the next attempt.
* QUEUED at a later revision: the instances that a target lacked before this attempt. Those of
  the earlier revision were verified and nothing is wrong with them: they stay.
* QUEUED before storing has begun: nothing. The targets hold what they held.

A worker that is told to stop and does not end its study in time gives it back (WORKER_STOPPED),
which costs no attempt, and another worker takes it at once.

How often a study is tried is the plugin's to say, with each claim (see retry.py). A claim with no
attempt left is none: whoever got it opens no instance, for the study may have killed the workers
before, withdraws the study as a whole and reports FAILED. The last attempt ends the study itself,
except where the ingest Orthanc or the target was to blame: that may not have counted.

A study whose export is to be withdrawn (errand WITHDRAW) is not opened either: it is withdrawn as a
whole from every target and ends REJECTED (WITHDRAWN). A target that does not let go makes this a
failed attempt; the last one ends FAILED. Targets that cannot take back are named in the report.

What a person decided over single images comes with the message and counts for these images alone
(see ``contract.Looked``); the release gate judges the result as any other.

A study whose StudyInstanceUID another patient has in the source, too, is not opened. At its first
attempt nothing is withdrawn: what bears that name at a target is the other patient's, and is
judged when that study comes again.

A study that is gone from its source cannot be named any more, as its name at the targets is a
function of its own StudyInstanceUID: what an earlier attempt left then stays, and the log says so.
Only an export that somebody has withdrawn is removed then, too: the ledger was told under which
name it was sent, and tells that with the claim.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from prichexy_worker import pipeline
from prichexy_worker.claimed import Attempt, Claimed, ClaimLost
from prichexy_worker.contract import RELEASABLE, Errand, Reason, State, StudyMessage
from prichexy_worker.destinations import Destinations
from prichexy_worker.errors import Rejected, Retryable
from prichexy_worker.exporting import Export
from prichexy_worker.logs import bound_to, where
from prichexy_worker.pipeline import Anonymized, Clock, Tools
from prichexy_worker.ports import Reporter, Snapshot, StudySource
from prichexy_worker.retry import BLAMED, Blame
from prichexy_worker.sent import Sent

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


@dataclass(frozen=True, slots=True)
class _Deadline:
    """When the attempt has to be over, on ``clock``."""

    at: float
    clock: Clock
    leave_by: Callable[[], float] = lambda: math.inf

    def check(self) -> None:
        """Raise Retryable (TOOK_TOO_LONG, WORKER_STOPPED) when the time is over."""
        now = self.clock()
        if now > self.at:
            raise Retryable(Reason.TOOK_TOO_LONG)
        if now > self.leave_by():
            raise Retryable(Reason.WORKER_STOPPED)


def _as_they_are(message: StudyMessage, tools: Tools) -> Tools:
    """Give the tools of a worker that has one model. Raises Retryable."""
    if message.bundle or message.strength != 1:
        raise Retryable(Reason.MODEL_UNAVAILABLE, "this worker has no choice")
    return tools


def process_study(
    message: StudyMessage,
    source: StudySource,
    destinations: Destinations,
    reporter: Reporter,
    tools: Tools,
    *,
    worker_id: str = "worker",
    max_instances: int = 64,
    max_bytes: float = math.inf,
    max_seconds: float = math.inf,
    withdrawal_seconds: float = math.inf,
    leave_by: Callable[[], float] = lambda: math.inf,
    anonymize: Anonymizer = pipeline.anonymize,
    clock: Clock = time.monotonic,
    choose: Callable[[StudyMessage, Tools], Tools] = _as_they_are,
) -> Outcome:
    """Bring one study to an end, or to another attempt; never raises for what a study holds.

    ``max_bytes`` bounds the files of its originals together, before one of them is fetched, and
    those of its results, all of which are held until the last one is safe.
    ``max_seconds`` is looked at between instances and steps: a step under way is ended first. So is
    ``leave_by``, the moment on ``clock`` by which a worker that is to stop lets go of the study.
    ``withdrawal_seconds`` after the start nothing more is removed at a target that is to take the
    study back: it may soon be another worker's.
    ``choose`` gives the tools with the model and strength that the message asks for, or raises
    Retryable.
    """
    retired = tuple(sorted(key.key_id for key in tools.retired))
    ledger = Claimed(message, reporter, worker_id, tools.made_with(), retired=retired)
    start = clock()
    deadline = _Deadline(start + max_seconds, clock, leave_by)
    last_removal = _Deadline(start + withdrawal_seconds, clock)
    with bound_to(message.job_id):
        try:
            claim = ledger.tell(State.PROCESSING)
        except Retryable as error:
            _LOG.warning("the study could not be claimed: %s", error)
            return Outcome(None, error.reason, again=True)
        if claim.another_key:
            _LOG.error("not claimed: %s", Reason.ANOTHER_KEY.sentence)
            return Outcome(None, Reason.ANOTHER_KEY, again=True)
        if not claim.proceed:
            _LOG.info("dropped: the ledger gave no claim")
            return Outcome(None)
        _LOG.info("claimed, revision %d", message.revision)
        last = claim.left == 1 or claim.final
        ledger = replace(ledger, number=claim.attempt, last=last)
        route = destinations.route(message.targets)
        earlier, tried = message.revision > 1, claim.attempt > 1
        images = Sent(frozenset(claim.images))
        attempt = Attempt(
            Export(route, earlier=earlier, tried=tried, images=images),
            sent_as=frozenset(claim.study_uids),
        )
        if claim.left == 0:
            reason = Reason.TOO_MANY_ATTEMPTS
            return _take_back(source, ledger, attempt, tools, last_removal, reason)
        if message.errand is Errand.WITHDRAW:
            return _take_back(source, ledger, attempt, tools, last_removal, Reason.WITHDRAWN)
        state, reason, target = State.FAILED if last else State.QUEUED, Reason.UNEXPECTED, ""
        try:
            before = _look(ledger, source, tools, attempt, max_instances, max_bytes)
            tools = choose(message, tools)
            ledger = replace(ledger, made_with=tools.made_with())
            _anonymize_all(ledger, source, before, tools, anonymize, attempt, deadline, max_bytes)
            attempt.export.carry_out(
                attempt.results,
                attempt.retired_uids,
                attempt.watch,
                in_time=deadline.check,
                confirm=partial(ledger.confirm, attempt),
            )
        except ClaimLost:
            _LOG.info("dropped: the claim holds no longer")
            return Outcome(None)
        except Rejected as error:
            _LOG.info("turned away: %s", error)
            # A study that is gone leaves nothing for a human to decide.
            gone = error.reason is Reason.GONE
            state, reason = State.FAILED if gone else State.QUARANTINED, error.reason
            attempt.pictures, attempt.doubts = error.pictures, error.doubts
        except Retryable as error:
            _LOG.warning("the attempt failed: %s", error)
            reason, target = error.reason, error.target
            around = BLAMED.get(reason) in (Blame.SOURCE, Blame.TARGET) and not claim.final
            if around or reason is Reason.WORKER_STOPPED:
                state = State.QUEUED
        except Exception as error:  # noqa: BLE001 - whatever it was, the study must not be lost
            _LOG.error("the attempt met an unexpected error: %s", where(error))
        else:
            return _finish(ledger, attempt, deadline)
        return _end(state, reason, ledger, attempt, last_removal, target)


def _look(
    ledger: Claimed,
    source: StudySource,
    tools: Tools,
    attempt: Attempt,
    max_instances: int,
    max_bytes: float,
) -> Snapshot:
    """Give what the source holds, and learn the study's name at the targets.

    Raises Rejected, Retryable, ClaimLost.
    """
    with attempt.watch.step("fetch"):
        before = source.snapshot(ledger.message.study_id)
        mixed = ledger.patients(before.study_uid) > 1
    if mixed and attempt.first:
        # Nothing at a target is this study's yet: what bears its name there is the other patient's.
        raise Rejected(Reason.MIXED_PATIENTS)
    if before.study_uid:
        attempt.study_uid = tools.study_uid(before.study_uid)
        own = attempt.study_uid == before.study_uid.strip(" \0")
        attempt.told_uid = "" if own else attempt.study_uid
        attempt.retired_uids = tools.retired_study_uids(before.study_uid)
    attempt.export.route.require_known()
    if mixed:
        raise Rejected(Reason.MIXED_PATIENTS)
    attempt.originals = before.instances
    if len(before.instances) > max_instances:
        detail = f"{len(before.instances)}, of which {max_instances} are allowed"
        raise Rejected(Reason.TOO_MANY_INSTANCES, detail)
    _check_size(before.size, max_bytes)
    return before


def _check_size(size: int, allowed: float) -> None:
    """Raise Rejected (TOO_LARGE) for more bytes than are allowed."""
    if size > allowed:
        raise Rejected(Reason.TOO_LARGE, f"{size} bytes, of which {allowed:.0f} are allowed")


def _anonymize_all(
    ledger: Claimed,
    source: StudySource,
    before: Snapshot,
    tools: Tools,
    anonymize: Anonymizer,
    attempt: Attempt,
    deadline: _Deadline,
    max_bytes: float,
) -> None:
    """Fill ``attempt.results`` with every instance. Raises Rejected, Retryable, ClaimLost."""
    message = ledger.message
    tools = replace(tools, looked={one.digest: one for one in message.looked})
    rejection: Rejected | None = None
    doubted: list[Rejected] = []
    for instance in before.instances:
        deadline.check()
        with attempt.watch.step("fetch"):
            content = source.fetch(instance)
        try:
            attempt.results.append(anonymize(content, tools))
            _check_size(sum(len(result.content) for result in attempt.results), max_bytes)
        except Rejected as error:
            if error.reason in RELEASABLE:
                # The others, too, so that whoever decides sees all that is in doubt at once, and
                # is not asked where something else keeps the study back for good.
                doubted.append(error)
                continue
            rejection = error
            break
    for result in attempt.results:
        for step, seconds in result.durations.items():
            attempt.watch.add(step, seconds)
    deadline.check()
    with attempt.watch.step("fetch"):
        unchanged = source.snapshot(message.study_id) == before
        unchanged = unchanged and ledger.patients(before.study_uid) == 1
    if not before.instances or not unchanged:
        raise Retryable(Reason.CHANGED_MEANWHILE)
    if rejection is not None:
        raise rejection
    if doubted:
        raise _together(doubted)
    if len({(result.patient_id, result.study_uid) for result in attempt.results}) > 1:
        raise Rejected(Reason.MIXED_PATIENTS)
    contents: dict[str, bytes] = {}
    for result in attempt.results:
        if contents.setdefault(result.sop_uid, result.content) != result.content:
            raise Rejected(Reason.AMBIGUOUS_INSTANCE)


def _together(refusals: list[Rejected]) -> Rejected:
    """Give one refusal for those of several images, of one of their reasons."""
    first = refusals[0]
    return Rejected(
        first.reason,
        first.detail,
        findings=first.findings,
        pictures=tuple(picture for each in refusals for picture in each.pictures),
        doubts=tuple(doubt for each in refusals for doubt in each.doubts),
    )


def _finish(ledger: Claimed, attempt: Attempt, deadline: _Deadline) -> Outcome:
    """Report the export. What is at the targets stays there, whatever the ledger answers."""
    counts = {"targets_unproved": float(attempt.export.unproved())}
    shown = ledger.show_images(attempt.results, deadline.check)
    if shown:
        counts["images_shown"] = float(shown)
    left = attempt.export.left_behind()
    if left:
        counts["targets_not_withdrawn"] = float(len(left))
    try:
        accepted = ledger.tell(
            State.EXPORTED, attempt=attempt, measures=counts, left_at=left
        ).proceed
    except Retryable as error:
        _LOG.warning("exported, but the ledger could not be told: %s", error)
        return Outcome(None, error.reason, again=True)
    if not accepted:
        _LOG.info("exported, but the ledger had moved on")
        return Outcome(None)
    _LOG.info("exported %d instances", len(attempt.results))
    return Outcome(State.EXPORTED)


def _take_back(
    source: StudySource,
    ledger: Claimed,
    attempt: Attempt,
    tools: Tools,
    last_removal: _Deadline,
    reason: Reason,
) -> Outcome:
    """Withdraw and end a study without opening any of it.

    It is one that was tried too often (TOO_MANY_ATTEMPTS), or one whose export is to be taken back
    (WITHDRAWN): that has an end of its own, REJECTED, when no target holds on to it that could let
    go, and fails else.
    """
    asked = reason is Reason.WITHDRAWN
    state = State.REJECTED if asked else State.FAILED
    target = ""
    try:
        if asked:
            attempt.export.route.require_known()
        study_uid = _own_uid(source, ledger.message, needed=not attempt.sent_as)
        attempt.study_uid = tools.study_uid(study_uid) if study_uid else ""
        attempt.retired_uids = tools.retired_study_uids(study_uid) if study_uid else frozenset()
    except Rejected as error:
        state, reason = State.FAILED, error.reason
    except Retryable as error:
        _LOG.warning("the study cannot be taken back yet: %s", error)
        target = error.target
        if not ledger.last:
            state, reason = State.QUEUED, error.reason
        elif asked:
            state, reason = State.FAILED, error.reason
    return _end(state, reason, ledger, attempt, last_removal, target)


def _own_uid(source: StudySource, message: StudyMessage, *, needed: bool) -> str:
    """Give the study's own StudyInstanceUID; blank where it is gone, and not ``needed``.

    Raises Rejected, Retryable.
    """
    try:
        return source.snapshot(message.study_id).study_uid
    except Rejected:
        if needed:
            raise
        return ""


def _end(
    state: State,
    reason: Reason,
    ledger: Claimed,
    attempt: Attempt,
    last_removal: _Deadline,
    target: str = "",
) -> Outcome:
    """Withdraw what ``state`` asks for, as long as the claim holds, then report."""

    def may_go_on() -> None:
        ledger.confirm()
        last_removal.check()

    try:
        ledger.confirm()
        if state is State.QUEUED:
            attempt.export.undo(attempt.study_uids(), may_go_on)
        else:
            trouble = attempt.export.withdraw(attempt.study_uids(), may_go_on)
            if trouble is not None and not ledger.last:
                state, reason, target = State.QUEUED, trouble.reason, trouble.target
            elif trouble is not None and state is State.REJECTED:
                state, reason, target = State.FAILED, trouble.reason, trouble.target
        shown = ledger.show(attempt.pictures) if state is State.QUARANTINED else 0
        whole = ledger.show_whole(attempt.doubts) if state is State.QUARANTINED else 0
        left = () if state is State.QUEUED else attempt.export.may_be_left()
        counts = {
            "text_pictures": float(shown),
            "images_in_doubt": float(whole),
            "targets_not_withdrawn": float(len(left)),
        }
        measures = {name: count for name, count in counts.items() if count}
        accepted = ledger.tell(
            state,
            reason,
            measures=measures,
            target=target,
            elsewhere=attempt.export.elsewhere(target),
            left_at=left,
        ).proceed
    except ClaimLost:
        _LOG.info("no export, and the claim holds no longer")
        return Outcome(None)
    except Retryable as error:
        _LOG.warning("no export, but the ledger could not be told: %s", error)
        return Outcome(None, reason, again=True)
    except Exception as error:  # noqa: BLE001 - a study that is not withdrawn has not ended
        _LOG.error("no export, and withdrawing met an unexpected error: %s", where(error))
        return Outcome(None, Reason.UNEXPECTED, again=True)
    if not accepted:
        _LOG.warning("withdrawn, but the ledger had moved on meanwhile")
        return Outcome(None)
    if state is State.QUEUED:
        return Outcome(state, reason, again=True)
    level = logging.ERROR if state is State.FAILED else logging.INFO
    _LOG.log(level, "%s: %s", state, reason)
    return Outcome(state, reason)
