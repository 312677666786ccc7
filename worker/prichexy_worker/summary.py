"""The figures of a whole study, made of those of its instances."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

__all__ = ["summarized"]


def summarized(measures: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Give one figure a name for a whole study.

    ``max_…`` is the largest over the instances, ``psnr_…`` the smallest, all others (``mean_…``,
    ``changed_share``) the mean over the instances, each counting alike. ``psnr_db`` comes capped
    (``deform.measure``: 200 dB where nothing changed). A figure that is not finite has no place in
    JSON and is left out.
    """
    by_name: dict[str, list[float]] = {}
    for figures in measures:
        for name, value in figures.items():
            if math.isfinite(value):
                by_name.setdefault(name, []).append(float(value))
    summary: dict[str, float] = {}
    for name, values in by_name.items():
        if name.startswith("max_"):
            summary[name] = max(values)
        elif name.startswith("psnr_"):
            summary[name] = min(values)
        else:
            summary[name] = math.fsum(values) / len(values)
    return summary
