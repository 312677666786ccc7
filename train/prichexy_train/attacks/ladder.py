"""The ladder: every attack of the settings against one method, each attempt recorded once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from prichexy_train.anonymised import NotInTime
from prichexy_train.attacks.controls import PartlyHidden, ShuffledIdentities
from prichexy_train.attacks.critic import Critic
from prichexy_train.attacks.features import ImageNetFeatures, PixelCorrelation
from prichexy_train.attacks.fresh import FreshVerifier
from prichexy_train.attacks.frozen import Frozen, FrozenEnsemble
from prichexy_train.attacks.metadata import Metadata, OriginalSize
from prichexy_train.attacks.other_backbone import OtherBackbone
from prichexy_train.attacks.rung import (
    Attempt,
    Interrupted,
    NotApplicable,
    Retrieval,
    Rung,
    Scores,
    Workplace,
)
from prichexy_train.attacks.searching import Search
from prichexy_train.attacks.target import Target, TestedSet
from prichexy_train.attacks.tuned import FineTuned, TrainedEnsemble
from prichexy_train.attacks.undoing import Registered, RegistrationResidual, Undone
from prichexy_train.attacks.validating import Validated
from prichexy_train.errors import InUse
from prichexy_train.locks import held
from prichexy_train.measures.auc import auc
from prichexy_train.measures.bootstrap import Resamples, interval, weighted_auc, weighted_mean
from prichexy_train.precision import device_name
from prichexy_train.records import (
    AttackRecord,
    RetrievalRecord,
    RungOf,
    find_record,
    record_name,
    write_record,
)

__all__ = ["LADDER", "Climbed", "climb", "rungs_of"]

_log: Final = logging.getLogger(__name__)

#: Seconds between two looks at what another process is at.
_LOOK_AGAIN: Final = 1.0

#: In the order in which they are tried: cheap ones first, and none before what it rests on.
LADDER: Final[tuple[Rung, ...]] = (
    PixelCorrelation(),
    ImageNetFeatures(),
    Metadata(),
    OriginalSize(),
    Frozen(),
    FrozenEnsemble(),
    Critic(),
    PartlyHidden("border"),
    PartlyHidden("centre"),
    Undone(),
    RegistrationResidual(),
    Registered(),
    Search("imagenet-features"),
    Search("frozen"),
    Search("ensemble"),
    FreshVerifier("anonymised"),
    FreshVerifier("mixed"),
    FineTuned(),
    OtherBackbone(),
    TrainedEnsemble(),
    Search("fresh-mixed"),
    Search("fine-tuned"),
    ShuffledIdentities(),
)


@dataclass(frozen=True, slots=True)
class Climbed:
    """How far a call of ``climb`` came.

    ``ended``: "finished" when nothing is left to do. ``left_out`` says by rung why it was not
    tried.
    """

    ended: str
    records: int
    left_out: Mapping[str, str]

    @property
    def finished(self) -> bool:
        """Whether every attempt has its record."""
        return self.ended == "finished"


def rungs_of(numbers: Sequence[int]) -> tuple[Rung, ...]:
    """Give the rungs with these numbers, in the order of trying."""
    return tuple(rung for rung in LADDER if rung.number in numbers)


def climb(
    target: Target,
    run: Path,
    *,
    rungs: Sequence[Rung] | None = None,
    provenance: Mapping[str, Any] | None = None,
    deadline: float | None = None,
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[], None] = lambda: time.sleep(_LOOK_AGAIN),
) -> Climbed:
    """Try every rung with every seed of the settings, and write what came of it below ``run``.

    An attempt whose records are there is not made again, and one that was broken off goes on.
    Several processes may climb below one ``run``: an attempt that another one is at is left to
    it, with what rests on it; when nothing else is left, it is waited for. Past ``deadline``, a
    value of ``clock``, the attempt at hand is put off and nothing more is begun. ``provenance``
    is put into each record. Raises what the attacks raise.
    """
    rungs = rungs_of(target.settings.rungs) if rungs is None else rungs
    climbing = _Climbing(target, run, provenance or {}, deadline, clock)
    try:
        told = False
        while others_at := climbing.through(rungs):
            if not told:
                _log.info("another process is at %s", ", ".join(sorted(others_at)))
                told = True
            wait()
    except NotInTime:
        return climbing.ended("deadline")
    except Interrupted:
        return climbing.ended("interrupted")
    return climbing.ended("finished")


@dataclass
class _Climbing:
    """A call of ``climb``: what it has done so far."""

    target: Target
    run: Path
    provenance: Mapping[str, Any]
    deadline: float | None
    clock: Callable[[], float]
    written: int = 0
    left_out: dict[str, str] = field(default_factory=dict)
    #: Rungs of which this call has made every attempt that is made anew at each call.
    renewed: set[str] = field(default_factory=set)

    def ended(self, how: str) -> Climbed:
        return Climbed(how, self.written, self.left_out)

    def through(self, rungs: Sequence[Rung]) -> set[str]:
        """Make the attempts that are to be made; give the rungs that others are at, or before.

        Raises NotInTime, Interrupted, and what the attacks raise.
        """
        others_at: set[str] = set()
        for rung in rungs:
            key = f"{rung.number} {rung.name}"
            if key in self.left_out or rung.name in self.renewed:
                continue
            try:
                self._try(rung, others_at)
            except NotApplicable as reason:
                self.left_out[key] = str(reason)
                _log.info("rung %d, %s: left out: %s", rung.number, rung.name, reason)
        return others_at

    def _try(self, rung: Rung, others_at: set[str]) -> None:
        for seed in rung.seeds(self.target):
            if _recorded(self.target, rung, seed, self.run):
                continue
            workplace = Workplace(self.run, rung.name, seed, self.deadline, self.clock)
            if workplace.late:
                raise NotInTime
            if rung.rests_on & others_at or not self._made(rung, workplace):
                others_at.add(rung.name)
        if rung.anew and rung.name not in others_at:
            self.renewed.add(rung.name)

    def _made(self, rung: Rung, workplace: Workplace) -> bool:
        """Make an attempt, unless another process is at it."""
        try:
            with held(workplace.lock):
                if not _recorded(self.target, rung, workplace.seed, self.run):
                    self.written += _attempt(
                        self.target, rung, workplace, self.run, self.provenance
                    )
        except InUse:
            return False
        return True


def _recorded(target: Target, rung: Rung, seed: int, run: Path) -> bool:
    if rung.anew:
        return False
    # A search has one record a set, any other attack one a list.
    several = [*target.sets] if len(target.sets) > 1 else [""]
    parts = several if isinstance(rung, Search) else [*target.tests]
    return all(find_record(run, _name(rung, seed, part)) for part in parts)


def _name(rung: Rung, seed: int, part: str) -> str:
    return record_name(rung.number, rung.name, seed, part)


def _attempt(
    target: Target, rung: Rung, workplace: Workplace, run: Path, provenance: Mapping[str, Any]
) -> int:
    """Make one attempt and record it; gives the number of records."""
    began = time.monotonic()
    attempt = rung.attack(target, workplace)
    # Time that a training took in earlier calls counts, too.
    seconds = time.monotonic() - began
    trained = attempt.details.get("trained_seconds", 0.0)
    known = {
        "method": target.method,
        "rung": RungOf(number=rung.number, name=rung.name, role=rung.role),
        "seed": workplace.seed,
        "seconds": round(max(seconds, float(trained) if isinstance(trained, float) else 0), 2),
        "device": device_name(target.device),
        "scores": "",
        "details": dict(attempt.details),
        "provenance": dict(provenance),
    }
    records = list(_records(target, attempt, known))
    for name, record, scores in records:
        write_record(run, _name(rung, workplace.seed, name), record, scores)
        _log.info("rung %d, %s, seed %d: %s", rung.number, rung.name, workplace.seed, _told(record))
    return len(records)


def _records(
    target: Target, attempt: Attempt, known: dict[str, Any]
) -> Iterator[tuple[str, AttackRecord | RetrievalRecord, dict[str, NDArray[Any]]]]:
    for name, retrieval in attempt.retrievals.items():
        words = _words(retrieval.validated, attempt.shares.get(name))
        record, scores = _retrieval_record(
            retrieval,
            {**known, **_data(target.sets[name]), "details": known["details"] | words},
        )
        yield name if len(target.sets) > 1 else "", record, scores
    validated = {of: target.validated(of, attempt.scores) for of in target.sets}
    for name, test in target.tests.items():
        if name not in attempt.scores:
            continue
        pairs, reached = test.pairs, validated[test.of.name]
        found = attempt.scores[name] * (reached.sign if reached else 1)
        arrays = {"scores": _narrow(found), "same": pairs.same}
        if reached:
            own = attempt.scores[target.validation_key(test.of.name)]
            arrays["validation"] = _narrow(own * reached.sign)
        words = _words(reached, attempt.shares.get(test.of.name))
        first, second = target.pool.patients[pairs.first], target.pool.patients[pairs.second]
        resamples = Resamples(np.concatenate([first, second]))
        yield (
            name,
            AttackRecord(
                **known | {"details": known["details"] | words},
                **_data(test.of),
                pair_list=test.name,
                auc=auc(found, pairs.same),
                interval=interval(resamples.of(weighted_auc(found, pairs.same), first, second)),
                pairs=len(pairs),
                positives=int(pairs.same.sum()),
                patients=len(resamples.codes),
            ),
            arrays | {"first": first, "second": second},
        )


def _words(validated: Validated | None, shares: Mapping[str, float] | None) -> dict[str, Any]:
    """Give what a record's details say of validation, and of the members of an ensemble."""
    words: dict[str, Any] = {}
    if validated is not None:
        words = {
            "validation_auc": validated.auc,
            "validation_interval": validated.interval and [*validated.interval],
            "sign": validated.sign,
        }
    if shares is not None:
        words["weights"] = dict(shares)
    return words


def _retrieval_record(
    retrieval: Retrieval, known: Mapping[str, Any]
) -> tuple[RetrievalRecord, dict[str, NDArray[Any]]]:
    rank1 = retrieval.found.rank1.numpy()
    precision = retrieval.found.average_precision.numpy()
    patients = retrieval.patients
    resamples = Resamples(patients)
    record = RetrievalRecord(
        **known,
        rank1=float(rank1.mean()),
        rank1_interval=interval(resamples.of(weighted_mean(rank1), patients)),
        map_at_r=float(precision.mean()),
        map_interval=interval(resamples.of(weighted_mean(precision), patients)),
        chance_rank1=float(retrieval.found.chance.mean()),
        queries=len(rank1),
        gallery=retrieval.gallery,
        patients=len(resamples.codes),
    )
    return record, {"rank1": rank1, "average_precision": precision, "patient": patients}


def _data(tested: TestedSet) -> dict[str, Any]:
    return {"data": tested.name, "data_digest": tested.prepared.digest}


def _narrow(scores: Scores) -> NDArray[Any]:
    """Give the scores in single precision where that keeps their order, ties and all."""
    narrow = scores.astype(np.float32)
    same = len(np.unique(narrow)) == len(np.unique(scores))
    return narrow if same else scores


def _told(record: AttackRecord | RetrievalRecord) -> str:
    if isinstance(record, RetrievalRecord):
        return f"rank-1 {record.rank1:.3f}, mAP@R {record.map_at_r:.3f}"
    around = "" if record.interval is None else " [{:.3f}, {:.3f}]".format(*record.interval)
    return f"{record.pair_list}: AUC {record.auc:.3f}{around}"
