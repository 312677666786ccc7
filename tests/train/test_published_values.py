"""The paper's configurations hold the paper's values (Packhäuser et al. 2023, and their code)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import pytest
from pydantic import BaseModel

from prichexy_train.attacks.settings import AttackSettings
from prichexy_train.settings import flat, read_settings
from prichexy_train.stages.adversarial import AdversarialSettings
from prichexy_train.stages.classifier import ClassifierSettings
from prichexy_train.stages.pretraining import PretrainingSettings
from prichexy_train.stages.verifier import VerifierSettings
from prichexy_train.utility import UtilitySettings

CONFIGS: Final = Path(__file__).resolve().parents[2] / "train" / "configs"
FILES: Final = sorted(file.name for file in CONFIGS.glob("*-paper*.toml"))

#: Of every training: nothing but what is published changes a step.
PLAIN: Final = {
    "precision": "float32",
    "gradient_clip": None,
    "steps_per_epoch": None,
    "warmup_epochs": 0.0,
}
ADAM: Final = {"optimizer": "adam", "weight_decay": 0.0, "schedule": "constant"}
VERIFYING: Final = {
    **PLAIN,
    **ADAM,
    "learning_rate": 1e-4,
    "batch_size": 32,
    "epochs": 100,
    "patience": 5,
}
PRETRAINING: Final = {
    **PLAIN,
    **ADAM,
    "learning_rate": 1e-4,
    "batch_size": 64,
    "epochs": 200,
    # Not published: only that the best validation is kept.
    "patience": 10,
}
ADVERSARIAL: Final = {
    **PLAIN,
    **ADAM,
    "learning_rate": 1e-4,
    "batch_size": 64,
    "epochs": 250,
    "patience": None,
}


def under(table: str, values: dict[str, Any]) -> dict[str, Any]:
    return {f"{table}.{key}": value for key, value in values.items()}


NO_AUGMENTATION: Final = {"flip": 0.0, "rotation": 0.0, "translation": 0.0, "noise": 0.0}
GAME: Final = {
    **under("training", ADVERSARIAL),
    "anonymizer.size": 256,
    "critics.verifier_rate": 1e-4,
    "critics.classifier_rate": 1e-4,
    "critics.classifier_momentum": 0.9,
    "critics.classifier_decay": 1e-4,
    "critics.restart_every": 0,
    "objective.privacy": "paper",
    "objective.privacy_weight": 1.0,
    "objective.classification_weight": 1.0,
    "monitor": "total",
    "train_pairs": "train",
    "validation_pairs": "val",
    **under("augmentation", NO_AUGMENTATION),
}
SIAMESE: Final = {"backbone": "resnet50", "head": "difference", "embedding": 128, "size": 256}

MODELS: Final[dict[str, type[BaseModel]]] = {
    "verifier": VerifierSettings,
    "classifier": ClassifierSettings,
    "pretrain": PretrainingSettings,
    "prichexynet": AdversarialSettings,
    "privacynet": AdversarialSettings,
    "attack": AttackSettings,
    "utility": UtilitySettings,
}
EXPECTED: Final[dict[str, dict[str, Any]]] = {
    "verifier-paper": {
        "objective": "pairs",
        "monitor": "loss",
        **under("network", SIAMESE),
        **under("training", VERIFYING),
        **under("augmentation", NO_AUGMENTATION),
    },
    "classifier-paper": {
        "monitor": "loss",
        "network.backbone": "densenet121",
        "network.size": 224,
        **under("augmentation", {**NO_AUGMENTATION, "flip": 0.5}),
        **under(
            "training",
            {
                **PLAIN,
                "optimizer": "sgd",
                "momentum": 0.9,
                "batch_size": 16,
                "epochs": 100,
                "patience": 3,
                "schedule": "plateau",
                "plateau_factor": 0.1,
                # Neither is published.
                "learning_rate": 0.01,
                "weight_decay": 1e-4,
            },
        ),
    },
    "pretrain-paper": {
        "anonymizer.kind": "deformation",
        "anonymizer.size": 256,
        **under("training", PRETRAINING),
    },
    "pretrain-privacynet-paper": {
        "anonymizer.kind": "privacy-net",
        "anonymizer.size": 256,
        **under("training", PRETRAINING),
    },
    "privacynet-paper": {**GAME, "anonymizer.kind": "privacy-net"},
    **{
        f"prichexynet-paper-mu{mu}{name}": {
            **GAME,
            "anonymizer.kind": "deformation",
            "anonymizer.mu": mu,
            "anonymizer.border": border,
        }
        for mu in (0.001, 0.005, 0.01)
        for name, border in (("", "corrected"), ("-border", "paper"))
    },
    "attack-paper": {
        "seeds": 10,
        "fresh.objective": "pairs",
        "fresh.monitor": "loss",
        "fresh.train_pairs": "train",
        **under("fresh.network", SIAMESE),
        **under("fresh.training", VERIFYING),
        **under("fresh.augmentation", NO_AUGMENTATION),
        **under("tuning.training", {**VERIFYING, "learning_rate": 1e-5}),
    },
    "utility-paper": {"replicates": 1000},
}


def test_every_file_of_the_paper_is_held_to_its_values() -> None:
    assert {Path(file).stem for file in FILES} == set(EXPECTED)


@pytest.mark.parametrize("file", FILES)
def test_a_file_of_the_paper_holds_the_published_values(file: str) -> None:
    word = re.split(r"[-.]", file)[0]
    changes = {
        "verifier": ("network.pretrained=none",),
        "classifier": ("network.pretrained=none",),
        "attack": tuple(
            f"{network}.pretrained=none" for network in ("fresh.network", "other", "features")
        ),
    }.get(word, ())
    if MODELS[word] is AdversarialSettings:
        changes = ("critics.verifiers=a", "critics.classifier=b")
    found = flat(read_settings(CONFIGS / file, MODELS[word], changes).model_dump())
    expected = EXPECTED[Path(file).stem]
    assert {key: found[key] for key in expected} == expected
