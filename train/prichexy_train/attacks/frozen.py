"""Rung 3: strong verifiers, trained on real images, as they are: each alone, and all together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue

from prichexy_train.attacks.features import FEATURES, scored_by_features
from prichexy_train.attacks.rung import (
    Attempt,
    NotApplicable,
    OfStrongVerifier,
    Rung,
    Scores,
    Workplace,
    strong_verifiers,
)
from prichexy_train.attacks.settings import AttackSettings
from prichexy_train.attacks.target import Learning, Target
from prichexy_train.attacks.training import attack_with
from prichexy_train.attacks.validating import combined, weights
from prichexy_train.trained import load_verifier

__all__ = ["Frozen", "FrozenEnsemble", "ensemble", "members_of"]


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

    def learns(self, settings: AttackSettings) -> Learning:
        """Say what the mean of ImageNet features needs, where they are a member."""
        return "nothing" if settings.features is None else "means"

    def seeds(self, target: Target) -> Sequence[int]:
        """Give one. Raises NotApplicable when there would be one member."""
        members_of(target)
        return (1,)

    def attack(self, target: Target, workplace: Workplace) -> Attempt:  # noqa: ARG002
        """Add up the members' standardised scores by their shares; see ``Rung``."""
        runs = members_of(target)
        members = {
            f"frozen {number}": attack_with(target, load_verifier(run).to(target.device)).scores
            for number, run in enumerate(runs, start=1)
        }
        if target.settings.features is not None:
            members[f"{FEATURES} 1"] = scored_by_features(target)
        return ensemble(target, members, {"verifiers": [run.name for run in runs]})


def ensemble(
    target: Target,
    members: Mapping[str, Mapping[str, Scores]],
    details: Mapping[str, JsonValue] | None = None,
) -> Attempt:
    """Give what several attackers find together, each with the share that validation gives him.

    ``members`` gives each one's scores by the names of ``Target.scored``.
    """
    scores: dict[str, Scores] = {}
    shares: dict[str, dict[str, float]] = {}
    for of in target.sets:
        shares[of] = weights({name: target.validated(of, each) for name, each in members.items()})
        for key in target.scored_of(of):
            if all(key in each for each in members.values()):
                scores[key] = combined({name: s[key] for name, s in members.items()}, shares[of])
    return Attempt(scores, shares=shares, details=details or {})


def members_of(target: Target) -> Sequence[Path]:
    """Give the verifiers of the ensemble; ImageNet features are a member where there are any.

    Raises NotApplicable where one would be alone.
    """
    runs = strong_verifiers(target)
    if len(runs) == 1 and target.settings.features is None:
        raise NotApplicable("one verifier is no ensemble")
    return runs
