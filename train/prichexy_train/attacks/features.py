"""Baselines that nobody trained on radiographs: coarse pixels, and features of ImageNet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from prichexy_train.attacks.comparison import SIDES, Comparator, Features, Pixels, score
from prichexy_train.attacks.rung import Attempt, NotApplicable, Rung, Scores, Workplace
from prichexy_train.attacks.settings import AttackSettings
from prichexy_train.attacks.target import Learning, Target, mean_rows
from prichexy_train.data.pairs import Pairs
from prichexy_train.feed import Feed, Gathers

__all__ = [
    "FEATURES",
    "ImageNetFeatures",
    "PixelCorrelation",
    "centred_features",
    "score_lists",
    "scored",
    "scored_by_features",
]


#: What the baseline of ImageNet features is called, by itself and as a member of an ensemble.
FEATURES: Final = "imagenet-features"


class PixelCorrelation(Rung):
    """The correlation of both images at 16 × 16 pixels."""

    number = 0
    name = "pixel-correlation"
    role = "baseline"

    def attack(self, target: Target, workplace: Workplace) -> Attempt:  # noqa: ARG002
        """Correlate; see ``Rung``."""
        return Attempt(scored(target, Pixels()))


class ImageNetFeatures(Rung):
    """The cosine of mean-centred features of a network that knows photographs only."""

    number = 0
    name = FEATURES
    role = "baseline"

    def learns(self, settings: AttackSettings) -> Learning:
        """Say what its features' mean needs, where there is a network."""
        return "nothing" if settings.features is None else "means"

    def seeds(self, target: Target) -> Sequence[int]:
        """Give one. Raises NotApplicable when the settings name no network."""
        if target.settings.features is None:
            raise NotApplicable("the settings name no ImageNet network")
        return (1,)

    def attack(self, target: Target, workplace: Workplace) -> Attempt:  # noqa: ARG002
        """Compare features; see ``Rung``."""
        return Attempt(scored_by_features(target))


def centred_features(target: Target, of: str) -> Features:
    """Give the features of the settings for the set ``of``.

    Centred by images of it that attackers learn from, on either side. The target remembers them,
    for several rungs want them. Raises NotApplicable when the settings name no network.
    """
    remembered = target.memory.get(f"features of {of}")
    if isinstance(remembered, Features):
        return remembered
    settings = target.settings.features
    if settings is None:
        raise NotApplicable("the settings name no ImageNet network")
    features = Features.of(settings.backbone, settings.pretrained, settings.size, target.device)
    rows = mean_rows(target.pool, target.settings)[of]
    for side, images in zip(SIDES, (target.anonymised, target.pool.images), strict=True):
        feed = Feed(images, target.device, rows, hold=False)
        features.centre(side, feed, rows, target.settings.batch_size)
    target.memory[f"features of {of}"] = features
    return features


def scored_by_features(target: Target) -> dict[str, Scores]:
    """Give the scores of all lists by the features of the settings. Raises NotApplicable."""
    found: dict[str, Scores] = {}
    for of in target.sets:
        found |= score_lists(target, centred_features(target, of), target.scored_of(of))
    return found


def scored(target: Target, comparator: Comparator) -> dict[str, Scores]:
    """Give a comparator's scores of all lists: the first image anonymised, the second real."""
    return score_lists(target, comparator, target.scored)


def score_lists(
    target: Target,
    comparator: Comparator,
    lists: Mapping[str, Pairs],
    *,
    first: Gathers | None = None,
    second: Gathers | None = None,
) -> dict[str, Scores]:
    """Give a comparator's scores of some lists.

    Images are looked up in ``first`` and ``second``; the target's own where left out.
    """
    # As one list, for most images are in several.
    found = score(
        comparator,
        first or target.first,
        second or target.second,
        Pairs.joined(list(lists.values())),
        batch_size=target.settings.batch_size,
    )
    ends = np.cumsum([len(pairs) for pairs in lists.values()])
    return dict(zip(lists, np.split(found, ends[:-1]), strict=True))
