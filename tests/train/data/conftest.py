"""A miniature in the official layout: one to read, and copies that a test may spoil."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prichexy_testing import miniature_chestxray14 as miniature
from prichexy_testing.miniature_chestxray14 import Miniature
from prichexy_train.data.catalogue import Catalogue, ImageRecord


@pytest.fixture(scope="session")
def official(tmp_path_factory: pytest.TempPathFactory) -> Miniature:
    """Give a set in ChestX-ray14's layout; a test must not write there."""
    return miniature.make(tmp_path_factory.mktemp("official"), patients=16, size=32)


@pytest.fixture
def spoilt(official: Miniature, tmp_path: Path) -> Miniature:
    """Give a copy that a test may spoil."""
    return replace(official, folder=shutil.copytree(official.folder, tmp_path / "source"))


@pytest.fixture
def catalogue_of() -> Callable[..., Catalogue]:
    """Give a catalogue from rows of (patient, {field: value}), or of patients alone."""

    def build(rows: Sequence[Any], labels: Sequence[str] = ("Mass",), name: str = "x") -> Catalogue:
        images = []
        for number, row in enumerate(rows):
            patient, fields = row if isinstance(row, tuple) else (row, {})
            images.append(ImageRecord(f"{number}.png", str(patient), f"{number}.png", **fields))
        return Catalogue(name, tuple(labels), tuple(images))

    return build
