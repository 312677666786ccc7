"""The bundle that the gateway uses until somebody promotes another one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

from prichexy_model.bundle import (
    CLASSIFIER_FILE,
    VERIFIER_FILE,
    WEIGHTS_FILE,
    Bundle,
    load_anonymizer,
    load_classifier,
    load_verifier,
    read_bundle,
)

REPO = Path(__file__).resolve().parents[2]
SHIPPED = REPO / "model" / "bundle"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return read_bundle(SHIPPED)


@pytest.fixture(scope="module")
def metadata() -> dict[str, Any]:
    data: dict[str, Any] = json.loads((SHIPPED / "configs" / "metadata.json").read_bytes())
    return data


def test_it_is_small_enough_for_a_repository() -> None:
    sizes = [path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()]
    assert max(sizes) <= 40e6
    assert sum(sizes) <= 80e6


def test_it_was_trained_and_its_three_networks_are_those_that_it_names(bundle: Bundle) -> None:
    assert bundle.evidence != "untrained"
    assert bundle.verifier is not None
    assert bundle.classifier is not None
    digests = {
        WEIGHTS_FILE: bundle.digest,
        VERIFIER_FILE: bundle.verifier.digest,
        CLASSIFIER_FILE: bundle.classifier.digest,
    }
    for file, digest in digests.items():
        assert hashlib.sha256((SHIPPED / file).read_bytes()).hexdigest() == digest


def test_its_networks_work_and_tell_images_apart(bundle: Bundle) -> None:
    anonymizer, _ = load_anonymizer(SHIPPED)
    coarse = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    images = torch.nn.functional.interpolate(coarse, size=bundle.input_size, mode="bilinear")
    with torch.inference_mode():
        field = anonymizer.displacement(images)
        verifier, _ = load_verifier(SHIPPED)
        same, others = verifier(images, images), verifier(images, images.roll(1, 0))
        findings = load_classifier(SHIPPED)[0](images)
    reach = bundle.mu + (bundle.coarse.mu if bundle.coarse else 0)
    assert 0 < float(field.abs().max()) <= reach
    assert (same > others).all()
    assert torch.isfinite(findings).all()


def test_its_metadata_is_as_the_schema_asks_and_says_where_it_comes_from(
    metadata: dict[str, Any],
) -> None:
    schema = json.loads((SHIPPED / "configs" / "metadata.schema.json").read_bytes())
    jsonschema.validate(metadata, schema)
    untrained = REPO / "model" / "untrained" / "configs" / "metadata.schema.json"
    assert json.loads(untrained.read_bytes()) == schema
    trained_on = metadata["provenance"]["runs"]["anonymizer"]["sets"]
    assert all(name in metadata["data_source"] for name in trained_on)
    assert "licen" in metadata["data_source"].lower() or "CC BY" in metadata["data_source"]
    assert metadata["limits"]


def test_it_tells_what_attackers_found_on_every_set_that_it_was_trained_on(
    metadata: dict[str, Any], bundle: Bundle
) -> None:
    figures = metadata["eval_metrics"]
    (trained_on,) = metadata["provenance"]["runs"]["anonymizer"]["sets"]
    assert figures.keys() == set(trained_on.split("+"))
    for found in figures.values():
        assert found["utility"]["images"] > 0
        for attacked in found["verification"].values():
            rungs = {attack["rung"] for attack in attacked["attacks"]}
            assert rungs >= ({1, 2, 3, 4, 5, 8} if bundle.evidence == "measured" else {3, 5})
            certain = attacked["change"]["interval"][1] < 0
            assert certain or not bundle.protects


def test_its_card_says_what_it_is_for_and_where_it_ends() -> None:
    card = (SHIPPED / "docs" / "README.md").read_text(encoding="utf-8")
    for heading in ("What it is for, and what not", "Figures", "Limits", "Where it comes from"):
        assert f"## {heading}" in card
    for private in ("/work", "/root", "/home", "/tmp"):
        assert private not in card
        assert private not in (SHIPPED / "configs" / "metadata.json").read_text(encoding="utf-8")
