"""The learning curve of the verifier, over patients and epochs, and what changing it is worth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from matplotlib.ticker import MaxNLocator

from prichexy_train.measures.summary import AttackSummary, RetrievalSummary
from prichexy_train.report.evidence import Evidence, Run
from prichexy_train.report.paired import paired_difference
from prichexy_train.report.plots import Plot, error_arms, label_column, slug
from prichexy_train.report.results import MethodResult, Section
from prichexy_train.report.svg import SERIES, as_svg, new_figure, style
from prichexy_train.report.tables import Cell, Column, Table
from prichexy_train.report.wording import NONE, interval_text, listed, percent, points, spread

__all__ = ["CurveView", "curve_view"]

#: The baseline that nobody trained, as rung 0 and as a search.
_BASELINE: Final = "imagenet-features"
_SEARCHED: Final = "retrieval-imagenet-features"
_SHARE: Final = "share_of_patients"
_VALIDATION: Final = "validation"
#: Of a drawing, in inches, and the room for names in it.
_SIZE: Final = (8.6, 3.8)
_RIGHT: Final = 2.4


@dataclass(frozen=True)
class CurveView:
    """A learning curve on the page: sentences, plots, and the table of all its trainings."""

    findings: Sequence[str]
    plots: Sequence[Plot]
    table: Table


@dataclass(frozen=True)
class _Point:
    """A training of the curve, tested on this data set; ``lists`` by the pairs' name."""

    name: str
    lists: Mapping[str, AttackSummary]
    search: RetrievalSummary | None

    @property
    def details(self) -> Mapping[str, Any]:
        return next(iter(self.lists.values())).records[0].record.details

    @property
    def share(self) -> float:
        return float(self.details[_SHARE])

    @property
    def made_of(self) -> dict[str, Any]:
        """Give what it learned from and how, but for the share of the patients."""
        settings = {k: v for k, v in self.details["settings"].items() if k != _SHARE}
        return {"sets": self.details["data"], **settings}


def curve_view(section: Section, evidence: Evidence) -> CurveView | None:
    """Give the learning curve that was tested on the data of ``section``; None without one."""
    real = section.real
    points_ = _points(real) if real else ()
    if real is None or not points_:
        return None
    base = _base(points_)
    shares = sorted(
        (one for one in points_ if one.made_of == base.made_of), key=lambda one: one.share
    )
    variants = [one for one in points_ if one not in shares]
    lists = sorted({name for one in points_ for name in one.lists})
    plots = [_over_patients(section.data, shares, lists, real)] if len(shares) > 1 else []
    plots += _over_epochs(section.data, shares, variants, evidence)
    return CurveView(
        findings=tuple(_findings(shares, variants, base, lists, _baseline(real, lists))),
        plots=plots,
        table=_table(section.data, shares, variants, base, lists, real),
    )


def _points(real: MethodResult) -> tuple[_Point, ...]:
    lists: dict[str, dict[str, AttackSummary]] = {}
    searches: dict[str, RetrievalSummary] = {}
    for one in real.beside.get("trial", ()):
        if isinstance(one, AttackSummary):
            lists.setdefault(one.rung, {})[one.pair_list] = one
        else:
            searches[one.rung] = one
    return tuple(_Point(name, each, searches.get(name)) for name, each in sorted(lists.items()))


def _base(found: Sequence[_Point]) -> _Point:
    """Give the training that the others are changes of: with all patients, and nearest to all."""
    whole = [one for one in found if one.share == 1] or list(found)
    return min(whole, key=lambda one: sum(len(_differences(other, one)) for other in found))


def _differences(one: _Point, base: _Point) -> list[str]:
    ours, theirs = one.made_of, base.made_of
    return [
        f"{key} {_value(ours.get(key))}, not {_value(theirs.get(key))}"
        for key in sorted(ours.keys() | theirs.keys())
        if ours.get(key) != theirs.get(key)
    ]


def _value(value: Any) -> str:
    return NONE if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _findings(
    shares: Sequence[_Point],
    variants: Sequence[_Point],
    base: _Point,
    lists: Sequence[str],
    baseline: Mapping[str, AttackSummary],
) -> Iterator[str]:
    """Say on each list whether more patients and other trainings still gain, beyond chance."""
    for name in lists:
        gains, open_to = [], []
        if len(shares) > 1 and all(name in one.lists for one in shares[-2:]):
            before, last = shares[-2:]
            difference, interval = paired_difference(last.lists[name], before.lists[name])
            yield (
                f"On “{name}”, going from {before.share:g} of the training patients to "
                f"{last.share:g} changes the AUC by {points(difference)} points "
                f"{interval_text(interval, signed=True)}."
            )
            gains += [f"more patients ({points(difference)})"] if _above(interval) else []
            open_to += [interval[1]] if interval else []
        for one in variants:
            if name in one.lists and name in base.lists:
                difference, interval = paired_difference(one.lists[name], base.lists[name])
                gains += [f"{one.name} ({points(difference)})"] if _above(interval) else []
                open_to += [interval[1]] if interval else []
        tried = [one for one in (*shares, *variants) if name in one.lists]
        best = max(tried, key=lambda one: one.lists[name].auc.mean)
        figure = best.lists[name].auc
        text = (
            f"there is a gain beyond chance by {listed(gains)}: the curve is not flat"
            if gains
            else "nothing that was tried gains beyond chance, though up to "
            f"{points(max(open_to, default=0.0))} points cannot be excluded"
        )
        yield (
            f"On “{name}”, {text}. The best reached is {percent(figure.mean)} "
            f"{interval_text(figure.interval)}, by {best.name}; chosen for its height, it is a "
            "little too high."
        )
    for name, reached in base.lists.items():
        untrained = baseline.get(name)
        if untrained is not None and reached.auc.mean <= untrained.auc.mean:
            yield (
                f"On “{name}” the base ({percent(reached.auc.mean)}) does not reach ImageNet "
                f"features with no training ({percent(untrained.auc.mean)}): it learned too little "
                "for a curve to say anything."
            )
    if late := [one.name for one in (*shares, *variants) if _rising(one)]:
        yield f"Best in the last epoch, so longer might be better: {listed(late)}."


def _above(interval: tuple[float, float] | None) -> bool:
    return interval is not None and interval[0] > 0


def _rising(one: _Point) -> bool:
    return bool(one.details["best_epoch"] == one.details["epochs"])


def _table(
    data: str,
    shares: Sequence[_Point],
    variants: Sequence[_Point],
    base: _Point,
    lists: Sequence[str],
    real: MethodResult,
) -> Table:
    baseline = _baseline(real, lists)
    search = next((one for one in real.retrievals if one.rung == _SEARCHED), None)
    rows: list[tuple[str, Sequence[Cell]]] = []
    if baseline:
        words = [Cell("ImageNet features less their mean: no training"), Cell(NONE), Cell(NONE)]
        cells = _figures(baseline, None, lists)
        rows.append((_BASELINE, [*words, _validated(baseline), *cells, _rank1(search)]))
    for one in (*shares, *variants):
        learned, details = one.details.get("learned_from", {}), one.details
        words = [
            Cell(_what(one, base)),
            Cell(
                f"{learned['patients']:,}" if "patients" in learned else NONE,
                f"{learned['images']:,} images" if "images" in learned else "",
            ),
            Cell(str(details["best_epoch"]), f"of {details['epochs']}"),
        ]
        cells = _figures(one.lists, None if one is base else base.lists, lists)
        rows.append((one.name, [*words, _validated(one.lists), *cells, _rank1(one.search)]))
    columns = [
        Column("What is different", text=True, prose=True),
        Column("Patients learned from"),
        Column("Best epoch"),
        Column("Validation", "AUC on this set"),
    ]
    for name in lists:
        columns += [Column(f"“{name}”", "verification AUC"), Column("Change", "from the base")]
    return Table(
        caption=f"{data}: the verifier’s learning curve on real images, each training once",
        first="Training",
        columns=[*columns, Column("Rank-1", "search among real images")],
        rows=rows,
    )


def _baseline(real: MethodResult, lists: Sequence[str]) -> dict[str, AttackSummary]:
    """Give the attack that nobody trained, by list."""
    return {
        name: one for name in lists for one in real.attacks.get(name, ()) if one.rung == _BASELINE
    }


def _what(one: _Point, base: _Point) -> str:
    if one is base:
        return "the base: all patients"
    each = _differences(one, base)
    if one.share != base.share:
        each.insert(0, f"{one.share:g} of the patients")
    return "; ".join(each)


def _figures(
    ours: Mapping[str, AttackSummary],
    base: Mapping[str, AttackSummary] | None,
    lists: Sequence[str],
) -> list[Cell]:
    cells = []
    for name in lists:
        one = ours.get(name)
        if one is None:
            cells += [Cell(NONE), Cell(NONE)]
            continue
        cells.append(Cell(percent(one.auc.mean), interval_text(one.auc.interval)))
        if base is None or name not in base:
            cells.append(Cell(NONE))
            continue
        difference, interval = paired_difference(one, base[name])
        certain = interval is not None and not interval[0] <= 0 <= interval[1]
        cells.append(Cell(points(difference), interval_text(interval, signed=True), strong=certain))
    return cells


def _validated(lists: Mapping[str, AttackSummary]) -> Cell:
    auc, interval = _validation(lists)
    return Cell(NONE if auc is None else percent(auc), interval_text(interval))


def _validation(
    lists: Mapping[str, AttackSummary],
) -> tuple[float | None, tuple[float, float] | None]:
    """Give the AUC on the set's validation pairs, and its interval, as the records have it."""
    details: Mapping[str, Any] = next(iter(lists.values())).records[0].record.details
    found = details.get("validation_interval")
    return details.get("validation_auc"), None if found is None else (found[0], found[1])


def _rank1(search: RetrievalSummary | None) -> Cell:
    if search is None:
        return Cell(NONE)
    return Cell(spread(search.rank1), interval_text(search.rank1.interval))


def _over_patients(
    data: str, shares: Sequence[_Point], lists: Sequence[str], real: MethodResult
) -> Plot:
    """Draw the AUC on validation and test pairs over the share of the training patients."""
    lines: dict[str, list[tuple[float, float, tuple[float, float] | None]]] = {}
    for one in shares:
        auc, interval = _validation(one.lists)
        if auc is not None:
            lines.setdefault(_VALIDATION, []).append((one.share, auc, interval))
        for name in lists:
            if name in one.lists:
                figure = one.lists[name].auc
                lines.setdefault(name, []).append((one.share, figure.mean, figure.interval))
    words, ends = [], []
    with style():
        figure_, axes = new_figure(*_SIZE, right=_RIGHT)
        for number, (name, values) in enumerate(lines.items()):
            ink = SERIES[number % len(SERIES)]
            x = [share * 1.02**number for share, _, _ in values]
            for place, (_, auc, interval) in zip(x, values, strict=True):
                axes.errorbar(
                    place, 100 * auc, yerr=error_arms(auc, interval), color=ink, elinewidth=0.8
                )
            y = [100 * auc for _, auc, _ in values]
            axes.plot(x, y, "-o", ms=4, color=ink, linewidth=1.6)
            ends.append((name, x[-1], y[-1], ink))
            each = (f"{percent(auc)} at {share:g}" for share, auc, _ in values)
            words.append(f"{name}: {', '.join(each)}")
        axes.set_xscale("log", base=2)
        ticks = [one.share for one in shares]
        axes.set_xticks(ticks, [f"{share:g}" for share in ticks])
        axes.minorticks_off()
        axes.margins(x=0.06)
        label_column(axes, ends)
        axes.set_xlabel("share of the training patients")
        axes.set_ylabel("verification AUC (%)")
        svg = as_svg(figure_, f"curve-patients-{slug(data)}")
    untrained = [
        f"“{name}” {percent(one.auc.mean)}" for name, one in _baseline(real, lists).items()
    ]
    more = f" With no training, ImageNet features: {', '.join(untrained)}." if untrained else ""
    return Plot(
        svg,
        f"{data}: AUC over the share of the training patients, equally many steps each, with 95 % "
        f"intervals over the tested patients.{more}",
        f"Learning curve over patients: {'; '.join(words)}",
    )


def _over_epochs(
    data: str, shares: Sequence[_Point], variants: Sequence[_Point], evidence: Evidence
) -> Iterator[Plot]:
    """Draw the validation AUC of training over its epochs: shares, then variants with the base."""
    runs = {run.name.rpartition("/")[2]: run for run in evidence.runs if run.stage == "verifier"}
    groups = (("shares", shares), ("variants", [*shares[-1:], *variants]))
    for what, group in groups:
        drawn = [(one.name, _validation_curve(runs.get(one.name))) for one in group]
        drawn = [(name, points_) for name, points_ in drawn if points_[0]]
        if not drawn or (what == "variants" and not variants):
            continue
        words, ends = [], []
        with style():
            figure, axes = new_figure(*_SIZE, right=_RIGHT)
            for number, (name, (epochs, aucs)) in enumerate(drawn):
                ink = SERIES[number % len(SERIES)]
                dashed = "-" if number < len(SERIES) else "--"
                axes.plot(epochs, aucs, dashed, color=ink, linewidth=1.4, marker=".", ms=3)
                ends.append((name, epochs[-1], aucs[-1], ink))
                words.append(
                    f"{name} from {aucs[0]:.1f} to {aucs[-1]:.1f}, at best {max(aucs):.1f}"
                )
            axes.margins(x=0.04)
            label_column(axes, ends)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_xlabel("epoch")
            axes.set_ylabel("validation AUC (%)")
            svg = as_svg(figure, f"curve-epochs-{what}-{slug(data)}")
        told = "shares of the patients" if what == "shares" else "the base and its variants"
        yield Plot(
            svg,
            f"AUC of the validation pairs of all sets learned from, over epochs: {told}.",
            f"Validation AUC over epochs, {told}: {'; '.join(words)}",
        )


def _validation_curve(run: Run | None) -> tuple[list[int], list[float]]:
    history = [] if run is None else [one for one in run.history if "auc" in one["validation"]]
    return (
        [one["epoch"] for one in history],
        [100 * one["validation"]["auc"] for one in history],
    )
