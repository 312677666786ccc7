"""What the strong verifiers look at: how well they do on real images that lack a possible shortcut.

No rung of the ladder, and never in its maximum: nobody is attacked, the verifiers are asked how
they know. They are those of rung 3, all together where there are several, and nothing is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import JsonValue
from torch import Tensor

from prichexy_train.attacks.comparison import OfVerifier
from prichexy_train.attacks.features import score_lists
from prichexy_train.attacks.rung import (
    Attempt,
    NotApplicable,
    Rung,
    Scores,
    Workplace,
    strong_verifiers,
)
from prichexy_train.attacks.shortcuts import (
    CENTRE,
    CORNER,
    STRETCH,
    STRIP,
    centre_enlarged,
    from_one_aspect,
    grey_quantiles,
    with_one_histogram,
    without,
    without_markers,
)
from prichexy_train.attacks.target import Target
from prichexy_train.attacks.validating import combined, weights
from prichexy_train.feed import Gathers
from prichexy_train.randomness import numpy_generator
from prichexy_train.trained import load_verifier

__all__ = ["SHORTCUT_CHECKS", "UNCHANGED", "Seen", "ShortcutCheck"]

#: What is changed about the images, on both sides of every pair.
Seen = Literal[
    "unchanged",
    "without-markers",
    "without-border",
    "border-alone",
    "one-aspect",
    "any-aspect",
    "one-histogram",
    "centre-enlarged",
]
UNCHANGED: Final[Seen] = "unchanged"

#: A batch and its images' numbers to the batch as it is shown.
_View = Callable[[Tensor, NDArray[np.int64]], Tensor]
#: Training images of a set, at the most, that a common histogram is the mean of.
_MEAN_OF: Final = 200


class ShortcutCheck(Rung):
    """The strong verifiers' scores of real pairs whose images are shown in another way."""

    number = 0
    role = "shortcut"

    def __init__(self, seen: Seen) -> None:
        self.seen: Seen = seen
        self.name = f"shortcut-{seen}"

    def seeds(self, target: Target) -> Sequence[int]:
        """Give one: all verifiers look together.

        Raises NotApplicable without one, for images that are not real ones, and where no aspect
        ratios are known.
        """
        strong_verifiers(target)
        if target.method.name != "real":
            raise NotApplicable("what verifiers look at is asked of real images")
        if self.seen == "one-aspect" and not _aspects_differ(target):
            raise NotApplicable(f"{target.pool.name} tells no aspect ratios that differ")
        return (1,)

    def attack(self, target: Target, workplace: Workplace) -> Attempt:  # noqa: ARG002
        """Show, then score; see ``Rung``.

        Who has how much say, and which way his scores point, is what validation pairs said of the
        images as they are: it is the same attacker, whatever he is shown.
        """
        runs = strong_verifiers(target)
        scores: dict[str, Scores] = {}
        shares: dict[str, Mapping[str, float]] = {}
        told: dict[str, JsonValue] = {"verifiers": [run.name for run in runs]}
        for of in target.sets:
            if self.seen == "one-aspect" and np.isnan(_aspects_of_tests(target, of)).all():
                continue
            view, words = _view(target, of, self.seen)
            told |= {key: {**_table(told.get(key)), of: value} for key, value in words.items()}
            lists = {key: test.pairs for key, test in target.tests.items() if test.of.name == of}
            shares[of] = _shares(target, of)
            seen = _Shown(target.second, view)
            members = {
                name: score_lists(target, _verifier(target, run), lists, first=seen, second=seen)
                for name, run in _named(runs).items()
            }
            for key in lists:
                each = {name: found[key] for name, found in members.items()}
                scores[key] = combined(each, shares[of])
        return Attempt(scores, shares=shares, details=told)


SHORTCUT_CHECKS: Final[tuple[ShortcutCheck, ...]] = (
    ShortcutCheck("unchanged"),
    ShortcutCheck("without-markers"),
    ShortcutCheck("without-border"),
    ShortcutCheck("border-alone"),
    ShortcutCheck("one-aspect"),
    ShortcutCheck("any-aspect"),
    ShortcutCheck("one-histogram"),
    ShortcutCheck("centre-enlarged"),
)


@dataclass(frozen=True)
class _Shown:
    """Images as they are shown to a verifier."""

    images: Gathers
    view: _View

    def gather(self, rows: NDArray[np.int64]) -> Tensor:
        return self.view(self.images.gather(rows), rows)


def _view(target: Target, of: str, seen: Seen) -> tuple[_View, dict[str, JsonValue]]:
    """Give how the images of a set are shown, and what the record's details say of it."""
    border = target.settings.border
    match seen:
        case "unchanged":
            return lambda images, _: images, {}
        case "without-markers":
            return lambda images, _: without_markers(images), {"corner": CORNER, "strip": STRIP}
        case "without-border" | "border-alone":
            part = partial(without, part="border" if seen == "without-border" else "centre")
            return lambda images, _: part(images, width=border), {"border": border}
        case "centre-enlarged":
            return lambda images, _: centre_enlarged(images), {"centre": CENTRE}
        case "one-histogram":
            return _of_one_histogram(target, of), {}
        case "one-aspect":
            return _of_one_aspect(target, of)
        case "any-aspect":
            return _of_any_aspect(target), {"stretch": STRETCH}


def _of_one_histogram(target: Target, of: str) -> _View:
    """Show all images with the mean histogram of training images of their set."""
    known = target.sets[of].rows("train")
    some = known[np.linspace(0, len(known) - 1, min(len(known), _MEAN_OF), dtype=np.int64)]
    quantiles = grey_quantiles(target.pool.images.gather(some)).to(target.device)
    return lambda images, _: with_one_histogram(images, quantiles)


def _of_one_aspect(target: Target, of: str) -> tuple[_View, dict[str, JsonValue]]:
    """Show all images squeezed from the median aspect ratio of their set's test images."""
    aspects = _aspects(target)
    common = float(np.nanmedian(_aspects_of_tests(target, of)))

    def view(images: Tensor, rows: NDArray[np.int64]) -> Tensor:
        return from_one_aspect(images, torch.from_numpy(aspects[rows]).to(images.device), common)

    return view, {"aspect": round(common, 4)}


def _of_any_aspect(target: Target) -> _View:
    """Show each image stretched along one axis, by a factor of its own.

    It needs no table: whatever the originals' aspect ratios were, they say nothing any more.
    """
    source = numpy_generator(target.settings.seed, "aspect ratios")
    most = np.log(STRETCH)
    factors = np.exp(source.uniform(-most, most, size=len(target.pool)))

    def view(images: Tensor, rows: NDArray[np.int64]) -> Tensor:
        return from_one_aspect(images, torch.from_numpy(factors[rows]).to(images.device), 1.0)

    return view


def _aspects(target: Target) -> NDArray[np.float64]:
    """Give columns by rows of each image's original, NaN where unknown."""
    sizes = [image.original for one in target.pool.catalogues for image in one.images]
    return np.array([np.nan if size is None else size[0] / size[1] for size in sizes])


def _aspects_of_tests(target: Target, of: str) -> NDArray[np.float64]:
    return _aspects(target)[target.sets[of].rows("test")]


def _aspects_differ(target: Target) -> bool:
    tested = (_aspects_of_tests(target, of) for of in target.sets)
    return any(len(np.unique(own[~np.isnan(own)])) > 1 for own in tested)


def _shares(target: Target, of: str) -> dict[str, float]:
    """Give each verifier's share, with its sign, by the validation pairs as they are."""
    place = f"shares of shortcut checks in {of}"
    remembered = target.memory.get(place)
    if isinstance(remembered, dict):
        return remembered
    found = _weighed(target, of)
    target.memory[place] = found
    return found


def _weighed(target: Target, of: str) -> dict[str, float]:
    runs = _named(strong_verifiers(target))
    key = target.validation_key(of)
    if key not in target.scored:
        return weights(dict.fromkeys(runs))
    pairs = {key: target.scored[key]}
    return weights(
        {
            name: target.validated(of, score_lists(target, _verifier(target, run), pairs))
            for name, run in runs.items()
        }
    )


def _named(runs: Sequence[Path]) -> dict[str, Path]:
    return {f"frozen {number}": run for number, run in enumerate(runs, start=1)}


def _verifier(target: Target, run: Path) -> OfVerifier:
    return OfVerifier(load_verifier(run).to(target.device))


def _table(value: JsonValue) -> dict[str, JsonValue]:
    return value if isinstance(value, dict) else {}
