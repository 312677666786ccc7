"""Rung 4: a strong verifier that learns on with anonymised images, and all attackers together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from prichexy_train.attacks.features import FEATURES
from prichexy_train.attacks.frozen import ensemble
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
#: Those that any attacker can try beside them.
_OTHERS: Final = (
    (0, FEATURES),
    (3, "frozen"),
    (8, "undone"),
    (8, "registration-residual"),
    (8, "registered"),
)


class FineTuned(OfStrongVerifier):
    """A strong verifier that learns on with anonymised images. The strong ones take turns."""

    number = 4
    name = "fine-tuned"

    def learns(self, settings: AttackSettings) -> Learning:  # noqa: ARG002
        """Say that it is all."""
        return "all"

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
    """All attackers together: who can train one can train several, and does what needs none, too.

    Of rungs 1, 2, 4 and 6, every seed that has its record; and what the strong verifiers, as they
    are and after undoing and registration, the registration's residual and the ImageNet features
    have in theirs.
    """

    number = 4
    name = "trained-ensemble"
    anew = True
    rests_on = frozenset(name for _, name in (*_TRAINED, *_OTHERS))

    def attack(self, target: Target, workplace: Workplace) -> Attempt:
        """Add up the standardised scores of the records by their shares; see ``Rung``."""
        trained = _recorded(target, workplace.run, _TRAINED, target.settings.seeds)
        members = trained | _recorded(target, workplace.run, _OTHERS, max(1, len(target.verifiers)))
        if not trained or len(members) < 2:
            raise NotApplicable("no attacker has trained, or none but one has a record")
        attempt = ensemble(target, members)
        trainings = Counter(name.rpartition(" ")[0] for name in trained)
        return replace(attempt, details={**attempt.details, "trainings": dict(trainings)})


def _recorded(
    target: Target, run: Path, rungs: Sequence[tuple[int, str]], seeds: int
) -> dict[str, dict[str, Scores]]:
    """Give the scores of these rungs' attempts that are recorded, by rung and seed."""
    members: dict[str, dict[str, Scores]] = {}
    for number, name in rungs:
        for seed in range(1, seeds + 1):
            scores: dict[str, Scores] = {}
            for key, test in target.tests.items():
                stored = find_record(run, record_name(number, name, seed, key))
                if stored is None:
                    break
                arrays = stored.scores()
                scores[key] = arrays["scores"].astype(np.float64)
                if "validation" in arrays:
                    of = target.validation_key(test.of.name)
                    scores[of] = arrays["validation"].astype(np.float64)
            else:
                members[f"{name} {seed}"] = scores
    return members


def _settings(target: Target, run: Path) -> VerifierSettings:
    """Give the settings by which the verifier of a run learns on."""
    tuning = target.settings.tuning
    return VerifierSettings(
        objective=tuning.objective,
        train_pairs=target.settings.fresh.train_pairs,
        validation_pairs=target.settings.fresh.validation_pairs,
        monitor=tuning.monitor,
        network=network_of(run).model_copy(update={"pretrained": None}),
        contrast=tuning.contrast,
        augmentation=tuning.augmentation,
        training=tuning.training,
    )
