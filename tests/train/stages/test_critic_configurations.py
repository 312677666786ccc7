"""Every configuration of verifier and classifier that ships takes one step and its validation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prichexy_testing.miniature_chestxray14 import prepared
from prichexy_testing.shared_data import REPO
from prichexy_train.settings import read_settings
from prichexy_train.stages.classifier import ClassifierSettings, run_classifier
from prichexy_train.stages.verifier import VerifierSettings, run_verifier

CONFIGS = REPO / "train" / "configs"
#: One step of a few small images.
TINY = (
    "training.epochs=1",
    "training.steps_per_epoch=1",
    "training.batch_size=4",
    "training.device=cpu",
    "network.size=32",
    "network.pretrained=none",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("set"), patients=24).folder


@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGS.glob("verifier-*.toml")))
def test_a_verifier_takes_a_step(data: Path, tmp_path: Path, name: str) -> None:
    changes = (*TINY, "contrast.patients=2")

    one_step(VerifierSettings, run_verifier, CONFIGS / name, data, tmp_path, changes)


@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGS.glob("classifier-*.toml")))
def test_a_classifier_takes_a_step(data: Path, tmp_path: Path, name: str) -> None:
    changes = (*TINY, "least_positives=1")

    one_step(ClassifierSettings, run_classifier, CONFIGS / name, data, tmp_path, changes)


def one_step(
    kind: Any,
    run: Callable[..., Any],
    config: Path,
    data: Path,
    folder: Path,
    changes: tuple[str, ...],
) -> None:
    fitted = run(read_settings(config, kind, changes), [data], folder)

    assert fitted.finished
    assert len(fitted.history) == 1
    assert fitted.history[0]["train"]["loss"] > 0
