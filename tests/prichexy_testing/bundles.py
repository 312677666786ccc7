"""Bundles for tests: the shipped one with other weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from prichexy_model.bundle import METADATA_FILE, WEIGHTS_FILE
from prichexy_model.initial import initial_weights
from prichexy_model.weights import save_weights
from prichexy_testing.shared_data import REPO

__all__ = ["another_bundle", "describe"]


def another_bundle(folder: Path, seed: int, **section: Any) -> Path:
    """Make a bundle in ``folder``: version ``seed``, with the random weights of that seed.

    ``section`` changes what the metadata's section says, such as evidence or mu.
    """
    shutil.copytree(REPO / "model" / "bundle", folder)
    digest = save_weights(folder / WEIGHTS_FILE, initial_weights(seed))
    describe(folder, version=str(seed), prichexy={"weights_sha256": digest, **section})
    return folder


def describe(folder: Path, *, prichexy: dict[str, Any] | None = None, **metadata: Any) -> None:
    """Change what a bundle's metadata says; ``prichexy`` is merged into that section."""
    path = folder / METADATA_FILE
    said = json.loads(path.read_bytes())
    said.update(metadata)
    said["prichexy"].update(prichexy or {})
    path.write_text(json.dumps(said, indent=4) + "\n", encoding="utf-8")
