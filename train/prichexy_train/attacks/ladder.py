"""The ladder: every attack of the settings against one method, each attempt recorded once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
) -> Climbed:
    """Try every rung with every seed of the settings, and write what came of it below ``run``.

    An attempt whose records are there is not made again, and one that was broken off goes on.
    Past ``deadline``, a value of ``clock``, the attempt at hand is put off and nothing more is
    begun. ``provenance`` is put into each record. Raises what the attacks raise.
    """
    left_out: dict[str, str] = {}
    written = 0
    rungs = rungs_of(target.settings.rungs) if rungs is None else rungs
    for rung in rungs:
        try:
            for seed in rung.seeds(target):
                if _recorded(target, rung, seed, run):
                    continue
                workplace = Workplace(run, rung.name, seed, deadline, clock)
                if workplace.late:
                    return Climbed("deadline", written, left_out)
                written += _attempt(target, rung, workplace, run, provenance or {})
        except NotApplicable as reason:
            left_out[f"{rung.number} {rung.name}"] = str(reason)
            _log.info("rung %d, %s: left out: %s", rung.number, rung.name, reason)
        except NotInTime:
            return Climbed("deadline", written, left_out)
        except Interrupted:
            return Climbed("interrupted", written, left_out)
    return Climbed("finished", written, left_out)


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
