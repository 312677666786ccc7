"""MONAI's own command line verifies the bundle and runs it, with no network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prichexy_model.bundle import load_anonymizer
from prichexy_model.flow import warp
from prichexy_model.inference import read_radiograph
from prichexy_testing.monai_bundle import run_on, verify_metadata, verify_net_in_out


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Give a 16-bit picture of an odd size: a bright disc on a ramp, with noise."""
    y, x = np.mgrid[:300, :280]
    values = 20000.0 + 60 * x + 25000 * ((x - 140) ** 2 + (y - 150) ** 2 < 90**2)
    values += np.random.default_rng(0).normal(0, 500, values.shape)
    path = tmp_path / "in" / "chest.png"
    path.parent.mkdir()
    Image.fromarray(values.clip(0, 65535).astype(np.uint16)).save(path)
    return path


def test_verify_metadata_passes_without_a_network(untrained_bundle: Path) -> None:
    result = verify_metadata(untrained_bundle)
    assert result.returncode == 0, result.stderr
    assert "metadata is verified with no error" in result.stderr + result.stdout


def test_verify_metadata_fails_for_a_bundle_that_says_too_much(
    bundle_with: Callable[..., Path],
) -> None:
    result = verify_metadata(bundle_with(evidence="proven"))
    assert result.returncode != 0
    assert "Failed validating" in result.stderr


def test_verify_net_in_out_passes(untrained_bundle: Path) -> None:
    result = verify_net_in_out(untrained_bundle)
    assert result.returncode == 0, result.stderr
    assert "data shape of network is verified with no error" in result.stderr + result.stdout


def test_run_deforms_a_picture_as_the_gateways_own_model_does(
    untrained_bundle: Path, picture: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    result = run_on(untrained_bundle, picture.parent / "*.png", output)
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in output.iterdir()) == [
        "chest.deformed.png",
        "chest.displacement.npy",
    ]

    anonymizer, bundle = load_anonymizer(untrained_bundle)
    image = torch.nn.functional.interpolate(
        read_radiograph(picture)[None], size=(256, 256), mode="bilinear", align_corners=False
    )
    with torch.inference_mode():
        expected = anonymizer.displacement(image)
        deformed = warp(image, expected)
    field = np.load(output / "chest.displacement.npy")
    np.testing.assert_allclose(field, expected[0].numpy(), rtol=0, atol=1e-6)
    assert 0 < np.abs(field).max() <= bundle.mu
    grey = np.asarray(Image.open(output / "chest.deformed.png"))
    assert grey.dtype == np.uint16
    np.testing.assert_allclose(grey / 65535, deformed[0, 0].numpy(), rtol=0, atol=2e-5)
    moved = np.abs(grey / 65535 - image[0, 0].numpy())
    assert moved.max() > 0.02


def test_run_refuses_weights_that_are_not_those_of_the_metadata(
    bundle_with: Callable[..., Path], picture: Path, tmp_path: Path
) -> None:
    folder = bundle_with(weights_sha256="0" * 64)
    result = run_on(folder, picture, tmp_path / "out")
    assert result.returncode != 0
    assert "WeightsError" in result.stderr
    assert not (tmp_path / "out").exists()


def test_run_says_when_no_picture_is_there(untrained_bundle: Path, tmp_path: Path) -> None:
    result = run_on(untrained_bundle, tmp_path / "*.png", tmp_path / "out")
    assert result.returncode != 0
    assert "no file matches" in result.stderr
