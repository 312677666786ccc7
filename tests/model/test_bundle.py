"""The bundle says what its model is; what it does not say clearly is an error."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

from prichexy_model.anonymizer import Anonymizer
from prichexy_model.bundle import (
    METADATA_FILE,
    Bundle,
    BundleError,
    load_anonymizer,
    read_bundle,
)
from prichexy_model.generator import build_generator
from prichexy_model.weights import WeightsError, save_weights
from prichexy_worker.contract import ModelInfo

BAD_SECTIONS: list[dict[str, Any]] = [
    {"evidence": "proven"},
    {"evidence": "measured"},  # without a figure
    {"evidence": None},
    {"evidence": ["untrained"]},
    {"protects": True},  # of what was not measured
    {"protects": "yes"},
    {"protects": None},
    {"statement": ""},
    {"statement": "two\nlines"},
    {"statement": "x" * 401},
    {"statement": 1},
    {"mu": 0},
    {"mu": 1},
    {"mu": -0.01},
    {"mu": "0.01"},
    {"mu": True},
    {"mu": None},
    {"border": "zeros"},
    {"border": None},
    {"input_size": 0},
    {"input_size": -256},
    {"input_size": 250},
    {"input_size": 25.6},
    {"input_size": True},
    {"field_size": 0},
    {"field_size": 40},
    {"field_size": True},
    {"weights_sha256": "0" * 63},
    {"weights_sha256": "G" * 64},
    {"weights_sha256": None},
    {"unheard_of": 1},
]


def metadata_of(folder: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((folder / "configs" / "metadata.json").read_bytes())
    return data


def test_the_untrained_bundle_says_that_it_is_untrained_and_claims_no_privacy(
    untrained_bundle: Path,
) -> None:
    bundle = read_bundle(untrained_bundle)
    assert bundle.evidence == "untrained"
    assert bundle.statement == "Random initial weights; no privacy is claimed."
    assert (bundle.mu, bundle.border, bundle.input_size) == (0.01, "corrected", 256)
    assert bundle.version in metadata_of(untrained_bundle)["changelog"]
    assert metadata_of(untrained_bundle)["eval_metrics"] == {}


def test_the_untrained_weights_are_small_and_of_the_digest_that_is_told(
    untrained_bundle: Path,
) -> None:
    content = (untrained_bundle / "models" / "model.pt").read_bytes()
    assert len(content) < 16_000_000
    assert hashlib.sha256(content).hexdigest() == read_bundle(untrained_bundle).digest


def test_the_untrained_bundle_has_what_a_model_owner_needs(untrained_bundle: Path) -> None:
    files = {str(path.relative_to(untrained_bundle)) for path in untrained_bundle.rglob("*.*")}
    assert files == {
        "configs/inference.json",
        "configs/metadata.json",
        "configs/metadata.schema.json",
        "docs/README.md",
        "models/model.pt",
    }
    assert "Apache License" in (untrained_bundle / "LICENSE").read_text(encoding="utf-8")
    assert "No privacy is claimed" in (untrained_bundle / "docs" / "README.md").read_text("utf-8")


def test_what_a_bundle_says_is_fit_for_the_gateways_contract(untrained_bundle: Path) -> None:
    bundle = read_bundle(untrained_bundle)
    info = ModelInfo(bundle.name, bundle.version, bundle.digest, bundle.evidence, bundle.statement)
    assert ModelInfo.from_json(info.to_json()) == info


def test_the_model_comes_ready_for_use(untrained_bundle: Path, noise: torch.Tensor) -> None:
    anonymizer, bundle = load_anonymizer(untrained_bundle)
    assert isinstance(anonymizer, Anonymizer)
    assert bundle == read_bundle(untrained_bundle)
    assert (anonymizer.mu, anonymizer.border, anonymizer.size) == (0.01, "corrected", 256)
    assert not any(module.training for module in anonymizer.modules())
    assert not any(parameter.requires_grad for parameter in anonymizer.parameters())
    assert {parameter.dtype for parameter in anonymizer.parameters()} == {torch.float32}
    assert torch.count_nonzero(anonymizer.displacement(noise)) > 0


def test_mu_and_border_are_those_of_the_metadata(
    bundle_with: Callable[..., Path], noise: torch.Tensor
) -> None:
    folder = bundle_with(mu=0.005, border="paper", evidence="trained")
    anonymizer, bundle = load_anonymizer(folder)
    assert (bundle.mu, bundle.border, bundle.evidence) == (0.005, "paper", "trained")
    assert (anonymizer.mu, anonymizer.border) == (0.005, "paper")


@pytest.mark.parametrize(
    ("metrics", "enough"),
    [
        ({}, False),
        ({"nih512": {}}, False),
        ({"nih512": {"strongest attack": [{"auc": 0.7}]}}, True),
        ({"nih512": {"strongest attack": True}}, False),
        ("0.7", False),
    ],
)
def test_what_says_that_it_was_measured_must_have_figures(
    bundle_with: Callable[..., Path], metrics: Any, enough: bool
) -> None:
    folder = bundle_with(evidence="measured")
    path = folder / METADATA_FILE
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "eval_metrics": metrics}))
    if enough:
        assert read_bundle(folder).evidence == "measured"
    else:
        with pytest.raises(BundleError, match="eval_metrics holds no figure"):
            read_bundle(folder)


def test_a_bundle_is_frozen(untrained_bundle: Path) -> None:
    bundle: Any = read_bundle(untrained_bundle)
    with pytest.raises(FrozenInstanceError):
        bundle.evidence = "measured"


@pytest.mark.parametrize("change", BAD_SECTIONS, ids=str)
def test_a_wrong_value_is_refused_by_its_key_and_by_the_schema_alike(
    bundle_with: Callable[..., Path], change: dict[str, Any]
) -> None:
    folder = bundle_with(**change)
    (key,) = change
    with pytest.raises(BundleError, match=key):
        read_bundle(folder)
    schema = json.loads((folder / "configs" / "metadata.schema.json").read_bytes())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(metadata_of(folder), schema)


@pytest.mark.parametrize("key", ["evidence", "statement", "mu", "border", "weights_sha256"])
def test_a_missing_key_is_named(bundle_copy: Path, key: str) -> None:
    metadata = metadata_of(bundle_copy)
    del metadata["prichexy"][key]
    (bundle_copy / "configs" / "metadata.json").write_text(json.dumps(metadata), "utf-8")
    with pytest.raises(BundleError, match=f"missing or unknown: {key}"):
        read_bundle(bundle_copy)


@pytest.mark.parametrize("key", ["name", "version", "prichexy"])
def test_a_bundle_without_a_name_a_version_or_our_section_is_refused(
    bundle_copy: Path, key: str
) -> None:
    metadata = metadata_of(bundle_copy)
    del metadata[key]
    (bundle_copy / "configs" / "metadata.json").write_text(json.dumps(metadata), "utf-8")
    with pytest.raises(BundleError, match=key):
        read_bundle(bundle_copy)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"{", "not JSON"), (b"\xff\xfe\x00", "not JSON"), (b"[]", "JSON object"), (b"{}", "section")],
)
def test_metadata_that_is_no_object_is_refused(
    bundle_copy: Path, content: bytes, complaint: str
) -> None:
    (bundle_copy / "configs" / "metadata.json").write_bytes(content)
    with pytest.raises(BundleError, match=complaint):
        read_bundle(bundle_copy)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"metadata\.json: cannot be read"):
        load_anonymizer(tmp_path)


def test_other_weights_than_the_metadata_names_are_refused(bundle_copy: Path) -> None:
    save_weights(bundle_copy / "models" / "model.pt", build_generator().state_dict())
    with pytest.raises(WeightsError, match="SHA-256"):
        load_anonymizer(bundle_copy)


def test_weights_of_another_network_are_refused(
    bundle_with: Callable[..., Path], tmp_path: Path
) -> None:
    digest = save_weights(tmp_path / "other.pt", {"head.conv.bias": torch.zeros(2)})
    folder = bundle_with(weights_sha256=digest)
    (tmp_path / "other.pt").replace(folder / "models" / "model.pt")
    with pytest.raises(WeightsError, match="not the weights of this generator"):
        load_anonymizer(folder)


def test_whoever_loads_a_model_has_one_error_to_catch() -> None:
    assert issubclass(BundleError, WeightsError)
    assert Bundle.__dataclass_params__.frozen  # type: ignore[attr-defined]
