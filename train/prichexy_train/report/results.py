"""The results of a report in order: a section a data set, a row a method, an attack a rung."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from prichexy_train.errors import Failed
from prichexy_train.measures.summary import (
    AttackSummary,
    RetrievalSummary,
    strongest,
    summarise,
)
from prichexy_train.records import ROLES, AttackRecord, MethodOf, Role, Stored, UtilityRecord
from prichexy_train.report.changes import Change, NotComparable, change
from prichexy_train.report.evidence import Evidence
from prichexy_train.report.methods import Described, described

__all__ = ["FRESH", "MethodResult", "Section", "sections"]

#: The rung of an attacker who learns afresh from anonymised pairs, as the paper's own does.
FRESH: Final = 1
#: What makes him the paper's: his settings, and what he is tested on.
_PAPERS_OBJECTIVE: Final = "pairs"
_PAPERS_BACKBONE: Final = "resnet50"
_PAPERS_DATA: Final = "chestxray14"


@dataclass(frozen=True)
class MethodResult:
    """All that was measured of one method on one data set.

    ``attacks`` has, for each list of pairs, the rungs in the ladder's order. ``strongest`` is the
    maximum over all of them, ``changes`` that over what real images met, too, against theirs;
    ``uncompared`` says of each list without a change why. ``label`` is unique in its section.

    ``beside`` has what was measured on real images beside the ladder, by role: shortcut checks and
    a learning curve's trials, on lists and by search. None of it is in ``attacks`` or
    ``retrievals``.
    """

    words: Described
    label: str
    digest: str
    attacks: Mapping[str, Sequence[AttackSummary]]
    strongest: Mapping[str, AttackSummary]
    changes: Mapping[str, Change]
    uncompared: Mapping[str, str]
    retrievals: Sequence[RetrievalSummary]
    utility: UtilityRecord | None
    beside: Mapping[Role, Sequence[AttackSummary | RetrievalSummary]]

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
    """A data set's results; ``pair_lists`` in the order of their names, methods in a table's.

    ``papers_attack``: rung 1 is the paper's own attacker, on the paper's own data.
    """

    data: str
    digests: tuple[str, ...]
    pair_lists: tuple[str, ...]
    methods: tuple[MethodResult, ...]
    papers_attack: bool = False

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
        papers_attack=data == _PAPERS_DATA and _as_published(here, evidence),
    )


def _as_published(here: Sequence[Stored], evidence: Evidence) -> bool:
    """Whether every attacker of rung 1 was trained by the settings that were published."""
    fresh = [
        stored
        for stored in here
        if isinstance(stored.record, AttackRecord) and stored.record.rung.number == FRESH
    ]
    tables = []
    for stored in fresh:
        run = evidence.run_of(stored)
        tables.append({} if run is None else run.settings.get("fresh", {}))
    return bool(tables) and all(
        table.get("objective") == _PAPERS_OBJECTIVE
        and table.get("network", {}).get("backbone") == _PAPERS_BACKBONE
        for table in tables
    )


def _method(
    method: MethodOf,
    here: Sequence[Stored],
    about: Sequence[AttackSummary | RetrievalSummary],
    best: Mapping[tuple[str, str, str, str], AttackSummary],
) -> MethodResult:
    ours = [one for one in about if (one.method, one.method_digest) == (method.name, method.digest)]
    attacks: dict[str, list[AttackSummary]] = {}
    retrievals: list[RetrievalSummary] = []
    beside: dict[Role, list[AttackSummary | RetrievalSummary]] = {}
    for one in ours:
        if one.role not in ROLES:
            beside.setdefault(one.role, []).append(one)
        elif isinstance(one, AttackSummary):
            attacks.setdefault(one.pair_list, []).append(one)
        else:
            retrievals.append(one)
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
        uncompared={},
        retrievals=tuple(retrievals),
        utility=_utility(method, here),
        beside=beside,
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
    changes: dict[str, Change] = {}
    uncompared: dict[str, str] = {}
    for name in method.strongest:
        try:
            changes[name] = change(method.attacks[name], real.attacks.get(name, ()))
        except NotComparable as reason:
            uncompared[name] = str(reason)
    return replace(method, changes=changes, uncompared=uncompared)


def _told_apart(methods: Sequence[MethodResult], owners: Mapping[str, str]) -> list[MethodResult]:
    """Give each a label of its own: methods of equal settings, trained apart, name their run."""
    times = Counter(one.label for one in methods)
    return [
        replace(one, label=f"{one.label} ({owners[one.digest]})") if times[one.label] > 1 else one
        for one in methods
    ]
