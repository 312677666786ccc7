"""How the attackers trained: for how long, how well on validation pairs, and from what.

An attacker who learned too little makes any method look private.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from prichexy_train.measures.summary import AttackSummary
from prichexy_train.records import Stored
from prichexy_train.report.changes import members
from prichexy_train.report.evidence import Evidence, attempt_provenance, began_with
from prichexy_train.report.results import MethodResult, Section
from prichexy_train.report.tables import Cell, Column, Table
from prichexy_train.report.wording import NONE, in_words, listed, percent

__all__ = ["attackers_table", "attackers_warnings"]

#: A validation AUC below this is that of guessing, or nearly.
_CHANCE: Final = 0.55
_FROZEN, _TUNED, _OTHER = 3, 4, 6


def attackers_table(section: Section, evidence: Evidence) -> Table | None:
    """Give how each attacker trained, a value a seed; None where records tell of no training."""
    rows = [
        (
            f"{method.label}: {in_words(attack.rung)}",
            [
                Cell(_each(str(stored.record.seed) for stored in attack.records)),
                Cell(_each(str(stored.record.details["epochs"]) for stored in attack.records)),
                Cell(
                    _each(
                        f"{stored.record.details.get('best_epoch', NONE)}"
                        for stored in attack.records
                    )
                ),
                Cell(_each(_validated(stored) for stored in attack.records)),
                Cell(_each(_beginnings(attack, evidence))),
            ],
        )
        for method in section.methods
        for attack in _trained(method)
    ]
    columns = [
        Column("Seeds"),
        Column("Epochs", "in the order of the seeds"),
        Column("Best epoch", "whose weights attacked"),
        Column("Validation AUC", "of that epoch"),
        Column("Began with", text=True),
    ]
    caption = f"{section.data}: how the attackers trained"
    return Table(caption, "Method and attacker", columns, rows) if rows else None


def attackers_warnings(section: Section) -> tuple[str, ...]:
    """Give sentences on attackers who may have learned too little; controls are none."""
    return tuple(_warnings(section))


def _warnings(section: Section) -> Iterator[str]:
    rising: list[str] = []
    guessing: list[str] = []
    for method in section.methods:
        for attack in _trained(method):
            if not attack.counted:
                continue
            name = f"{in_words(attack.rung)} on {method.label}"
            rising += _with_seeds(name, [one for one in attack.records if _is_rising(one)])
            guessing += _with_seeds(name, [one for one in attack.records if _guesses(one)])
    if rising:
        yield (
            "Still improving when the epochs ended, so these attackers would do better with longer "
            f"training: {'; '.join(rising)}."
        )
    if guessing:
        yield (
            f"On validation pairs below an AUC of {percent(_CHANCE)}, so these attackers learned "
            "nothing: there is nothing to learn, or they were trained too little: "
            f"{'; '.join(guessing)}."
        )
    for pair_list in section.pair_lists:
        for method in section.methods:
            frozen, tuned = (_best(method, pair_list, number) for number in (_FROZEN, _TUNED))
            if frozen and tuned and tuned.auc.mean < frozen.auc.mean:
                yield (
                    f"On {method.label}, pairs “{pair_list}”, a strong verifier that learned on "
                    f"({in_words(tuned.rung)}, {percent(tuned.auc.mean)}) does worse than one as "
                    f"it was ({in_words(frozen.rung)}, {percent(frozen.auc.mean)}): it was trained "
                    "too little, or it forgot."
                )


def _trained(method: MethodResult) -> Iterator[AttackSummary]:
    """Give each attacker who trained, once, whatever lists he was tested on."""
    known = set()
    for attacks in method.attacks.values():
        for attack in attacks:
            name = attack.number, attack.rung
            if name not in known and all("epochs" in one.record.details for one in attack.records):
                known.add(name)
                yield attack


def _best(method: MethodResult, pair_list: str, number: int) -> AttackSummary | None:
    """Give the rung's best attack by one network alone."""
    alone = (
        one
        for one in method.attacks.get(pair_list, ())
        if one.number == number
        and one.role == "attack"
        and not any(members(stored) for stored in one.records)
    )
    return max(alone, key=lambda one: one.auc.mean, default=None)


def _is_rising(stored: Stored) -> bool:
    details = stored.record.details
    return details.get("best_epoch") == details["epochs"]


def _guesses(stored: Stored) -> bool:
    found = _validation_auc(stored)
    return found is not None and found < _CHANCE


def _validation_auc(stored: Stored) -> float | None:
    details: Mapping[str, Any] = stored.record.details
    found = details.get("validation_auc", details.get("validation", {}).get("auc"))
    return None if found is None else float(found)


def _validated(stored: Stored) -> str:
    found = _validation_auc(stored)
    return NONE if found is None else percent(found)


def _beginnings(attack: AttackSummary, evidence: Evidence) -> Iterable[str]:
    return dict.fromkeys(_began(attack, stored, evidence) for stored in attack.records)


def _began(attack: AttackSummary, stored: Stored, evidence: Evidence) -> str:
    """Say what an attacker's network was before it learned, as exactly as can be told."""
    if (name := stored.record.details.get("verifier")) is not None:
        return f"strong verifier {name}"
    found = attempt_provenance(stored)
    if found is not None:
        return began_with(found)
    run = evidence.run_of(stored)
    if run is None:
        return "not recorded"
    settings = run.settings
    fresh = settings.get("fresh", {}).get("network", {})
    network = settings.get("other", {}) if attack.number == _OTHER else fresh
    file = network.get("pretrained")
    return "random weights" if file is None else f"pretrained ({file.rpartition('/')[2]})"


def _with_seeds(name: str, found: Sequence[Stored]) -> list[str]:
    if not found:
        return []
    seeds = listed(str(stored.record.seed) for stored in found)
    return [f"{name} ({'seed' if len(found) == 1 else 'seeds'} {seeds})"]


def _each(words: Iterable[str]) -> str:
    return ", ".join(words)
