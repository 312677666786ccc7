"""A bundle may bring along the networks that judge its generator, and a coarse field."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

from prichexy_model.bundle import (
    CLASSIFIER_FILE,
    VERIFIER_FILE,
    BundleError,
    ClassifierPart,
    CoarsePart,
    VerifierPart,
    load_anonymizer,
    load_classifier,
    load_verifier,
    read_bundle,
)
from prichexy_model.classifier import AbnormalityClassifier
from prichexy_model.multiscale import MultiscaleAnonymizer
from prichexy_model.verifier import SiameseVerifier
from prichexy_model.weights import WeightsError, save_weights

DIGEST = "ab" * 32
PARTS: dict[str, dict[str, Any]] = {
    "coarse": {"mu": 0.05, "cells": 8},
    "verifier": {
        "backbone": "tiny",
        "head": "cosine",
        "embedding": 8,
        "input_size": 32,
        "weights_sha256": DIGEST,
    },
    "classifier": {
        "backbone": "tiny",
        "labels": ["Effusion", "Mass"],
        "input_size": 24,
        "weights_sha256": DIGEST,
    },
}
BAD: list[tuple[str, str, Any]] = [
    ("coarse", "mu", 0),
    ("coarse", "mu", 1.5),
    ("coarse", "mu", True),
    ("coarse", "mu", "0.05"),
    ("coarse", "cells", 0),
    ("coarse", "cells", 2),
    ("coarse", "cells", 8.5),
    ("verifier", "backbone", "../../etc"),
    ("verifier", "backbone", ""),
    ("verifier", "head", "euclidean"),
    ("verifier", "embedding", 0),
    ("verifier", "input_size", -1),
    ("verifier", "weights_sha256", "ab"),
    ("verifier", "unheard_of", 1),
    ("classifier", "labels", []),
    ("classifier", "labels", "Mass"),
    ("classifier", "labels", ["Mass", "Mass"]),
    ("classifier", "labels", ["Mass", ""]),
    ("classifier", "labels", ["Mass", 1]),
    ("classifier", "input_size", None),
    ("classifier", "weights_sha256", "AB" * 32),
    ("classifier", "unheard_of", 1),
]

Change = Callable[..., Path]


@pytest.fixture
def parts() -> dict[str, dict[str, Any]]:
    return copy.deepcopy(PARTS)


def validate(folder: Path) -> None:
    schema = json.loads((folder / "configs" / "metadata.schema.json").read_bytes())
    jsonschema.validate(json.loads((folder / "configs" / "metadata.json").read_bytes()), schema)


def test_a_bundle_without_them_says_so(untrained_bundle: Path) -> None:
    bundle = read_bundle(untrained_bundle)
    assert (bundle.coarse, bundle.verifier, bundle.classifier) == (None, None, None)
    with pytest.raises(BundleError, match="holds no verifier"):
        load_verifier(untrained_bundle)
    with pytest.raises(BundleError, match="holds no classifier"):
        load_classifier(untrained_bundle)


def test_what_it_says_of_them_is_read(bundle_with: Change, parts: dict[str, Any]) -> None:
    folder = bundle_with(**parts)
    bundle = read_bundle(folder)
    validate(folder)
    assert bundle.coarse == CoarsePart(0.05, 8)
    assert bundle.verifier == VerifierPart(DIGEST, "tiny", "cosine", 8, 32)
    assert bundle.classifier == ClassifierPart(DIGEST, "tiny", ("Effusion", "Mass"), 24)
    # Whoever deforms needs none of their files.
    assert load_anonymizer(folder)[1] == bundle


@pytest.mark.parametrize(("part", "key", "value"), BAD, ids=str)
def test_a_wrong_value_is_refused_by_its_key_and_by_the_schema_alike(
    bundle_with: Change, parts: dict[str, Any], part: str, key: str, value: Any
) -> None:
    parts[part][key] = value
    folder = bundle_with(**parts)
    with pytest.raises(BundleError, match=key):
        read_bundle(folder)
    with pytest.raises(jsonschema.ValidationError):
        validate(folder)


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_key_is_named(bundle_with: Change, parts: dict[str, Any], part: str) -> None:
    key = sorted(parts[part])[0]
    del parts[part][key]
    folder = bundle_with(**parts)
    with pytest.raises(BundleError, match=f"{part}: missing or unknown: {key}"):
        read_bundle(folder)
    with pytest.raises(jsonschema.ValidationError):
        validate(folder)
    with pytest.raises(BundleError, match=f"{part} is no JSON object"):
        read_bundle(bundle_with(**{**PARTS, part: [1]}))


@pytest.mark.parametrize(("mu", "cells"), [(0.05, 7), (0.13, 8), (0.07, 16)])
def test_a_coarse_field_that_does_not_fit_or_folds_is_refused(
    bundle_with: Change, mu: float, cells: int
) -> None:
    with pytest.raises(BundleError, match="coarse"):
        read_bundle(bundle_with(coarse={"mu": mu, "cells": cells}))


def test_the_coarse_field_is_added(bundle_with: Change, noise: torch.Tensor) -> None:
    folder = bundle_with()
    fine = load_anonymizer(folder)[0].displacement(noise)
    anonymizer, _ = load_anonymizer(bundle_with(coarse=PARTS["coarse"]))
    assert isinstance(anonymizer, MultiscaleAnonymizer)
    assert (anonymizer.mu_coarse, anonymizer.cells) == (0.05, 8)
    difference = (anonymizer.displacement(noise) - fine).abs()
    assert 0 < float(difference.max()) <= 0.05


def test_the_networks_come_ready_for_use(bundle_with: Change, parts: dict[str, Any]) -> None:
    torch.manual_seed(1)
    verifier = SiameseVerifier("tiny", "cosine", embedding=8, size=32).eval()
    classifier = AbnormalityClassifier("tiny", ["Effusion", "Mass"], size=24).eval()
    folder = bundle_with()
    for part, file, network in (
        ("verifier", VERIFIER_FILE, verifier),
        ("classifier", CLASSIFIER_FILE, classifier),
    ):
        parts[part]["weights_sha256"] = save_weights(folder / file, network.state_dict())
    bundle_with(**parts)
    images = torch.rand(2, 1, 40, 48, generator=torch.Generator().manual_seed(1))
    found, part = load_verifier(folder)
    assert part == read_bundle(folder).verifier
    known, other = load_classifier(folder)
    assert (other.labels, known.labels) == (("Effusion", "Mass"), ("Effusion", "Mass"))
    with torch.inference_mode():
        expected = verifier(images, images.flip(0))
        assert torch.allclose(found(images, images.flip(0)), expected, atol=1e-2)
        assert torch.allclose(known(images), classifier(images), atol=1e-2)
    for network in (found, known):
        assert not any(module.training for module in network.modules())
        assert not any(parameter.requires_grad for parameter in network.parameters())


def test_weights_that_do_not_fit_or_are_others_are_refused(
    bundle_with: Change, parts: dict[str, Any]
) -> None:
    folder = bundle_with()
    digest = save_weights(folder / VERIFIER_FILE, {"other": torch.zeros(2)})
    parts["verifier"]["weights_sha256"] = digest
    bundle_with(**parts)
    with pytest.raises(WeightsError, match="not the weights of this verifier"):
        load_verifier(folder)
    with pytest.raises(WeightsError, match=r"classifier\.pt"):
        load_classifier(folder)
    parts["verifier"]["backbone"] = "unheard-of"
    bundle_with(**parts)
    with pytest.raises(BundleError, match="verifier: "):
        load_verifier(folder)
