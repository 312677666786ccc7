"""Rung 6: an attacker with a network of another form than the critics'."""

from __future__ import annotations

from collections.abc import Sequence

from prichexy_train.attacks.fresh import train_afresh
from prichexy_train.attacks.rung import Attempt, NotApplicable, Rung, Workplace
from prichexy_train.attacks.settings import AttackSettings
from prichexy_train.attacks.target import Learning, Target
from prichexy_train.attacks.training import seeded

__all__ = ["OtherBackbone"]


class OtherBackbone(Rung):
    """A new verifier of another form, against which the generator was not trained."""

    number = 6
    name = "other-backbone"

    def learns(self, settings: AttackSettings) -> Learning:
        """Say that it is all, where there is another network."""
        return "nothing" if settings.other is None else "all"

    def seeds(self, target: Target) -> Sequence[int]:
        """Give as many as the settings say. Raises NotApplicable without another network."""
        if target.settings.other is None:
            raise NotApplicable("the settings name no other network")
        return range(1, target.settings.seeds + 1)

    def attack(self, target: Target, workplace: Workplace) -> Attempt:
        """Train, then score; see ``Rung``."""
        fresh = target.settings.fresh.model_copy(update={"network": target.settings.other})
        settings = seeded(fresh, target, workplace)
        return train_afresh(target, settings, target.settings.other_trained_on, workplace)
