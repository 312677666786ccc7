"""What the strong verifiers look at: the table, and a sentence on each row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from prichexy_train.measures.summary import AttackSummary
from prichexy_train.report.paired import paired_difference
from prichexy_train.report.results import Section
from prichexy_train.report.tables import Cell, Column, Table
from prichexy_train.report.wording import NONE, in_words, interval_text, listed, percent, points

__all__ = ["shortcuts_findings", "shortcuts_table"]

_PREFIX: Final = "shortcut-"
_UNCHANGED: Final = "shortcut-unchanged"

#: What a check's details, of its data set, make of its name, and how its row is to be read.
_Words = tuple[Callable[[Mapping[str, Any]], str], str]
_ROWS: Final[Mapping[str, _Words]] = {
    "shortcut-unchanged": (
        lambda _: "Images as they are",
        "What the others are compared with.",
    ),
    "shortcut-without-markers": (
        lambda told: (
            f"Markers hidden: corners of {_share(told, 'corner')} of the side, an upper strip of "
            f"{_share(told, 'strip')}"
        ),
        "A fall beyond chance: side markers, labels or lines there give people away.",
    ),
    "shortcut-without-border": (
        lambda told: f"Border hidden: {_share(told, 'border')} of the side",
        "A fall beyond chance: collimation, arms or what stands at the edge take part.",
    ),
    "shortcut-border-alone": (
        lambda told: f"Border alone: {_share(told, 'border')} of the side",
        "Above 50: the margin identifies by itself, with no lung in it.",
    ),
    "shortcut-one-aspect": (
        lambda told: f"Squeezed from one aspect ratio, {told.get('aspect', NONE)}",
        "A fall beyond chance: the squeezing into a square takes part, or what was cut off.",
    ),
    "shortcut-any-aspect": (
        lambda told: f"Each stretched along one axis by up to {told.get('stretch', NONE)}",
        "The same with no table of sizes: no fall says that the aspect ratio is no shortcut.",
    ),
    "shortcut-one-histogram": (
        lambda _: "One histogram for all",
        "A fall beyond chance: exposure and processing take part, not shape alone.",
    ),
    "shortcut-centre-enlarged": (
        lambda told: f"Centre alone, {_share(told, 'centre')} of the side, enlarged",
        "How far the middle goes; a scale that the verifiers never met costs them, too.",
    ),
}


def shortcuts_table(section: Section) -> Table | None:
    """Give each check on each list, beside the images as they are; None where none was made.

    Below them what no image tells: the original size alone.
    """
    found = _found(section)
    lists = sorted({name for each in found.values() for name in each})
    if not lists:
        return None
    rows: list[tuple[str, Sequence[Cell]]] = []
    for rung, (head, reading) in _ROWS.items():
        if rung in found:
            told = _told(next(iter(found[rung].values())), section.data)
            cells = [cell for name in lists for cell in _cells(found, rung, name)]
            rows.append((head(told), [*cells, Cell(reading)]))
    rows += _without_images(section, lists)
    columns = [
        column
        for name in lists
        for column in (Column(f"“{name}”", "verification AUC"), Column("Change", "same pairs"))
    ]
    who = listed(_verifiers(found))
    return Table(
        caption=f"{section.data}: what the strong verifiers ({who}) look at, on real images",
        first="What they are shown",
        columns=[*columns, Column("How to read it", text=True, prose=True)],
        rows=rows,
    )


def shortcuts_findings(section: Section) -> tuple[str, ...]:
    """Give for each list, in a sentence, which changes cost the verifiers something for certain."""
    found = _found(section)
    sentences = []
    for name, whole in sorted(found.get(_UNCHANGED, {}).items()):
        falls = []
        for rung, each in found.items():
            if rung == _UNCHANGED or name not in each:
                continue
            difference, interval = paired_difference(each[name], whole)
            if interval is not None and interval[1] < 0:
                falls.append(
                    f"{in_words(rung.removeprefix(_PREFIX))} ({points(difference)} "
                    f"{interval_text(interval, signed=True)})"
                )
        sentences.append(
            f"On “{name}” these lower the AUC of {percent(whole.auc.mean)} beyond chance: "
            f"{listed(falls)}."
            if falls
            else f"On “{name}” no change lowers the AUC of {percent(whole.auc.mean)} beyond chance."
        )
    return tuple(sentences)


def _found(section: Section) -> dict[str, dict[str, AttackSummary]]:
    """Give the checks by name and list."""
    found: dict[str, dict[str, AttackSummary]] = {}
    real = section.real
    for one in real.beside.get("shortcut", ()) if real else ():
        if isinstance(one, AttackSummary):
            found.setdefault(one.rung, {})[one.pair_list] = one
    return found


def _cells(
    found: Mapping[str, Mapping[str, AttackSummary]], rung: str, pair_list: str
) -> tuple[Cell, Cell]:
    one = found[rung].get(pair_list)
    if one is None:
        return Cell(NONE), Cell(NONE)
    figure = Cell(percent(one.auc.mean), interval_text(one.auc.interval))
    whole = found.get(_UNCHANGED, {}).get(pair_list)
    if whole is None or whole is one:
        return figure, Cell(NONE)
    difference, interval = paired_difference(one, whole)
    certain = interval is not None and not interval[0] <= 0 <= interval[1]
    return figure, Cell(points(difference), interval_text(interval, signed=True), strong=certain)


def _without_images(section: Section, lists: Sequence[str]) -> list[tuple[str, Sequence[Cell]]]:
    real = section.real
    floors = {
        (one.rung, name): one
        for name, attacks in (real.attacks.items() if real else ())
        for one in attacks
        if one.role == "floor"
    }
    rows: list[tuple[str, Sequence[Cell]]] = []
    for rung in sorted({rung for rung, _ in floors}):
        cells = []
        for name in lists:
            one = floors.get((rung, name))
            text = NONE if one is None else percent(one.auc.mean)
            note = "" if one is None else interval_text(one.auc.interval)
            cells += [Cell(text, note), Cell(NONE)]
        reading = Cell("Above 50: the list itself gives people away, whatever images show.")
        rows.append((f"No image: {in_words(rung)} alone", [*cells, reading]))
    return rows


def _told(one: AttackSummary, data: str) -> Mapping[str, Any]:
    """Give what a check's record says of this data set."""
    details = one.records[0].record.details
    return {
        key: value[data]
        for key, value in details.items()
        if isinstance(value, dict) and data in value
    }


def _verifiers(found: Mapping[str, Mapping[str, AttackSummary]]) -> list[str]:
    for each in found.values():
        for one in each.values():
            names = one.records[0].record.details.get("verifiers")
            return [str(name) for name in names] if isinstance(names, list) else []
    return []


def _share(told: Mapping[str, Any], key: str) -> str:
    value = told.get(key)
    return NONE if value is None else f"{100 * float(value):g} %"
