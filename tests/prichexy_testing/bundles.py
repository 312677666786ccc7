"""Bundles for tests: the untrained one with other weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from prichexy_model.bundle import CLASSIFIER_FILE, METADATA_FILE, VERIFIER_FILE, WEIGHTS_FILE
from prichexy_model.classifier import AbnormalityClassifier
from prichexy_model.initial import initial_weights
from prichexy_model.verifier import SiameseVerifier
from prichexy_model.weights import save_weights
from prichexy_testing.shared_data import REPO

__all__ = ["another_bundle", "describe", "judging_bundle"]


def another_bundle(folder: Path, seed: int, **section: Any) -> Path:
    """Make a bundle in ``folder``: version ``seed``, with the random weights of that seed.

    ``section`` changes what the metadata's section says, such as evidence or mu.
    """
    shutil.copytree(REPO / "model" / "untrained", folder)
    digest = save_weights(folder / WEIGHTS_FILE, initial_weights(seed))
    describe(folder, version=str(seed), prichexy={"weights_sha256": digest, **section})
    return folder


def judging_bundle(folder: Path, seed: int = 1) -> Path:
    """Make a bundle in ``folder`` with a tiny verifier and classifier, of random weights, too."""
    another_bundle(folder, seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        verifier = SiameseVerifier("tiny", "cosine", embedding=8, size=32)
        classifier = AbnormalityClassifier("tiny", ["Effusion", "Mass"], size=32)
    describe(
        folder,
        prichexy={
            "verifier": {
                "backbone": "tiny",
                "head": "cosine",
                "embedding": 8,
                "input_size": 32,
                "weights_sha256": save_weights(folder / VERIFIER_FILE, verifier.state_dict()),
            },
            "classifier": {
                "backbone": "tiny",
                "labels": ["Effusion", "Mass"],
                "input_size": 32,
                "weights_sha256": save_weights(folder / CLASSIFIER_FILE, classifier.state_dict()),
            },
        },
    )
    return folder


def describe(folder: Path, *, prichexy: dict[str, Any] | None = None, **metadata: Any) -> None:
    """Change what a bundle's metadata says; ``prichexy`` is merged into that section."""
    path = folder / METADATA_FILE
    said = json.loads(path.read_bytes())
    said.update(metadata)
    said["prichexy"].update(prichexy or {})
    path.write_text(json.dumps(said, indent=4) + "\n", encoding="utf-8")
