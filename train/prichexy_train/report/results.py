"""The results of a report in order: a section a data set, a row a method, an attack a rung."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from prichexy_train.errors import Failed
from prichexy_train.measures.bootstrap import Resamples, interval, weighted_auc
from prichexy_train.measures.summary import (
    AttackSummary,
    RetrievalSummary,
    strongest,
    summarise,
)
from prichexy_train.records import MethodOf, Stored, UtilityRecord
from prichexy_train.report.evidence import Evidence
from prichexy_train.report.methods import Described, described

__all__ = ["PAPERS_ATTACK", "Change", "MethodResult", "Section", "change", "sections"]

#: The rung that the paper itself reports.
PAPERS_ATTACK = 1


@dataclass(frozen=True)
class Change:
    """How far one attack's AUC lies from another's on the same pairs, below 0 where it is lower.

    The interval comes of the same resamples of patients for both.
    """

    difference: float
    interval: tuple[float, float] | None

    @property
    def certain(self) -> bool:
        """Whether the whole interval lies below 0: fewer patients are told than before."""
        return self.interval is not None and self.interval[1] < 0


@dataclass(frozen=True)
class MethodResult:
    """All that was measured of one method on one data set.

    ``attacks`` has, for each list of pairs, the rungs in the ladder's order. ``label`` is unique
    in its section.
    """

    words: Described
    label: str
    digest: str
    attacks: Mapping[str, Sequence[AttackSummary]]
    strongest: Mapping[str, AttackSummary]
    changes: Mapping[str, Change]
    retrievals: Sequence[RetrievalSummary]
    utility: UtilityRecord | None

    @property
    def real(self) -> bool:
        """Whether this is no method at all but the images as they are."""
        return self.words.kind == "real"

    @property
    def best_retrieval(self) -> RetrievalSummary | None:
        """Give the retrieval by image that found most at rank 1; None where none was run."""
        images = [one for one in self.retrievals if one.role in {"attack", "baseline"}]
        return max(images, key=lambda one: one.rank1.mean, default=None)

    def rung(self, pair_list: str, number: int) -> AttackSummary | None:
        """Give a rung's strongest attack on a list; None where it was not run."""
        found = [one for one in self.attacks.get(pair_list, ()) if one.number == number]
        counted = [one for one in found if one.counted] or found
        return max(counted, key=lambda one: one.auc.mean, default=None)


@dataclass(frozen=True)
class Section:
    """A data set's results; ``pair_lists`` in the order of their names, methods in a table's."""

    data: str
    digests: tuple[str, ...]
    pair_lists: tuple[str, ...]
    methods: tuple[MethodResult, ...]

    @property
    def real(self) -> MethodResult | None:
        """Give what was measured on the images as they are; None where that was not done."""
        return next((one for one in self.methods if one.real), None)


def sections(evidence: Evidence) -> tuple[Section, ...]:
    """Give the results, data set by data set in the order of their names.

    Raises Failed for records that contradict each other: two of one attack and seed, attacks of
    one rung on different pairs, two utilities of one method.
    """
    summaries = summarise(evidence.records)
    names = sorted({stored.record.data for stored in evidence.records})
    return tuple(_section(name, evidence, summaries) for name in names)


def change(attack: AttackSummary, real: AttackSummary) -> Change | None:
    """Give how ``attack`` differs from ``real``; None where they are not of the same pairs."""
    ours = [stored.scores() for stored in attack.records]
    theirs = [stored.scores() for stored in real.records]
    first, second, same = (ours[0][name] for name in ("first", "second", "same"))
    if any(not np.array_equal(ours[0][name], theirs[0][name]) for name in ("first", "second")):
        return None
    resamples = Resamples(np.concatenate([first, second]))

    def replicates(all_scores: Sequence[Mapping[str, NDArray[np.float64]]]) -> NDArray[np.float64]:
        each = [
            resamples.of(weighted_auc(one["scores"], same), first, second) for one in all_scores
        ]
        values: NDArray[np.float64] = np.mean(each, axis=0)
        return values

    return Change(attack.auc.mean - real.auc.mean, interval(replicates(ours) - replicates(theirs)))


def _section(
    data: str, evidence: Evidence, summaries: Sequence[AttackSummary | RetrievalSummary]
) -> Section:
    here = [stored for stored in evidence.records if stored.record.data == data]
    about = [one for one in summaries if one.data == data]
    best = strongest(about)
    found: dict[tuple[str, str], MethodOf] = {
        (stored.record.method.name, stored.record.method.digest): stored.record.method
        for stored in here
    }
    methods = [_method(method, here, about, best) for method in found.values()]
    methods.sort(key=lambda one: (*one.words.order, one.digest))
    real = next((one for one in methods if one.real), None)
    if real is not None:
        methods = [one if one.real else _changed(one, real) for one in methods]
    owners = {stored.record.method.digest: evidence.owner(stored) for stored in here}
    return Section(
        data=data,
        digests=tuple(sorted({stored.record.data_digest for stored in here} - {""})),
        pair_lists=tuple(sorted({name for one in methods for name in one.attacks})),
        methods=tuple(_told_apart(methods, owners)),
    )


def _method(
    method: MethodOf,
    here: Sequence[Stored],
    about: Sequence[AttackSummary | RetrievalSummary],
    best: Mapping[tuple[str, str, str, str], AttackSummary],
) -> MethodResult:
    ours = [one for one in about if (one.method, one.method_digest) == (method.name, method.digest)]
    attacks: dict[str, list[AttackSummary]] = {}
    for one in ours:
        if isinstance(one, AttackSummary):
            attacks.setdefault(one.pair_list, []).append(one)
    words = described(method)
    return MethodResult(
        words=words,
        label=words.label,
        digest=method.digest,
        attacks={
            name: sorted(each, key=lambda one: (one.number, one.rung))
            for name, each in attacks.items()
        },
        strongest={
            pair_list: attack
            for (_, pair_list, name, digest), attack in best.items()
            if (name, digest) == (method.name, method.digest)
        },
        changes={},
        retrievals=tuple(one for one in ours if isinstance(one, RetrievalSummary)),
        utility=_utility(method, here),
    )


def _utility(method: MethodOf, here: Sequence[Stored]) -> UtilityRecord | None:
    found = [
        stored
        for stored in here
        if isinstance(stored.record, UtilityRecord) and stored.record.method == method
    ]
    if len(found) > 1:
        raise Failed(f"{found[1].path}: {found[0].path} is the same method's utility")
    record = found[0].record if found else None
    return record if isinstance(record, UtilityRecord) else None


def _changed(method: MethodResult, real: MethodResult) -> MethodResult:
    changes = {
        name: found
        for name, attack in method.strongest.items()
        if name in real.strongest and (found := change(attack, real.strongest[name])) is not None
    }
    return replace(method, changes=changes)


def _told_apart(methods: Sequence[MethodResult], owners: Mapping[str, str]) -> list[MethodResult]:
    """Give each a label of its own: methods of equal settings, trained apart, name their run."""
    times = Counter(one.label for one in methods)
    return [
        replace(one, label=f"{one.label} ({owners[one.digest]})") if times[one.label] > 1 else one
        for one in methods
    ]
