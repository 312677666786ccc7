"""The plots of a report, each with the words that say what it shows to who cannot see it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from prichexy_train.measures.auc import roc_points
from prichexy_train.measures.summary import AttackSummary
from prichexy_train.report.evidence import Run
from prichexy_train.report.published import Published
from prichexy_train.report.results import MethodResult, Section
from prichexy_train.report.svg import GRID, INK, QUIET, SERIES, as_svg, new_figure, style
from prichexy_train.report.wording import in_words, interval_text, percent, spread

__all__ = [
    "Plot",
    "colour",
    "error_arms",
    "label_column",
    "roc_curves",
    "slug",
    "trade_off",
    "training_curves",
]

_GRID_POINTS: Final = 101
#: Of a plot's height, what one label takes.
_LINE: Final = 0.052


@dataclass(frozen=True)
class Plot:
    """A drawing: its ``<svg>``, the caption below it, and ``alt``, what it shows in words."""

    svg: str
    caption: str
    alt: str


def colour(method: MethodResult) -> str:
    """Give the colour of a method's family; PriCheXy-Net has one for each operator."""
    kind = method.words.kind
    if kind == "real":
        return INK
    if kind == "prichexy-net":
        return SERIES[4] if method.words.values.get("border") == "paper" else SERIES[0]
    return {"privacy-net": SERIES[3], "dp-pix": SERIES[2], "random": SERIES[1]}.get(kind, SERIES[5])


def trade_off(section: Section, pair_list: str, paper: Published) -> Plot | None:
    """Draw privacy against utility: every rung small, the strongest large, published hollow.

    None where no method has both. Down and right is worse, up and left better.
    """
    shown = [one for one in section.methods if one.utility and one.strongest.get(pair_list)]
    if not shown:
        return None
    with style():
        figure, axes = new_figure(8.6, max(4.2, 0.28 * len(shown) + 1.6), right=3.0)
        for method in shown:
            _method_point(axes, method, pair_list)
        printed = {one.label: paper.of(one.words) for one in shown}
        # A published figure stands beside two operators of ours and is drawn once.
        for row in {id(row): row for row in printed.values() if row}.values():
            axes.plot(
                row.verification.mean, row.utility.mean, "D", ms=5, mfc="none", mec=QUIET, zorder=3
            )
        axes.set_xlabel("verification AUC (%); at 50 the attacker guesses")
        axes.set_ylabel("mean class AUC (%)")
        axes.margins(x=0.06, y=0.09)
        axes.axvline(50, color=QUIET, linewidth=1, linestyle=(0, (2, 3)), zorder=1)
        label_column(
            axes,
            [
                (
                    one.label,
                    100 * one.strongest[pair_list].auc.mean,
                    100 * one.utility.auc,
                    colour(one),
                )
                for one in shown
                if one.utility
            ],
        )
        svg = as_svg(figure, f"trade-off-{slug(section.data)}-{slug(pair_list)}")
    alt = "; ".join(
        f"{one.label}: strongest attack {percent(one.strongest[pair_list].auc.mean)}, "
        f"class AUC {percent(one.utility.auc)}"
        for one in shown
        if one.utility
    )
    hollow = (
        " Hollow: published, with the paper’s attack and data." if any(printed.values()) else ""
    )
    return Plot(
        svg,
        f"{section.data}, pairs “{pair_list}”. Large: the strongest attack, with 95 % intervals "
        f"over patients. Small: every other attack. The upper left is better.{hollow}",
        alt,
    )


def roc_curves(section: Section, pair_list: str) -> tuple[Plot, ...]:
    """Draw, for each method, the ROC curve of its strongest attack beside that on real images."""
    real = section.real and section.real.strongest.get(pair_list)
    reference = _mean_curve(real) if real else None
    plots = []
    for number, method in enumerate(section.methods, 1):
        attack = method.strongest.get(pair_list)
        if attack is None:
            continue
        curve = _mean_curve(attack)
        with style():
            figure, axes = new_figure(2.6, 2.5)
            axes.plot([0, 100], [0, 100], color=GRID, linewidth=1)
            if reference is not None and not method.real:
                axes.plot(*reference, color=QUIET, linewidth=1.2, linestyle=(0, (3, 2)))
            for one in _curves(attack):
                axes.plot(*one, color=colour(method), linewidth=0.6, alpha=0.45)
            axes.plot(*curve, color=colour(method), linewidth=1.8)
            axes.set(xlim=(0, 100), ylim=(0, 101), xticks=(0, 50, 100), yticks=(0, 50, 100))
            axes.set_xlabel("false positives (%)")
            axes.set_ylabel("found (%)")
            svg = as_svg(figure, f"roc-{slug(section.data)}-{slug(pair_list)}-{number}")
        at_ten = float(np.interp(10, *curve))
        plots.append(
            Plot(
                svg,
                f"{method.label}: {spread(attack.auc)}",
                f"{method.label}, {in_words(attack.rung)}: AUC {spread(attack.auc)} "
                f"{interval_text(attack.auc.interval)}; at 10 % false positives {at_ten:.0f} % "
                "of the pairs of one patient are found",
            )
        )
    return tuple(plots)


def training_curves(runs: Sequence[Run]) -> tuple[Plot, ...]:
    """Draw, for each run with a history, every mean of its epochs, training and validation."""
    return tuple(
        plot
        for number, run in enumerate(runs, 1)
        if run.history
        for plot in _run_curves(run, number)
    )


def _run_curves(run: Run, number: int) -> Iterator[Plot]:
    names = dict.fromkeys(
        name for epoch in run.history for part in ("train", "validation") for name in epoch[part]
    )
    for name in names:
        with style():
            figure, axes = new_figure(3.0, 2.1)
            words = []
            for part, ink, line in (("train", QUIET, "--"), ("validation", SERIES[0], "-")):
                epochs, values = _curve(run.history, part, name)
                if not values:
                    continue
                axes.plot(epochs, values, line, color=ink, linewidth=1.6, marker=".", ms=4)
                words.append(f"{part} from {values[0]:.4g} to {values[-1]:.4g}")
            best = run.result.get("best_epoch")
            if best:
                axes.axvline(best, color=SERIES[1], linewidth=1, linestyle=(0, (1, 2)))
            axes.margins(x=0.04)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_xlabel("epoch")
            svg = as_svg(figure, f"training-{number}-{slug(name)}")
        kept = f"; epoch {best} was kept" if best else ""
        yield Plot(svg, f"{run.name}: {name}", f"{run.name}, {name}: {', '.join(words)}{kept}")


def _curve(
    history: Sequence[Mapping[str, Any]], part: str, name: str
) -> tuple[list[int], list[float]]:
    points = [(epoch["epoch"], epoch[part][name]) for epoch in history if name in epoch[part]]
    return [epoch for epoch, _ in points], [value for _, value in points]


def _method_point(axes: Axes, method: MethodResult, pair_list: str) -> None:
    attack, utility = method.strongest[pair_list], method.utility
    if utility is None:
        return
    ink, y = colour(method), 100 * utility.auc
    counted = [one for one in method.attacks[pair_list] if one.counted and one is not attack]
    others = [100 * one.auc.mean for one in counted]
    axes.plot(others, [y] * len(others), "o", ms=4, color=ink, alpha=0.55, mec="none", zorder=3)
    x = 100 * attack.auc.mean
    axes.errorbar(
        x,
        y,
        xerr=error_arms(attack.auc.mean, attack.auc.interval),
        yerr=error_arms(utility.auc, utility.interval),
        fmt="o",
        ms=7,
        color=ink,
        elinewidth=1,
        zorder=4,
    )


def error_arms(value: float, interval: tuple[float, float] | None) -> NDArray[np.float64] | None:
    """Give how far an interval of shares reaches down and up, in percent, for ``errorbar``."""
    if interval is None:
        return None
    low, high = interval
    return 100 * np.array([[max(value - low, 0.0)], [max(high - value, 0.0)]])


def label_column(axes: Axes, points: Sequence[tuple[str, float, float, str]]) -> None:
    """Name points (label, x, y, colour) in a column at the right, each with a fine line to it."""
    axes.autoscale_view()
    low, high = axes.get_ylim()
    placed = sorted(points, key=lambda point: point[2])
    heights = _spaced([(y - low) / (high - low) for _, _, y, _ in placed])
    for (label, x, y, ink), height in zip(placed, heights, strict=True):
        axes.annotate(
            label,
            xy=(x, y),
            xytext=(1.03, height),
            textcoords="axes fraction",
            fontsize=9,
            color=ink,
            verticalalignment="center",
            arrowprops={"arrowstyle": "-", "color": GRID, "linewidth": 0.8, "shrinkB": 5},
            zorder=2,
        )


def _spaced(places: Sequence[float]) -> list[float]:
    """Give ascending ``places`` in [0, 1] moved as little as needed to be a line apart."""
    room = min(_LINE, 1 / max(len(places), 1))
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + room) if moved else max(place, 0.0))
    ceiling = 1.0
    for index in range(len(moved) - 1, -1, -1):
        moved[index] = min(moved[index], ceiling)
        ceiling = moved[index] - room
    return moved


def _curves(attack: AttackSummary) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    grid = np.linspace(0, 1, _GRID_POINTS)
    for stored in attack.records:
        scores = stored.scores()
        false, true = roc_points(scores["scores"], scores["same"].astype(bool))
        found = np.interp(grid, false, true)
        found[0] = 0.0
        yield 100 * grid, 100 * found


def _mean_curve(attack: AttackSummary) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    curves = list(_curves(attack))
    return curves[0][0], np.mean([found for _, found in curves], axis=0)


def slug(text: str) -> str:
    """Give ``text`` as a part of an identifier."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
