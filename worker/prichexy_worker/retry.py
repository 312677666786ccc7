"""How often, when and whether at all a study is tried again. All of the arithmetic is here. Pure.

``docs/retries.md`` tells it to people, with the figures. Who uses what:

* A worker asks ``RetryPolicy`` for the pause before a message comes back.
* The plugin's ledger counts attempts and asks ``attempts_left``; its answer to a claim tells the
  worker. A worker counts nothing: a kill would leave nothing to count, and a message may be lost.
* The ledger keeps a ``Circuit`` for each thing around the studies that may be broken for all of
  them. An open one stops the handing out, so that an outage burns no study's attempts.

Standard library and the contract only: the plugin imports this, too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from prichexy_worker.contract import MAX_ATTEMPTS, MAX_CLAIMS, Reason, State

__all__ = [
    "BLAMED",
    "BROKEN_KINDS",
    "LIMITS",
    "PROBE_PATIENCE",
    "RETRIABLE",
    "STUDY_BUDGET",
    "Blame",
    "Circuit",
    "RetryPolicy",
    "after_report",
    "attempts_left",
    "blamed_circuit",
    "excuses",
    "is_final",
    "probe_pause",
]

#: Errors that may be gone at the next attempt. Every other reason is an end at once.
RETRIABLE: Final = frozenset(
    {
        Reason.SOURCE_UNREACHABLE,
        Reason.UNKNOWN_TARGET,
        Reason.MODEL_UNAVAILABLE,
        Reason.TARGET_UNREACHABLE,
        Reason.TARGET_REFUSED,
        Reason.READ_BACK_DIFFERS,
        Reason.CHANGED_MEANWHILE,
        Reason.TOOK_TOO_LONG,
        Reason.UNEXPECTED,
        Reason.WORKER_STOPPED,
    }
)
#: So long workers may have a study in their hands, all attempts of a revision together. Five
#: attempts of the default length are two hours; the rest is for what an outage cut short.
STUDY_BUDGET: Final = timedelta(hours=3)


class Blame(StrEnum):
    """What may be broken for all studies at once."""

    SOURCE = "source"  # the ingest Orthanc
    TARGET = "target"  # an export target, or those of studies whose rule names none
    WORKER = "worker"  # the workers: their settings, model and disk, a program that they need
    RESULT = "result"  # what makes or judges results: model, codecs, gate; by kind of quarantine


#: What a reason speaks against. One study alone may have any of them by its own fault.
BLAMED: Final[Mapping[Reason, Blame]] = {
    Reason.SOURCE_UNREACHABLE: Blame.SOURCE,
    Reason.TARGET_UNREACHABLE: Blame.TARGET,
    Reason.TARGET_REFUSED: Blame.TARGET,
    Reason.READ_BACK_DIFFERS: Blame.TARGET,
    Reason.UNKNOWN_TARGET: Blame.WORKER,
    Reason.TOOK_TOO_LONG: Blame.WORKER,
    Reason.UNEXPECTED: Blame.WORKER,
    Reason.CHECK_IMPOSSIBLE: Blame.WORKER,
}
#: Quarantines that one study has by its own fault, and study after study when a model, a codec or
#: a check is broken, or a limit is not for the model: each has a circuit of its own.
BROKEN_KINDS: Final = frozenset(
    {
        Reason.UNDECODABLE,
        Reason.BURNED_IN_TEXT,
        Reason.IDENTITY_SURVIVED,
        Reason.CONFORMANCE_BROKEN,
        Reason.PIXELS_NOT_SANE,
        Reason.RECOGNISABLE,
        Reason.FINDINGS_CHANGED,
    }
)
#: So many different studies in a row, with no success between, open a circuit. Of the workers more:
#: what they meet is more often a study's own fault. A kind of quarantine mostly is.
LIMITS: Final[Mapping[Blame, int]] = {
    Blame.SOURCE: 3,
    Blame.TARGET: 3,
    Blame.WORKER: 10,
    Blame.RESULT: 50,
}
#: A probe of which nothing was heard for so long is lost; the next one goes.
PROBE_PATIENCE: Final = timedelta(minutes=30)
_FIRST_PROBE: Final = 30.0
_LAST_PROBE: Final = 900.0
#: Nobody answered: the study had no chance, whatever it holds.
_NO_ANSWER: Final = frozenset({Reason.SOURCE_UNREACHABLE, Reason.TARGET_UNREACHABLE})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Pauses around ``first``, ``first * factor``, ``first * factor**2`` … ``ceiling`` seconds.

    ``ceiling`` has to be below the broker's redelivery time: a waiting task counts as not
    acknowledged, and a longer pause would make a second copy of it.
    """

    first: float = 10.0
    factor: float = 2.0
    ceiling: float = 600.0

    def delay(self, retries: int, chance: float) -> float:
        """Give the seconds before the next try of a task sent back ``retries`` times so far.

        Between half of the pause and all of it, by ``chance`` in [0, 1): studies that one outage
        sent back together do not come back together.
        """
        # 2**64 is beyond any ceiling; the bound keeps the power from overflowing.
        pause = min(self.ceiling, self.first * self.factor ** min(retries, 64))
        return pause * (1 - chance / 2)

    @classmethod
    def below(cls, redelivery_seconds: float) -> RetryPolicy:
        """Give the default policy with pauses of at most half the broker's redelivery time."""
        return cls(
            first=min(10.0, redelivery_seconds / 2),
            ceiling=min(600.0, redelivery_seconds / 2),
        )


def attempts_left(counted: int, worked: timedelta) -> int:
    """Say how many attempts a study has left after ``counted`` ones that took ``worked`` in all.

    0 when the time is used up as well: whoever claims it then gives it up.
    """
    return 0 if worked > STUDY_BUDGET else max(0, MAX_ATTEMPTS - counted)


def is_final(counted: int) -> bool:
    """Say whether the claim that follows ``counted`` ones is the very last, giving up included."""
    return counted + 1 >= MAX_CLAIMS


def excuses(reason: Reason, *, others_succeeded: bool, circuit_open: bool) -> bool:
    """Say whether an attempt that was given back for ``reason`` does not count against its study.

    It does not while the circuit that the reason speaks against is open: then it fails for all.
    Where nobody answered it does not either, unless other studies came through during the attempt
    (``others_succeeded``): a target that answers all but one study is not away. Nor does it where a
    worker was told to stop, or is of before.
    """
    if reason in (Reason.WORKER_STOPPED, Reason.OLDER_WORKER):
        return True
    if reason not in BLAMED:
        return False
    return circuit_open or (reason in _NO_ANSWER and not others_succeeded)


def probe_pause(failed: int) -> timedelta:
    """Give the pause before the next probe, after ``failed`` ones: 30 s, doubling to 15 min."""
    return timedelta(seconds=min(_LAST_PROBE, _FIRST_PROBE * 2 ** min(failed, 10)))


@dataclass(frozen=True, slots=True)
class Circuit:
    """How one thing around the studies is doing.

    ``targets`` are the names of what a circuit of ``Blame.TARGET`` is of: one export target, or
    several of which nobody could say which was at fault, or none for the targets that the workers
    have for studies whose rule names none. Of ``Blame.RESULT`` there is one for each ``reason`` of
    ``BROKEN_KINDS``. ``studies`` are the different ones that failed in a row,
    at most the limit. While ``opened`` is set nothing is handed out that needs it but one ``probe``
    at a time, at ``probe_at``; while one is under way, that is when it counts as lost.
    ``failed_probes`` are those since it opened.
    """

    blame: Blame
    studies: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    reason: Reason | None = None
    opened: datetime | None = None
    probe: str | None = None
    probe_at: datetime | None = None
    failed_probes: int = 0
    succeeded: datetime | None = None

    @property
    def key(self) -> str:
        """Give what tells this circuit from all others."""
        if self.blame is Blame.RESULT and self.reason is not None:
            return f"{self.blame.value}:{self.reason.value}"
        return ":".join((self.blame.value, *self.targets))

    @property
    def is_open(self) -> bool:
        """Say whether the handing out is stopped."""
        return self.opened is not None

    def concerns(self, targets: Collection[str]) -> bool:
        """Say whether a study that goes to ``targets`` needs what this is of."""
        if self.blame is not Blame.TARGET:
            return True
        return set(self.targets) <= set(targets) if self.targets else not targets

    def holds(self, job_id: str, targets: Collection[str]) -> bool:
        """Say whether a study that goes to ``targets`` has to wait because of this."""
        return not self.admits(job_id) and self.concerns(targets)

    def admits(self, job_id: str) -> bool:
        """Say whether a worker may have this study now."""
        return not self.is_open or self.probe == job_id

    def wants_probe(self, now: datetime) -> bool:
        """Say whether a study should be let through now, to see whether it works again.

        Also when the next one would be later than any: the clock was ahead then, and set right.
        """
        if not self.is_open or self.probe_at is None:
            return False
        return now >= self.probe_at or self.probe_at - now > PROBE_PATIENCE

    def with_probe(self, job_id: str, now: datetime) -> Circuit:
        """Let one study through."""
        return replace(self, probe=job_id, probe_at=now + PROBE_PATIENCE)

    def after_failure(self, job_id: str, reason: Reason, now: datetime) -> Circuit:
        """Count a failure that speaks against this."""
        if self.is_open:
            if self.probe != job_id:
                return self
            failed = self.failed_probes + 1
            return replace(
                self,
                reason=reason,
                probe=None,
                probe_at=now + probe_pause(failed),
                failed_probes=failed,
            )
        if job_id in self.studies:
            return replace(self, reason=reason)
        studies = (*self.studies, job_id)
        counted = replace(self, studies=studies, reason=reason)
        if len(studies) < LIMITS[self.blame]:
            return counted
        return replace(counted, opened=now, probe_at=now + probe_pause(0))

    def after_success(self, now: datetime) -> Circuit:
        """Close, and begin to count anew."""
        kind = self.reason if self.blame is Blame.RESULT else None
        return Circuit(self.blame, targets=self.targets, reason=kind, succeeded=now)

    def after_no_answer(self, job_id: str, now: datetime) -> Circuit:
        """Take note of a study that ended without a word on this: another one is the next probe."""
        if not self.is_open or self.probe != job_id:
            return self
        return replace(self, probe=None, probe_at=now)


def blamed_circuit(
    reason: Reason | None, targets: Collection[str] = (), at_fault: str = ""
) -> Circuit | None:
    """Give the circuit, as it is before anything happened, that a reason speaks against.

    ``targets`` are those of the study, ``at_fault`` is the one that a worker named; workers of
    contract version 1 name none.
    """
    if reason in BROKEN_KINDS:
        return Circuit(Blame.RESULT, reason=reason)
    blame = None if reason is None else BLAMED.get(reason)
    if blame is None:
        return None
    if blame is not Blame.TARGET or not targets:
        return Circuit(blame)
    return Circuit(blame, targets=(at_fault,) if at_fault else tuple(sorted(targets)))


def after_report(
    circuits: Mapping[str, Circuit],
    job_id: str,
    state: State,
    reason: Reason | None,
    now: datetime,
    *,
    targets: Collection[str] = (),
    at_fault: str = "",
) -> dict[str, Circuit]:
    """Give what all circuits are after a worker gave a study back or ended it, by their keys.

    ``targets`` and ``at_fault`` are those of ``blamed_circuit``, which is among the result.
    """
    blamed = blamed_circuit(reason, targets, at_fault)
    well = _shown_to_work(state, reason, None if blamed is None else blamed.blame)
    after = {}
    known = dict(circuits) if blamed is None else {blamed.key: blamed, **circuits}
    for key, circuit in known.items():
        if blamed is not None and reason is not None and key == blamed.key:
            after[key] = circuit.after_failure(job_id, reason, now)
        elif circuit.blame in well and circuit.concerns(targets):
            after[key] = circuit.after_success(now)
        else:
            after[key] = circuit.after_no_answer(job_id, now)
    return after


def _shown_to_work(state: State, reason: Reason | None, blame: Blame | None) -> frozenset[Blame]:
    """Say what a report shows to work. Who fails at the target has read and made the study."""
    if state is State.EXPORTED:
        return frozenset(Blame)
    if blame is Blame.TARGET or (state is State.QUARANTINED and blame in (None, Blame.RESULT)):
        return frozenset({Blame.SOURCE, Blame.WORKER})
    if reason is Reason.CHANGED_MEANWHILE:
        return frozenset({Blame.SOURCE})
    return frozenset()
