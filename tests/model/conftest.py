"""Where the bundle is, and copies of it that a test may spoil."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def untrained_bundle() -> Path:
    """Give the bundle of random weights; a test must not write there."""
    return REPO / "model" / "untrained"


@pytest.fixture
def bundle_copy(untrained_bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(untrained_bundle, tmp_path / "bundle")


@pytest.fixture
def bundle_with(bundle_copy: Path) -> Callable[..., Path]:
    """Give a copy of the bundle whose section ``prichexy`` says something else."""

    def change(**section: Any) -> Path:
        path = bundle_copy / "configs" / "metadata.json"
        metadata = json.loads(path.read_bytes())
        metadata["prichexy"].update(section)
        path.write_text(json.dumps(metadata), encoding="utf-8")
        return bundle_copy

    return change


@pytest.fixture(scope="session")
def radiograph() -> torch.Tensor:
    """Give a real radiograph (1, 1, 256, 256) in [0, 1]."""
    from prichexy_model.inference import read_radiograph

    files = sorted((REPO.parent / "shared" / "data" / "nih512" / "images").glob("*.jpg"))
    if not files:
        pytest.skip("no real radiographs beside the checkout")
    image = read_radiograph(files[0])[None]
    return torch.nn.functional.interpolate(image, size=(256, 256), mode="bilinear")


@pytest.fixture
def noise() -> torch.Tensor:
    """Give images (2, 1, 256, 256) of uniform noise: the hardest case for interpolation."""
    return torch.rand(2, 1, 256, 256, generator=torch.Generator().manual_seed(1))
