"""The tables of a report, as plain values that page and Markdown are both written from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from prichexy_train.measures.summary import AttackSummary, RetrievalSummary
from prichexy_train.records import ROLES, RungOf, UtilityRecord
from prichexy_train.report.evidence import Run, began_with
from prichexy_train.report.methods import Described
from prichexy_train.report.published import Published, PublishedRow
from prichexy_train.report.results import FRESH, MethodResult, Section
from prichexy_train.report.wording import (
    NONE,
    counted,
    duration,
    in_words,
    interval_text,
    listed,
    percent,
    points,
    spread,
)

__all__ = [
    "Cell",
    "Column",
    "Table",
    "label_table",
    "ladder_table",
    "main_table",
    "network",
    "pairs_table",
    "retrieval_table",
    "runs_table",
    "sets_table",
]

#: What stands behind an attack's name.
_ROLES: Final = {
    "attack": "",
    "baseline": " (no training of its own)",
    "floor": " (no image; not in the maximum)",
    "control": " (control; not in the maximum)",
}


@dataclass(frozen=True)
class Cell:
    """One figure: what it says, a quieter line below it, and whether it stands out."""

    text: str
    note: str = ""
    strong: bool = False


@dataclass(frozen=True)
class Column:
    """A column's head, and a quieter line below it.

    ``text`` where it holds no numbers; ``prose`` where that may take several lines.
    """

    head: str
    note: str = ""
    published: bool = False
    text: bool = False
    prose: bool = False


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows; ``rows`` are (name, cells)."""

    caption: str
    first: str
    columns: Sequence[Column]
    rows: Sequence[tuple[str, Sequence[Cell]]]


_EMPTY: Final = Cell(NONE)


def main_table(section: Section, pair_list: str, paper: Published) -> Table:
    """Give the table that answers what each method hides and what it costs.

    The published columns are there where a method of the section was published.
    """
    rows = [one for one in section.methods if one.attacks.get(pair_list) or one.utility]
    printed = {one.label: paper.of(one.words) for one in rows}
    columns = [
        Column(
            "Paper’s attack" if section.papers_attack else "Fresh attacker",
            "verification AUC, rung 1 ↓",
        ),
        Column("Strongest attack", "verification AUC, maximum over rungs ↓"),
        Column("Against real images", "strongest against strongest, of attacks on both"),
        Column("Rank-1", "retrieval among real images ↓"),
        Column("mAP@R", "the same retrieval ↓"),
        Column("Class AUC", "mean over labels ↑"),
        Column("Change by the method", "class AUC, same resizing"),
    ]
    show_displacement = any(_displacement(one.utility) for one in rows)
    if show_displacement:
        columns.append(Column("Displacement", "RMS along an axis, 95 % of lengths; pixels at 256"))
    show_published = any(printed.values())
    if show_published:
        columns += [
            Column("Published", "verification AUC", published=True),
            Column("Published", "class AUC", published=True),
        ]
    return Table(
        caption=f"{section.data}, pairs “{pair_list}”: what each method hides, and what it costs",
        first="Method",
        columns=columns,
        rows=[
            (
                one.label,
                [
                    _fresh_cell(one, pair_list),
                    _strongest_cell(one, pair_list),
                    _change_cell(one, pair_list),
                    *_retrieval_cells(one),
                    *_utility_cells(one.utility),
                    *([_displacement_cell(one.utility)] if show_displacement else ()),
                    *(_published_cells(printed[one.label], one.words) if show_published else ()),
                ],
            )
            for one in rows
        ],
    )


def ladder_table(section: Section, pair_list: str) -> Table:
    """Give every attack on every method: mean and deviation over seeds, interval over patients.

    A row an attack: the ladder's rungs, then baselines, then what does not count in the maximum.
    """
    roles = {
        (attack.number, attack.rung): attack.role
        for method in section.methods
        for attack in method.attacks.get(pair_list, ())
    }
    order = sorted(roles, key=lambda rung: (ROLES.index(roles[rung]), rung))
    methods = [one for one in section.methods if pair_list in one.attacks]
    found = [
        {(one.number, one.rung): one for one in method.attacks[pair_list]} for method in methods
    ]
    rows = [
        (
            f"{_rung_head(RungOf(number=number, name=name))}{_ROLES[roles[number, name]]}",
            [
                _rung_cell(attacks.get((number, name)), method.strongest.get(pair_list))
                for method, attacks in zip(methods, found, strict=True)
            ],
        )
        for number, name in order
    ]
    return Table(
        caption=f"{section.data}, pairs “{pair_list}”: verification AUC of every attack",
        first="Attack",
        columns=[Column(method.label) for method in methods],
        rows=rows,
    )


def retrieval_table(section: Section) -> Table | None:
    """Give every way of search on every method, rank-1 above mAP@R; None where none was run."""
    methods = [method for method in section.methods if method.retrievals]
    if not methods:
        return None
    found = [{one.rung: one for one in method.retrievals} for method in methods]
    ways = sorted({name for each in found for name in each})
    rows = [
        (in_words(way).removeprefix("retrieval "), [_search_cell(each.get(way)) for each in found])
        for way in ways
    ]
    any_one = methods[0].retrievals[0]
    return Table(
        caption=(
            f"{section.data}: finding a patient’s other images among real ones: rank-1, then mAP@R "
            f"({counted(any_one.queries, 'query', 'queries')} of "
            f"{counted(any_one.patients, 'patient')}, a gallery of {any_one.gallery:,}; rank-1 by "
            f"chance {percent(any_one.chance_rank1)})"
        ),
        first="Searched by",
        columns=[Column(method.label) for method in methods],
        rows=rows,
    )


def label_table(section: Section) -> Table | None:
    """Give the AUC of every label, and of the control; None where no utility was measured."""
    measured = [one for one in section.methods if one.utility]
    if not measured or measured[0].utility is None:
        return None
    first = measured[0].utility
    names = [name for name, figures in first.labels.items() if figures.control is not None]
    rows = [
        (
            "Control: real images, same resizing",
            [_label_cell(first, name, control=True) for name in names],
        )
    ]
    rows += [
        (one.label, [_label_cell(one.utility, name, control=False) for name in names])
        for one in measured
    ]
    return Table(
        caption=f"{section.data}: class AUC of each label",
        first="Method",
        columns=[
            Column(name, f"{first.labels[name].positives:,} of {first.images:,} images")
            for name in names
        ],
        rows=rows,
    )


def sets_table(sets: Mapping[str, Mapping[str, Any]]) -> Table | None:
    """Give how many images and patients each prepared set has, from its own summary."""
    rows = []
    for name, summary in sets.items():
        for part, counts in {"all": summary["all"], **summary["parts"]}.items():
            keys = ("images", "patients", "patients_with_several")
            rows.append((f"{name}, {part}", [Cell(f"{counts[key]:,}") for key in keys]))
    heads = ("Images", "Patients", "with several images")
    return Table("Images", "Set and part", [Column(head) for head in heads], rows) if rows else None


def pairs_table(sets: Mapping[str, Mapping[str, Any]]) -> Table | None:
    """Give how many pairs each list of each prepared set has, and what tells them apart."""
    rows = []
    for name, summary in sets.items():
        for pair_list, counts in summary["pairs"].items():
            cells = [
                Cell(f"{counts['pairs']:,}"),
                Cell(f"{counts['same']:,}"),
                Cell(f"{counts['patients_behind_same']:,}"),
                Cell(percent(counts["share_of_top_50"])),
                Cell(percent(counts["demographics_auc"])),
            ]
            rows.append((f"{name}, {pair_list}", cells))
    columns = [
        Column("Pairs"),
        Column("Of one patient"),
        Column("Patients behind these"),
        Column("Share of 50 patients", "% of pairs of one patient"),
        Column("Sex, age and view alone", "verification AUC"),
    ]
    return Table("Pairs", "Set and list", columns, rows) if rows else None


def runs_table(runs: Sequence[Run]) -> Table:
    """Give what was run, on what machine, for how long."""
    rows = []
    for run in runs:
        starts = run.provenance.get("starts", [])
        devices = dict.fromkeys(str(start["device"]) for start in starts)
        seconds = run.seconds
        best = run.result.get("best_epoch")
        rows.append(
            (
                run.name,
                [
                    Cell(run.stage),
                    Cell(network(run) or NONE),
                    Cell(began_with(run.provenance) if run.history else NONE),
                    Cell(NONE if seconds is None else duration(seconds)),
                    Cell(
                        counted(len(run.history), "epoch") if run.history else NONE,
                        f"best: {best}" if best else "",
                    ),
                    Cell(listed(devices) or NONE),
                    Cell(str(len(starts))),
                    Cell(str(run.provenance.get("seed", NONE))),
                    Cell("finished" if run.result else "not finished", strong=not run.result),
                ],
            )
        )
    columns = [
        Column("Stage", text=True),
        Column("Network", text=True),
        Column("Began with", text=True),
        Column("Time"),
        Column("Trained"),
        Column("Machine", text=True),
        Column("Starts"),
        Column("Seed"),
        Column("State", text=True),
    ]
    return Table("Runs", "Run", columns, rows)


def network(run: Run) -> str:
    """Give what a run trained, or attacked with, in a few words; empty where it does not say."""
    settings = run.settings
    inner = settings.get("network") or settings.get("fresh", {}).get("network")
    if inner:
        return f"{inner['backbone']}, {inner['size']} px"
    anonymizer = settings.get("anonymizer")
    if not anonymizer:
        return ""
    parts = [str(anonymizer["kind"]), f"{anonymizer['size']} px"]
    if "mu" in anonymizer:
        parts.append(f"μ = {anonymizer['mu']:g}, {anonymizer['border']}")
    return ", ".join(parts)


def _rung_head(rung: RungOf) -> str:
    return f"{rung.number}. {in_words(rung.name)}" if rung.number else in_words(rung.name)


def _fresh_cell(method: MethodResult, pair_list: str) -> Cell:
    attack = method.rung(pair_list, FRESH)
    if attack is None:
        return _EMPTY
    return Cell(spread(attack.auc), _seeds(attack))


def _strongest_cell(method: MethodResult, pair_list: str) -> Cell:
    attack = method.strongest.get(pair_list)
    if attack is None:
        return _EMPTY
    number = f"rung {attack.number}" if attack.number else in_words(attack.rung)
    return Cell(spread(attack.auc), f"{interval_text(attack.auc.interval)} {number}", strong=True)


def _change_cell(method: MethodResult, pair_list: str) -> Cell:
    found = method.changes.get(pair_list)
    if found is None:
        return Cell(NONE, method.uncompared.get(pair_list, ""))
    note = interval_text(found.interval, signed=True)
    return Cell(points(found.difference), f"{note} by {counted(len(found.compared), 'attack')}")


def _retrieval_cells(method: MethodResult) -> tuple[Cell, Cell]:
    found = method.best_retrieval
    if found is None:
        return _EMPTY, _EMPTY
    return (
        Cell(spread(found.rank1), f"by chance {percent(found.chance_rank1)}"),
        Cell(spread(found.map_at_r), interval_text(found.map_at_r.interval)),
    )


def _utility_cells(utility: UtilityRecord | None) -> tuple[Cell, Cell]:
    if utility is None:
        return _EMPTY, _EMPTY
    return (
        Cell(percent(utility.auc), interval_text(utility.interval), strong=True),
        Cell(points(utility.difference), interval_text(utility.difference_interval, signed=True)),
    )


def _displacement(utility: UtilityRecord | None) -> Mapping[str, Any]:
    """Give how far a method moves pixels, as its record's details tell; empty where they do not."""
    found = None if utility is None else utility.details.get("displacement")
    return found if isinstance(found, Mapping) else {}


def _displacement_cell(utility: UtilityRecord | None) -> Cell:
    found = _displacement(utility)
    rms, high = found.get("rms"), found.get("p95")
    return Cell(
        NONE if rms is None else f"{rms:.2f}", "" if high is None else f"95 % below {high:.2f}"
    )


def _published_cells(row: PublishedRow | None, words: Described) -> tuple[Cell, Cell]:
    if row is None:
        return _EMPTY, _EMPTY
    verification, utility = row.verification, row.utility
    deviation = "" if verification.deviation is None else f" ± {verification.deviation:.1f}"
    note = "other operator" if words.values.get("border") == "corrected" else ""
    low_high = "" if utility.low is None else f"[{utility.low:.1f}, {utility.high:.1f}]"
    return (
        Cell(f"{verification.mean:.1f}{deviation}", note),
        Cell(f"{utility.mean:.1f}", low_high),
    )


def _rung_cell(attack: AttackSummary | None, best: AttackSummary | None) -> Cell:
    if attack is None:
        return _EMPTY
    note = f"{interval_text(attack.auc.interval)} {_seeds(attack)}".strip()
    if turned := [
        one.record.seed for one in attack.records if one.record.details.get("sign") == -1
    ]:
        seeds = f"{'seed' if len(turned) == 1 else 'seeds'} {listed(map(str, turned))}"
        note += f"; scores turned round, by the validation pairs ({seeds})"
    return Cell(spread(attack.auc), note, strong=attack is best)


def _search_cell(found: RetrievalSummary | None) -> Cell:
    if found is None:
        return _EMPTY
    mean = f"mAP@R {spread(found.map_at_r)} {interval_text(found.map_at_r.interval)}"
    rank1 = f"{spread(found.rank1)} {interval_text(found.rank1.interval)}"
    return Cell(rank1.strip(), mean.strip())


def _label_cell(utility: UtilityRecord | None, name: str, *, control: bool) -> Cell:
    figures = utility.labels.get(name) if utility else None
    if figures is None:
        return _EMPTY
    value = figures.control if control else figures.auc
    interval = figures.control_interval if control else figures.interval
    return _EMPTY if value is None else Cell(percent(value), interval_text(interval))


def _seeds(attack: AttackSummary) -> str:
    return counted(len(attack.seeds), "seed")
