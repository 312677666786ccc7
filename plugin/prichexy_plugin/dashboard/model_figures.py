"""What a bundle's metadata says for people: what it is for, and what was measured of it.

The figures are those that ``prichexy-train export`` writes (``eval_metrics``). What is not there,
or is not as it writes it, is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prichexy_store.bundles import METADATA

__all__ = ["Figure", "Words", "figures_of", "words_of"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that was measured: on what, what came out, and what it means in one line."""

    title: str
    on: str
    value: str
    meant: str


@dataclass(frozen=True, slots=True)
class Words:
    """What a bundle says of itself; blank where it says nothing."""

    intended_use: str = ""
    trained_on: str = ""
    limits: tuple[str, ...] = ()


def words_of(folder: Path) -> Words:
    """Read what the bundle in ``folder`` says of itself."""
    metadata = _metadata(folder)
    limits = metadata.get("limits")
    return Words(
        intended_use=str(metadata.get("intended_use") or ""),
        trained_on=str(metadata.get("data_source") or ""),
        limits=tuple(map(str, limits)) if isinstance(limits, list) else (),
    )


def figures_of(folder: Path) -> tuple[Figure, ...]:
    """Read the main figures of privacy and of utility; none where nothing was measured."""
    metrics = _metadata(folder).get("eval_metrics")
    if not isinstance(metrics, Mapping):
        return ()
    found: list[Figure] = []
    for data, figures in metrics.items():
        if isinstance(figures, Mapping):
            for reader in (_privacy, _retrieval, _utility):
                try:
                    found += reader(str(data), figures)
                except (KeyError, TypeError, ValueError):
                    continue
    return tuple(found)


def _privacy(data: str, figures: Mapping[str, Any]) -> Iterator[Figure]:
    for name, one in figures["verification"].items():
        strongest, real = one["strongest"], one["real_images"]
        if strongest is None:
            continue
        before = "" if real is None else f"; of real images {real['auc']['mean']:.3f}"
        yield Figure(
            "Privacy: the strongest attack",
            f"{data}, list {name}, {one['pairs']} pairs of {one['patients']} patients",
            f"AUC {strongest['auc']['mean']:.3f}{_ends(strongest['auc'])}{before}",
            f"How well {strongest['name']} tells whether two images are of one patient: lower is "
            "better, 0.5 is guessing.",
        )


def _retrieval(data: str, figures: Mapping[str, Any]) -> Iterator[Figure]:
    for one in figures["retrieval"]:
        yield Figure(
            "Privacy: found in a gallery",
            f"{data}, {one['gallery']} images",
            f"{one['rank1']['mean']:.1%}, guessing {one['rank1_of_guessing']:.1%}",
            f"How often {one['name']} names the patient at once: lower is better.",
        )


def _utility(data: str, figures: Mapping[str, Any]) -> Iterator[Figure]:
    utility = figures["utility"]
    if utility is not None:
        yield Figure(
            "Utility: what is read in the images",
            f"{data}, {utility['images']} images",
            f"AUC {utility['auc']:.3f}{_ends(utility)}; undeformed {utility['real_images']:.3f}",
            "How well a classifier finds abnormalities: higher is better, undeformed is the most.",
        )


def _ends(figure: Mapping[str, Any]) -> str:
    interval = figure["interval"]
    return "" if interval is None else f" [{interval[0]:.3f}, {interval[1]:.3f}]"


def _metadata(folder: Path) -> Mapping[str, Any]:
    try:
        metadata = json.loads((folder / METADATA).read_bytes())
    except (OSError, ValueError):
        return {}
    return metadata if isinstance(metadata, dict) else {}
