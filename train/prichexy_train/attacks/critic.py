"""Rung 5: the verifier that the generator was trained against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prichexy_model.verifier import SiameseVerifier
from prichexy_train.attacks.rung import Attempt, NotApplicable, Rung, Workplace
from prichexy_train.attacks.target import Target
from prichexy_train.attacks.training import attack_with
from prichexy_train.errors import Misconfigured
from prichexy_train.trained import load_critics

__all__ = ["Critic"]


class Critic(Rung):
    """The verifier that the generator was trained against, as the kept epoch left it."""

    number = 5
    name = "critic"

    def seeds(self, target: Target) -> Sequence[int]:
        """Give one number a critic. Raises NotApplicable where the method had none."""
        return range(1, len(_critics(target)) + 1)

    def attack(self, target: Target, workplace: Workplace) -> Attempt:
        """Score with the critic of that number; see ``Rung``."""
        name, critic = list(_critics(target).items())[workplace.seed - 1]
        return attack_with(target, critic.to(target.device), {"critic": name})


def _critics(target: Target) -> Mapping[str, SiameseVerifier]:
    if target.run is None:
        raise NotApplicable(f"{target.method.name} was trained against nobody")
    try:
        return load_critics(target.run)
    except Misconfigured as error:
        # A run of pretraining, say.
        raise NotApplicable(str(error)) from error
