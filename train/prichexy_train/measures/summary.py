"""From records to the figures of a table: mean, spread, interval, and the strongest attack."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from prichexy_train.measures.bootstrap import (
    REPLICATES,
    Resamples,
    interval,
    weighted_auc,
    weighted_mean,
)
from prichexy_train.records import (
    AttackRecord,
    RecordError,
    RetrievalRecord,
    Role,
    Stored,
)

__all__ = ["COUNTED", "AttackSummary", "Figure", "RetrievalSummary", "strongest", "summarise"]

#: The roles over which the maximum is taken: all that an attacker can do to an image.
COUNTED: Final[tuple[Role, ...]] = ("attack", "baseline")


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a table.

    ``sd`` is the sample standard deviation over seeds, None for one seed: how much the attacker's
    training varies. ``interval`` holds 95 % of resamples of the patients, of the mean over seeds:
    how much the figure depends on who is in the test. Neither contains the other.
    """

    mean: float
    sd: float | None
    interval: tuple[float, float] | None
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class AttackSummary:
    """All seeds of one rung against one method on one list of pairs.

    ``records`` are in the order of ``seeds``.
    """

    data: str
    method: str
    method_digest: str
    pair_list: str
    number: int
    rung: str
    role: Role
    auc: Figure
    seeds: tuple[int, ...]
    pairs: int
    patients: int
    seconds: float
    records: tuple[Stored, ...]
    kind: Literal["attack"] = "attack"

    @property
    def counted(self) -> bool:
        """Whether the maximum over rungs is taken over it, too."""
        return self.role in COUNTED


@dataclass(frozen=True, slots=True)
class RetrievalSummary:
    """All seeds of one way of retrieval against one method."""

    data: str
    method: str
    method_digest: str
    number: int
    rung: str
    role: Role
    rank1: Figure
    map_at_r: Figure
    chance_rank1: float
    seeds: tuple[int, ...]
    queries: int
    gallery: int
    patients: int
    seconds: float
    records: tuple[Stored, ...]
    kind: Literal["retrieval"] = "retrieval"


def summarise(
    records: Iterable[Stored], *, replicates: int = REPLICATES
) -> list[AttackSummary | RetrievalSummary]:
    """Give a summary of each rung, method, data and list of pairs that the records are about.

    In the order of data, list, method and rung; records of utility are left aside. Raises
    RecordError when two records are of the same attack and seed, when records of one attack are
    not of the same pairs, and when their scores cannot be read.
    """
    groups: dict[tuple[Any, ...], list[Stored]] = {}
    for stored in records:
        record = stored.record
        if isinstance(record, AttackRecord):
            key = (record.data, record.pair_list, *_key(record))
        elif isinstance(record, RetrievalRecord):
            key = (record.data, "", *_key(record))
        else:
            continue
        groups.setdefault(key, []).append(stored)
    found: list[AttackSummary | RetrievalSummary] = []
    for _, group in sorted(groups.items()):
        group.sort(key=lambda stored: stored.record.seed)
        _check_seeds(group)
        if isinstance(group[0].record, AttackRecord):
            found.append(_attack(group, replicates))
        else:
            found.append(_retrieval(group, replicates))
    return found


def strongest(
    summaries: Iterable[AttackSummary | RetrievalSummary],
) -> dict[tuple[str, str, str, str], AttackSummary]:
    """Give the attack with the highest mean AUC, for each data, list, method and its digest.

    Only of the roles in ``COUNTED``. The keys are (data, pair list, method, method digest). Its
    interval is the chosen rung's own: being chosen for its height, it is a little too high, and
    so errs on the side of caution.
    """
    best: dict[tuple[str, str, str, str], AttackSummary] = {}
    for summary in summaries:
        if not isinstance(summary, AttackSummary) or not summary.counted:
            continue
        key = (summary.data, summary.pair_list, summary.method, summary.method_digest)
        if key not in best or summary.auc.mean > best[key].auc.mean:
            best[key] = summary
    return best


def _key(record: AttackRecord | RetrievalRecord) -> tuple[Any, ...]:
    rung = record.rung
    return (record.method.name, record.method.digest, rung.number, rung.name, record.kind)


def _check_seeds(group: Sequence[Stored]) -> None:
    for one, other in pairwise(group):
        if one.record.seed == other.record.seed:
            raise RecordError(f"{other.path}: {one.path} is the same attack with the same seed")


def _attack(group: Sequence[Stored], replicates: int) -> AttackSummary:
    records = [stored.record for stored in group if isinstance(stored.record, AttackRecord)]
    first, each = records[0], [stored.scores() for stored in group]
    for stored, scores in zip(group, each, strict=True):
        if any(not np.array_equal(scores[name], each[0][name]) for name in _PAIRS):
            raise RecordError(f"{stored.path}: is not of the same pairs as {group[0].path}")
    patients = np.concatenate([each[0]["first"], each[0]["second"]])
    resamples = Resamples(patients, replicates)
    return AttackSummary(
        data=first.data,
        method=first.method.name,
        method_digest=first.method.digest,
        pair_list=first.pair_list,
        number=first.rung.number,
        rung=first.rung.name,
        role=first.rung.role,
        auc=_figure(
            [record.auc for record in records],
            [
                resamples.of(weighted_auc(one["scores"], one["same"]), one["first"], one["second"])
                for one in each
            ],
        ),
        seeds=tuple(record.seed for record in records),
        pairs=first.pairs,
        patients=first.patients,
        seconds=sum(record.seconds for record in records),
        records=tuple(group),
    )


def _retrieval(group: Sequence[Stored], replicates: int) -> RetrievalSummary:
    records = [stored.record for stored in group if isinstance(stored.record, RetrievalRecord)]
    first, each = records[0], [stored.scores() for stored in group]
    for stored, scores in zip(group, each, strict=True):
        if not np.array_equal(scores["patient"], each[0]["patient"]):
            raise RecordError(f"{stored.path}: is not of the same queries as {group[0].path}")
    patients = each[0]["patient"]
    resamples = Resamples(patients, replicates)
    return RetrievalSummary(
        data=first.data,
        method=first.method.name,
        method_digest=first.method.digest,
        number=first.rung.number,
        rung=first.rung.name,
        role=first.rung.role,
        rank1=_figure(
            [record.rank1 for record in records],
            [resamples.of(weighted_mean(one["rank1"]), patients) for one in each],
        ),
        map_at_r=_figure(
            [record.map_at_r for record in records],
            [resamples.of(weighted_mean(one["average_precision"]), patients) for one in each],
        ),
        chance_rank1=first.chance_rank1,
        seeds=tuple(record.seed for record in records),
        queries=first.queries,
        gallery=first.gallery,
        patients=first.patients,
        seconds=sum(record.seconds for record in records),
        records=tuple(group),
    )


def _figure(values: Sequence[float], replicates: Sequence[NDArray[np.float64]]) -> Figure:
    # The same resamples for every seed, so their mean is a resample of the mean.
    return Figure(
        mean=float(np.mean(values)),
        sd=float(np.std(values, ddof=1)) if len(values) > 1 else None,
        interval=interval(np.mean(replicates, axis=0)),
        values=tuple(values),
    )


_PAIRS: Final = ("first", "second", "same")
