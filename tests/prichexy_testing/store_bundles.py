"""Bundles for a model store that are not to be loaded: all that is said of them, no network."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

__all__ = ["METRICS", "small_bundle"]


def _auc(mean: float) -> dict[str, Any]:
    return {"mean": mean, "sd": None, "interval": [mean - 0.01, mean + 0.01]}


#: As ``prichexy-train export`` writes them.
METRICS: dict[str, Any] = {
    "nih": {
        "verification": {
            "test": {
                "pairs": 1000,
                "patients": 300,
                "strongest": {"name": "a new verifier", "auc": _auc(0.612)},
                "real_images": {"name": "a verifier", "auc": _auc(0.957)},
            }
        },
        "retrieval": [
            {
                "name": "a verifier",
                "gallery": 500,
                "rank1": {"mean": 0.031},
                "rank1_of_guessing": 0.002,
            }
        ],
        "utility": {"images": 2000, "auc": 0.801, "interval": [0.79, 0.81], "real_images": 0.822},
    }
}


def small_bundle(folder: Path, version: str, evidence: str = "trained", **said: Any) -> Path:
    """Make a bundle's files; its weights are none that could be loaded."""
    for part in ("configs", "docs", "models"):
        (folder / part).mkdir(parents=True)
    weights = f"weights of {version}".encode()
    (folder / "models" / "model.pt").write_bytes(weights)
    section = {
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "evidence": evidence,
        "statement": f"What is known of {version}.",
        "mu": 0.01,
        "border": "corrected",
        "input_size": 256,
    }
    metadata = {"name": "generator", "version": version, "prichexy": section, **said}
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    (folder / "docs" / "README.md").write_text(f"# Card of {version} <b>")
    return folder
