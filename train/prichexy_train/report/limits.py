"""What the figures of a report can and cannot show, said from the records themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from prichexy_train.measures.summary import AttackSummary
from prichexy_train.records import AttackRecord
from prichexy_train.report.evidence import Run
from prichexy_train.report.published import Published
from prichexy_train.report.results import FRESH, MethodResult, Section
from prichexy_train.report.wording import (
    counted,
    in_words,
    interval_text,
    listed,
    percent,
    points,
    spread,
)

__all__ = ["agreement", "findings", "limits", "training_notes"]

#: The rungs that a full ladder has.
_LADDER: Final = frozenset(range(1, 10))
#: The rung of the generator's own critic, and the methods that have one.
_CRITIC: Final = 5
_WITH_CRITIC: Final = frozenset({"prichexy-net", "privacy-net"})
#: Of the chi-square distribution: its quantiles are then right to the digit that is shown.
_DRAWS: Final = 200_000
#: Below so many seeds a deviation says next to nothing.
_FEW_SEEDS: Final = 5


def findings(section: Section, pair_list: str) -> tuple[str, ...]:
    """Give the table's main points in sentences: re-identification, protection, utility."""
    return tuple(_findings(section, pair_list))


def limits(section: Section, pair_list: str) -> tuple[str, ...]:
    """Give what a list of pairs of this size, attacked so, cannot show."""
    return tuple(_limits(section, pair_list))


def agreement(section: Section, pair_list: str, paper: Published) -> tuple[str, ...]:
    """Give a sentence for each method that was published: where the paper's attack agrees.

    None where rung 1 is another attacker, or on other data: there is nothing to agree in.
    """
    if not section.papers_attack:
        return ()
    return tuple(
        sentence
        for method in section.methods
        if (sentence := _agreement(method, pair_list, paper)) is not None
    )


def _findings(section: Section, pair_list: str) -> Iterator[str]:
    real = section.real and section.real.strongest.get(pair_list)
    if real:
        yield (
            f"On real images the strongest attacker ({in_words(real.rung)}) tells pairs of one "
            f"patient from pairs of two with an AUC of {percent(real.auc.mean)} "
            f"{interval_text(real.auc.interval)}."
        )
    tried = [one for one in section.methods if not one.real and pair_list in one.changes]
    lower = [one for one in tried if one.changes[pair_list].certain]
    if lower:
        each = (
            f"{one.label} ({points(one.changes[pair_list].difference)} points "
            f"{interval_text(one.changes[pair_list].interval, signed=True)})"
            for one in lower
        )
        yield (
            "Beyond chance, the strongest attacker does worse than on real images on "
            f"{listed(each)}."
        )
    once = [one for one in tried if one.changes[pair_list].trained_once]
    if once:
        yield (
            f"For {listed(one.label for one in once)} the strongest attacker compared was trained "
            "once, so how much his training varies is not known: no protection was shown."
        )
    if unproven := [
        one.label for one in tried if one not in once and _reaches_zero(one, pair_list)
    ]:
        yield (
            f"For {listed(unproven)} the 95 % interval of the change reaches zero or lies above: "
            "no protection was shown."
        )
    for one in tried:
        if (beyond := one.changes[pair_list].beyond) is not None:
            change = one.changes[pair_list]
            further = points(beyond.auc.mean - change.real.mean)
            text = "" if one in lower else ", so no protection was shown"
            yield (
                f"The strongest attack on {one.label}, {in_words(beyond.rung)}, was not made by "
                "the same attacker on real images and is not in the change. From the "
                f"strongest compared there it lies {further} points "
                f"{interval_text(change.beyond_interval, signed=True)}{text}."
            )
    for one in section.methods:
        if (reason := one.uncompared.get(pair_list)) is not None:
            yield f"{one.label} cannot be compared with real images: {reason}."
    for one in section.methods:
        utility = one.utility
        if one.real or utility is None or utility.difference_interval is None:
            continue
        if utility.difference_interval[1] < 0:
            yield (
                f"{one.label} changes the class AUC by {points(utility.difference)} points "
                f"{interval_text(utility.difference_interval, signed=True)}."
            )


def _reaches_zero(method: MethodResult, pair_list: str) -> bool:
    interval = method.changes[pair_list].interval
    return interval is None or interval[1] >= 0


def _limits(section: Section, pair_list: str) -> Iterator[str]:
    attacks = [one for method in section.methods for one in method.attacks.get(pair_list, ())]
    if not attacks:
        return
    yield _size(attacks[0])
    widths = [high - low for one in attacks if one.auc.interval for low, high in [one.auc.interval]]
    if widths:
        half = float(np.median(widths)) / 2
        yield (
            "Other patients of the same kind would move a verification AUC by about "
            f"±{percent(half)} points (half of the median 95 % interval over patients). "
            "Differences below that are to be read from the column that compares on the same "
            "patients, or not at all."
        )
    else:
        yield "There are too few patients for an interval: no figure here can be generalised."
    yield _seeds([one for one in attacks if one.counted])
    yield from _missing_rungs(section, pair_list)
    yield from _left_aside(section, pair_list)
    yield from _floor(attacks)
    yield from _controls(attacks)
    yield from _labels(section)


def _size(attack: AttackSummary) -> str:
    record = attack.records[0].record
    positives = record.positives if isinstance(record, AttackRecord) else 0
    owners = attack.records[0].scores()
    same = owners["same"].astype(bool)
    _, times = np.unique(owners["first"][same], return_counts=True)
    text = (
        f"The list holds {counted(attack.pairs, 'pair')} of {counted(attack.patients, 'patient')}; "
        f"its {positives:,} pairs of one patient come from {counted(len(times), 'patient')}"
    )
    most = int(times.max(initial=0))
    return f"{text}, at most {most:,} from one." if most > 1 else f"{text}, one from each."


def _seeds(attacks: Sequence[AttackSummary]) -> str:
    numbers = sorted({len(one.seeds) for one in attacks})
    if not numbers:
        return "No attacker was tried."
    range_ = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
    text = f"Each attacker was tried with {range_} {'seed' if numbers == [1] else 'seeds'}"
    fewest = min((number for number in numbers if number > 1), default=1)
    if numbers[-1] == 1:
        return f"{text}: how much its training varies is not known."
    low, high = _deviation_factor(fewest)
    sentence = f"{text}. A deviation from {fewest} values lies between {low:.1f} and {high:.1f} "
    sentence += "times the true one (95 %, for normal values)"
    return f"{sentence}{': take it as an order of magnitude.' if fewest < _FEW_SEEDS else '.'}"


def _deviation_factor(values: int) -> tuple[float, float]:
    """Give the 95 % range of an estimated over the true standard deviation of so many values."""
    draws = np.random.Generator(np.random.PCG64(1)).chisquare(values - 1, _DRAWS)
    low, high = np.sqrt(np.quantile(draws, [0.025, 0.975]) / (values - 1))
    return float(low), float(high)


def _missing_rungs(section: Section, pair_list: str) -> Iterator[str]:
    lacking: dict[tuple[int, ...], list[str]] = {}
    for method in section.methods:
        tried = {one.number for one in method.attacks.get(pair_list, ())}
        if not tried:
            continue
        tried |= {one.number for one in method.retrievals}
        # Only what was trained against a critic can be attacked with one.
        wanted = _LADDER if method.words.kind in _WITH_CRITIC else _LADDER - {_CRITIC}
        if missing := tuple(sorted(wanted - tried)):
            lacking.setdefault(missing, []).append(method.label)
    text = (
        "The maximum is over the attacks that were made. A stronger attacker may exist, so it "
        "bounds the risk from below."
    )
    each = [
        f"{'rung' if len(missing) == 1 else 'rungs'} {listed(map(str, missing))} on {listed(names)}"
        for missing, names in lacking.items()
    ]
    yield f"{text} Not tried: {'; '.join(each)}." if each else text


def _left_aside(section: Section, pair_list: str) -> Iterator[str]:
    """Say which attacks on real images the comparison does without: a method did not meet them."""
    real = section.real
    if real is None:
        return
    met = [(one.number, one.rung) for one in real.attacks.get(pair_list, ()) if one.counted]
    aside: dict[tuple[str, ...], list[str]] = {}
    for method in section.methods:
        if (found := method.changes.get(pair_list)) is not None:
            known = {(one.attack.number, one.attack.rung) for one in found.compared}
            if names := tuple(
                in_words(name) for number, name in met if (number, name) not in known
            ):
                aside.setdefault(names, []).append(method.label)
    each = [f"{listed(names)} for {listed(labels)}" for names, labels in aside.items()]
    if each:
        yield (
            "Changes compare only what an equal attacker did on both. Left aside of the attacks on "
            f"real images: {'; '.join(each)}."
        )


def _floor(attacks: Sequence[AttackSummary]) -> Iterator[str]:
    floors = [one for one in attacks if one.role == "floor"]
    if floors:
        top = max(floors, key=lambda one: one.auc.mean)
        yield (
            f"Without any image, {in_words(top.rung)} reaches {percent(top.auc.mean)} "
            f"{interval_text(top.auc.interval)} on this list: what no change of pixels can hide."
        )


def _controls(attacks: Sequence[AttackSummary]) -> Iterator[str]:
    controls: dict[str, list[float]] = {}
    for one in attacks:
        if one.role == "control":
            controls.setdefault(one.rung, []).append(one.auc.mean)
    each = []
    for name, values in sorted(controls.items()):
        low, high = percent(min(values)), percent(max(values))
        each.append(f"{in_words(name)} {low if low == high else f'{low} to {high}'}")
    if each:
        yield f"Controls: {'; '.join(each)}."


def _labels(section: Section) -> Iterator[str]:
    utility = next((one.utility for one in section.methods if one.utility), None)
    if utility is None:
        return
    measured = {name: one for name, one in utility.labels.items() if one.control is not None}
    absent = [name for name in utility.labels if name not in measured]
    rare = min(measured.items(), key=lambda item: item[1].positives, default=None)
    text = (
        f"Utility is the mean AUC of {counted(len(measured), 'label')} on "
        f"{counted(utility.images, 'image')} of {counted(utility.patients, 'patient')}"
    )
    if rare:
        text += f"; the rarest, {rare[0]}, is on {counted(rare[1].positives, 'image')}"
    yield f"{text}."
    if absent:
        yield f"Not measured, for want of images with or without them: {listed(absent)}."


def _agreement(method: MethodResult, pair_list: str, paper: Published) -> str | None:
    row, attack = paper.of(method.words), method.rung(pair_list, FRESH)
    if row is None or attack is None:
        return None
    printed, ours = row.verification.mean / 100, attack.auc
    inside = ours.interval is not None and ours.interval[0] <= printed <= ours.interval[1]
    verdict = "the published figure lies inside" if inside else "the published figure lies outside"
    if ours.interval is None:
        verdict = "there is no interval to compare with"
    strong = method.strongest.get(pair_list)
    more = ""
    if strong is not None and strong is not attack:
        more = f" The strongest attack here, {in_words(strong.rung)}, reaches {spread(strong.auc)}."
    other = (
        " It was published with the other operator."
        if method.words.values.get("border") == "corrected"
        else ""
    )
    return (
        f"{method.label}: published {row.verification.mean:.1f}, here {spread(ours)} "
        f"{interval_text(ours.interval)} under the paper’s attack; {verdict}.{other}{more}"
    )


def training_notes(runs: Sequence[Run]) -> tuple[str, ...]:
    """Give which trainings ended while they were still improving."""
    rising = [
        run.name
        for run in runs
        if run.history and run.result and run.result.get("best_epoch") == len(run.history)
    ]
    if not rising:
        return ()
    noun = "training was" if len(rising) == 1 else "trainings were"
    text = f"{len(rising)} {noun} still improving when the epochs ended, so longer training may "
    return (f"{text}change the figures: {listed(rising)}.",)
