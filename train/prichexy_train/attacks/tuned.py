"""Rung 4: a strong verifier that learns on with anonymised images, and all who trained together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from prichexy_train.attacks.comparison import ensemble
from prichexy_train.attacks.rung import (
    Attempt,
    NotApplicable,
    OfStrongVerifier,
    Rung,
    Scores,
    Workplace,
    strong_verifiers,
)
from prichexy_train.attacks.target import Target
from prichexy_train.attacks.training import attack_with, seeded, train_attacker, training_data
from prichexy_train.records import find_record, record_name
from prichexy_train.runs import RunFolder
from prichexy_train.stages.training_run import file_digest
from prichexy_train.stages.verifier import VerifierSettings
from prichexy_train.trained import load_verifier, network_of

__all__ = ["FineTuned", "TrainedEnsemble"]

#: The rungs that train a verifier.
_TRAINED: Final = (
    (1, "fresh-anonymised"),
    (2, "fresh-mixed"),
    (4, "fine-tuned"),
    (6, "other-backbone"),
)


class FineTuned(OfStrongVerifier):
    """A strong verifier that learns on with anonymised images. The strong ones take turns."""

    number = 4
    name = "fine-tuned"
    trains = True

    def seeds(self, target: Target) -> Sequence[int]:
        """Give as many as the settings say. Raises NotApplicable without a strong verifier."""
        strong_verifiers(target)
        return range(1, target.settings.seeds + 1)

    def attack(self, target: Target, workplace: Workplace) -> Attempt:
        """Train, then score; see ``Rung``."""
        runs = strong_verifiers(target)
        run = runs[(workplace.seed - 1) % len(runs)]
        settings = seeded(_settings(target, run), target, workplace)
        verifier, details = train_attacker(
            target,
            settings,
            training_data(target, settings, target.settings.tuning.trained_on),
            workplace,
            begin=lambda: load_verifier(run),
            read={"verifier": file_digest(RunFolder(run).best_file)},
        )
        return attack_with(target, verifier, {"verifier": run.name, **details})


class TrainedEnsemble(Rung):
    """All attackers who trained, together: who can train one can train several.

    Of rungs 1, 2, 4 and 6, every seed that has its record.
    """

    number = 4
    name = "trained-ensemble"
    anew = True

    def attack(self, target: Target, workplace: Workplace) -> Attempt:
        """Average the standardised scores of the records; see ``Rung``."""
        members: list[dict[str, Scores]] = []
        names: list[str] = []
        for number, name in _TRAINED:
            for seed in range(1, target.settings.seeds + 1):
                found = {
                    pair_list: find_record(
                        workplace.run, record_name(number, name, seed, pair_list)
                    )
                    for pair_list in target.lists
                }
                if all(found.values()):
                    members.append(
                        {
                            pair_list: stored.scores()["scores"].astype(np.float64)
                            for pair_list, stored in found.items()
                            if stored is not None
                        }
                    )
                    names.append(f"{name} {seed}")
        if len(members) < 2:
            raise NotApplicable("fewer than two attackers have trained")
        scores = {name: ensemble([member[name] for member in members]) for name in target.lists}
        return Attempt(scores, details={"members": [*names]})


def _settings(target: Target, run: Path) -> VerifierSettings:
    """Give the settings by which the verifier of a run learns on."""
    tuning = target.settings.tuning
    return VerifierSettings(
        objective=tuning.objective,
        monitor=tuning.monitor,
        network=network_of(run).model_copy(update={"pretrained": None}),
        contrast=tuning.contrast,
        augmentation=tuning.augmentation,
        training=tuning.training,
    )
