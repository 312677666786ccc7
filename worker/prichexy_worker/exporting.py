"""What one attempt does at the targets of its study: each of them gets it, or none keeps it.

In this order, so that a study is released everywhere or withdrawn everywhere:

1. Every target that recalls gets every instance, then every one of them is compared with what was
   sent.
2. Only then the targets that cannot take back, which so are never sent a study that another target
   refuses; and compared as far as they can tell.
3. Only then each target that recalls lets go of what else of ours it holds of the study. So do the
   targets that the study no longer goes to. One of these that does not answer holds up nothing:
   the export is done, and it is told where an earlier one may be left. Should one of them be a
   target of the study under another name, what went there is brought again: no export ends with
   nothing at its target.

A target that cannot take back and fails within step 2 keeps what it got. The next attempt sends
the same instances under the same names; when none succeeds, something stays, and that is said.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from prichexy_worker.contract import Reason
from prichexy_worker.destinations import Route
from prichexy_worker.errors import Retryable
from prichexy_worker.pipeline import Stopwatch
from prichexy_worker.ports import Anonymized, Check, ExportTarget
from prichexy_worker.sent import Sent

__all__ = ["Export"]

_LOG: Final = logging.getLogger(__name__)
#: Why an attempt ends that are no target's fault: the next one goes on.
_NOBODYS_FAULT: Final = frozenset({Reason.TOOK_TOO_LONG, Reason.WORKER_STOPPED})


@dataclass(slots=True)
class Export:
    """One attempt's dealings with the targets of ``route``.

    ``earlier``: an earlier revision may stand at any target. ``tried``: an earlier attempt may have
    left something. ``images`` are those that this ledger ever had sent of the study, with those of
    this attempt once they may be sent: no others are removed.

    The claim of this attempt may end while a target is slow. So ``may_go_on`` is asked before each
    removal; what it raises of the claim itself ends everything at once.
    """

    route: Route
    earlier: bool
    tried: bool
    images: Sent = field(default_factory=Sent)
    #: What was sent, or begun to be, by target.
    sent: dict[str, list[Anonymized]] = field(default_factory=dict)
    added: set[tuple[str, str]] = field(default_factory=set)  # not there before: target, SOP UID
    stuck: set[str] = field(default_factory=set)  # the targets that did not let go of the study
    #: Those that it no longer goes to and that did not let go of an earlier export of it.
    behind: set[str] = field(default_factory=set)

    def carry_out(
        self,
        results: Sequence[Anonymized],
        retired_uids: frozenset[str],
        watch: Stopwatch,
        *,
        in_time: Check,
        confirm: Check,
    ) -> None:
        """Make every target hold the study as it is now. Raises Retryable, and what the checks do.

        ``in_time`` is asked before each step, ``confirm`` before each instance that is sent and
        before anything is taken away.
        """
        recalling, final = _split(self.route.chosen)
        if self.earlier:
            with watch.step("store"):
                self._note_what_is_new(recalling, results, in_time)
        for targets in (recalling, final):
            self._bring(targets, results, watch, in_time, confirm)

        def may_go_on() -> None:
            in_time()
            confirm()

        with watch.step("verify"):
            confirm()
            self._let_go_of_others(recalling, results, may_go_on)
            for name, target in recalling.items():
                for uid in sorted(retired_uids):
                    with _named(name):
                        self._withdraw_study(name, target, uid, may_go_on)
        if not self.earlier:
            return
        with watch.step("verify"):
            study_uids = {result.study_uid for result in results} | retired_uids
            self._leave_the_others(study_uids, may_go_on)
            lost = self._lost(recalling, results)
        if lost:
            _LOG.error("another name of the same place, or of a part of it: %s", ", ".join(lost))
            self._bring(lost, results, watch, in_time, confirm)
            with watch.step("verify"):
                confirm()
                self._let_go_of_others(lost, results, may_go_on)

    def _bring(
        self,
        targets: Mapping[str, ExportTarget],
        results: Sequence[Anonymized],
        watch: Stopwatch,
        in_time: Check,
        confirm: Check,
    ) -> None:
        """Have each target hold every instance, and compare. Raises Retryable."""
        with watch.step("store"):
            for name, target in targets.items():
                for result in results:
                    in_time()
                    confirm()
                    if not self.sent:
                        self.images = self.images.with_these(results)
                    self.sent.setdefault(name, []).append(result)
                    with _named(name):
                        target.store(result)
        with watch.step("verify"):
            for name, target in targets.items():
                _compare(name, target, results, in_time)

    def _leave_the_others(self, study_uids: set[str] | frozenset[str], may_go_on: Check) -> None:
        """Withdraw the study from the targets that it does not go to, as far as they answer."""
        for name, target in _split(self.route.others)[0].items():
            try:
                for uid in sorted(study_uids):
                    with _named(name):
                        self._withdraw_study(name, target, uid, may_go_on)
            except Retryable as error:
                if not error.target or error.reason in _NOBODYS_FAULT:
                    raise
                _LOG.error("an earlier export may be left where the study does not go: %s", error)
                self.behind.add(name)

    def _let_go_of_others(
        self,
        targets: Mapping[str, ExportTarget],
        results: Sequence[Anonymized],
        may_go_on: Check,
    ) -> None:
        for name, target in targets.items():
            with _named(name):
                target.withdraw_others(results, self.images, may_go_on)

    def _lost(
        self, targets: Mapping[str, ExportTarget], results: Sequence[Anonymized]
    ) -> Mapping[str, ExportTarget]:
        """Give those that hold no more what they were sent, when others have let go of it."""
        if not _split(self.route.others)[0]:
            return {}
        lost = {}
        for name, target in targets.items():
            with _named(name):
                if not all(map(target.holds, results)):
                    lost[name] = target
        return lost

    def undo(self, study_uids: set[str], may_go_on: Check) -> None:
        """Leave no half study for the next attempt, and no image that only this one brought.

        Where an earlier revision stands, the images of it that were replaced stay replaced. Raises
        Retryable without a target when ``may_go_on`` cannot tell.
        """
        if not self.sent:
            return
        if not self.earlier:
            self.withdraw(study_uids, may_go_on)
            return
        recalling, final = _split(self.route.chosen)
        for name in sorted(self.sent.keys() & final.keys()):
            _LOG.warning("target %s cannot take back what it was sent of the study", name)
        left = 0
        for name in self.sent.keys() & recalling.keys():
            new = [one for one in self.sent[name] if (name, one.sop_uid) in self.added]
            left += _take_back(name, recalling[name], new, may_go_on)
        if left:
            _LOG.error("%d instances may be left at the export targets", left)

    def withdraw(self, study_uids: set[str], may_go_on: Check) -> Retryable | None:
        """Remove all of the study from every target; gives the last error when one did not let go.

        Targets that cannot take back are left out: see ``may_be_left``. Without a name nothing is
        removed. One that does not answer, or not in time, is not asked for more. Raises Retryable
        without a target when ``may_go_on`` cannot tell.
        """
        trouble: Retryable | None = None
        if not study_uids and (self.earlier or self.tried):
            _LOG.error("what an earlier attempt left stays: the study cannot be named")
            self.stuck.update(self._reached())
        for name, target in _split(self._reached())[0].items():
            for uid in sorted(study_uids):
                try:
                    with _named(name):
                        self._withdraw_study(name, target, uid, may_go_on)
                except Retryable as error:
                    if not error.target:
                        raise
                    _LOG.error("the study may be left at the export target: %s", error)
                    self.stuck.add(name)
                    trouble = error
                    if error.reason is not Reason.TARGET_REFUSED:
                        break
        if suspects := sorted(self._suspects()):
            _LOG.error("something of the study may be left at: %s", ", ".join(suspects))
        return trouble

    def _withdraw_study(
        self, name: str, target: ExportTarget, study_uid: str, may_go_on: Check
    ) -> None:
        """Remove what of the study is this ledger's. Raises Retryable."""
        if not target.withdraw_study(study_uid, self.images, may_go_on):
            _LOG.warning("objects of the study that this ledger did not send stay at %s", name)
            self.stuck.add(name)

    def unproved(self) -> int:
        """Count the targets that cannot show that they hold what they were sent."""
        return sum(not target.proves for target in self.route.chosen.values())

    def elsewhere(self, name: str) -> bool:
        """Say whether this is a target that the study does not go to."""
        return name in self.route.others

    def left_behind(self) -> tuple[str, ...]:
        """Name the targets at which an earlier export may be left after ``carry_out``, sorted."""
        return tuple(sorted(self.behind))

    def may_be_left(self) -> tuple[str, ...]:
        """Name the targets that may hold something of the study after ``withdraw``, sorted."""
        return tuple(sorted(self._suspects()))

    def _suspects(self) -> set[str]:
        final = _split(self._reached())[1].keys()
        return self.stuck | (set(final) if self.earlier or self.tried else final & self.sent.keys())

    def _reached(self) -> Mapping[str, ExportTarget]:
        """Give the targets that may hold something of the study by now."""
        return {**self.route.chosen, **(self.route.others if self.earlier else {})}

    def _note_what_is_new(
        self, targets: Mapping[str, ExportTarget], results: Sequence[Anonymized], in_time: Check
    ) -> None:
        for name, target in targets.items():
            for result in results:
                in_time()
                with _named(name):
                    if not target.holds(result):
                        self.added.add((name, result.sop_uid))


def _split(
    targets: Mapping[str, ExportTarget],
) -> tuple[Mapping[str, ExportTarget], Mapping[str, ExportTarget]]:
    """Give the targets that recall, and those that do not."""
    recalling = {name: target for name, target in targets.items() if target.recalls}
    return recalling, {name: it for name, it in targets.items() if name not in recalling}


def _take_back(
    name: str, target: ExportTarget, instances: Sequence[Anonymized], may_go_on: Check
) -> int:
    """Remove these from a target, as long as it answers; gives how many may be left."""
    left = 0
    for number, instance in enumerate(instances):
        try:
            with _named(name):
                may_go_on()
                target.withdraw(instance)
        except Retryable as error:
            if not error.target:
                raise
            if error.reason is not Reason.TARGET_REFUSED:
                return left + len(instances) - number
            left += 1
    return left


def _compare(
    name: str, target: ExportTarget, results: Sequence[Anonymized], in_time: Check
) -> None:
    steps = target.differences(results)
    while True:
        with _named(name):
            differing = next(steps, None)
            if differing:
                raise Retryable(Reason.READ_BACK_DIFFERS, ", ".join(differing[:20]))
        if differing is None:
            return
        in_time()


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Let an error tell at which target it happened; the ledger's silence is no target's fault."""
    try:
        yield
    except Retryable as error:
        if error.reason is Reason.SOURCE_UNREACHABLE:
            raise
        detail = f"{name}: {error.detail}" if error.detail else name
        raise Retryable(error.reason, detail, target=name) from None
