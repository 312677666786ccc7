"""Finished runs on the miniature set, in seconds: critics, and what is trained against them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prichexy_testing.miniature_chestxray14 import prepared
from prichexy_train.stages.adversarial import AdversarialSettings, run_adversarial
from prichexy_train.stages.classifier import ClassifierSettings, run_classifier
from prichexy_train.stages.pretraining import PretrainingSettings, run_pretraining
from prichexy_train.stages.verifier import VerifierSettings, run_verifier

__all__ = [
    "SIZE",
    "Runs",
    "adversarial_settings",
    "make",
    "pretraining_settings",
    "training",
]

#: Of the images, in pixels.
SIZE = 32


@dataclass(frozen=True)
class Runs:
    """Folders: the prepared set, and finished runs of the stages before adversarial training."""

    data: Path
    verifier: Path
    other_verifier: Path
    classifier: Path
    pretrained: Path
    pretrained_privacy_net: Path


def training(**changes: Any) -> dict[str, Any]:
    """Give a table ``[training]``: one epoch of two steps of four."""
    words: dict[str, Any] = {"batch_size": 4, "epochs": 1, "steps_per_epoch": 2, "device": "cpu"}
    return words | changes


def pretraining_settings(kind: str = "deformation", **changes: Any) -> PretrainingSettings:
    """Give settings for ``run_pretraining``; the changes are the table ``[training]``'s."""
    return PretrainingSettings.model_validate(
        {"anonymizer": {"kind": kind, "size": SIZE}, "training": training(**changes)}
    )


def adversarial_settings(runs: Runs, **changes: Any) -> AdversarialSettings:
    """Give settings for ``run_adversarial``; a table among the changes adds to its table."""
    words: dict[str, Any] = {
        "anonymizer": {"kind": "deformation", "size": SIZE},
        "critics": {"verifiers": [str(runs.verifier)], "classifier": str(runs.classifier)},
        "training": training(),
    }
    for key, value in changes.items():
        words[key] = words.get(key, {}) | value if isinstance(value, dict) else value
    return AdversarialSettings.model_validate(words)


def make(folder: Path) -> Runs:
    """Prepare a miniature below ``folder`` and run the stages on it."""
    runs = Runs(
        data=prepared(folder, size=SIZE).folder,
        verifier=folder / "verifier",
        other_verifier=folder / "other-verifier",
        classifier=folder / "classifier",
        pretrained=folder / "pretrained",
        pretrained_privacy_net=folder / "pretrained-privacy-net",
    )
    for run, head, seed in ((runs.verifier, "difference", 1), (runs.other_verifier, "cosine", 2)):
        network = {"backbone": "tiny", "head": head, "embedding": 8, "size": SIZE}
        words = {"network": network, "training": training(seed=seed)}
        run_verifier(VerifierSettings.model_validate(words), [runs.data], run)
    words = {
        "least_positives": 1,
        "network": {"backbone": "tiny", "size": 24},
        "training": training(),
    }
    run_classifier(ClassifierSettings.model_validate(words), [runs.data], runs.classifier)
    run_pretraining(pretraining_settings(), [runs.data], runs.pretrained)
    run_pretraining(pretraining_settings("privacy-net"), [runs.data], runs.pretrained_privacy_net)
    return runs


def adversarial(runs: Runs, folder: Path, **changes: Any) -> Path:
    """Train adversarially as ``adversarial_settings`` says, to the end; give the run's folder."""
    run_adversarial(adversarial_settings(runs, **changes), [runs.data], folder)
    return folder
