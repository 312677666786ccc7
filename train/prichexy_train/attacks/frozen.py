"""Rung 3: strong verifiers, trained on real images, as they are: each alone, and all together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prichexy_train.attacks.comparison import ensemble
from prichexy_train.attacks.features import scored_by_features
from prichexy_train.attacks.rung import (
    Attempt,
    NotApplicable,
    OfStrongVerifier,
    Rung,
    Workplace,
    strong_verifiers,
)
from prichexy_train.attacks.target import Target
from prichexy_train.attacks.training import attack_with
from prichexy_train.trained import load_verifier

__all__ = ["Frozen", "FrozenEnsemble", "members_of"]


class Frozen(OfStrongVerifier):
    """A strong verifier as it is."""

    number = 3
    name = "frozen"

    def attack(self, target: Target, workplace: Workplace) -> Attempt:
        """Score with the verifier of that number; see ``Rung``."""
        run = strong_verifiers(target)[workplace.seed - 1]
        return attack_with(target, load_verifier(run).to(target.device), {"verifier": run.name})


class FrozenEnsemble(Rung):
    """All strong verifiers together, and ImageNet features where the settings name them."""

    number = 3
    name = "frozen-ensemble"
    #: For the mean of the ImageNet features.
    trains = True

    def seeds(self, target: Target) -> Sequence[int]:
        """Give one. Raises NotApplicable when there would be one member."""
        members_of(target)
        return (1,)

    def attack(self, target: Target, workplace: Workplace) -> Attempt:  # noqa: ARG002
        """Average the members' standardised scores; see ``Rung``."""
        runs = members_of(target)
        members = [attack_with(target, load_verifier(run).to(target.device)).scores for run in runs]
        if target.settings.features is not None:
            members.append(scored_by_features(target))
        scores = {name: ensemble([member[name] for member in members]) for name in target.lists}
        return Attempt(
            scores,
            details={"verifiers": [run.name for run in runs], "members": len(members)},
        )


def members_of(target: Target) -> Sequence[Path]:
    """Give the verifiers of the ensemble; ImageNet features are a member where there are any.

    Raises NotApplicable where one would be alone.
    """
    runs = strong_verifiers(target)
    if len(runs) == 1 and target.settings.features is None:
        raise NotApplicable("one verifier is no ensemble")
    return runs
