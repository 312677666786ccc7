"""Rungs 1 and 2: an attacker who trains a verifier from nothing on what he can make himself.

He has the anonymiser, so he anonymises radiographs of patients he knows, and learns from them.
"""

from __future__ import annotations

from collections.abc import Sequence

from prichexy_train.attacks.rung import Attempt, Rung, Workplace
from prichexy_train.attacks.settings import AttackSettings, TrainedOn
from prichexy_train.attacks.target import Learning, Target
from prichexy_train.attacks.training import attack_with, seeded, train_attacker, training_data
from prichexy_train.stages import training_run
from prichexy_train.stages.verifier import VerifierSettings, build_verifier

__all__ = ["FreshVerifier", "pretrained_digest", "train_afresh"]


class FreshVerifier(Rung):
    """A new verifier; ``on`` says what both images of its training and validation pairs are.

    "anonymised" (rung 1) is the paper's attacker: he is tested on other pairs than he learned
    from and was stopped early by. "mixed" (rung 2) learns from what he will meet.
    """

    def __init__(self, on: TrainedOn) -> None:
        self.on: TrainedOn = on
        self.number = 1 if on == "anonymised" else 2
        self.name = f"fresh-{on}"

    def learns(self, settings: AttackSettings) -> Learning:  # noqa: ARG002
        """Say that it is all."""
        return "all"

    def seeds(self, target: Target) -> Sequence[int]:
        """Give as many as the settings say."""
        return range(1, target.settings.seeds + 1)

    def attack(self, target: Target, workplace: Workplace) -> Attempt:
        """Train, then score; see ``Rung``."""
        settings = seeded(target.settings.fresh, target, workplace)
        return train_afresh(target, settings, self.on, workplace)


def pretrained_digest(settings: VerifierSettings) -> dict[str, str]:
    """Give the digest of the ImageNet weights to begin with, or "none"."""
    return {"network.pretrained": training_run.pretrained_digest(settings.network.pretrained)}


def train_afresh(
    target: Target, settings: VerifierSettings, on: TrainedOn, workplace: Workplace
) -> Attempt:
    """Train a new verifier by the settings, and give its scores of all lists."""
    verifier, details = train_attacker(
        target,
        settings,
        training_data(target, settings, on),
        workplace,
        begin=lambda: build_verifier(settings.network, settings.training.seed),
        read=pretrained_digest(settings),
    )
    return attack_with(target, verifier, {"trained_on": on, **details})
