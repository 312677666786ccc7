"""MONAI's command line on a bundle, with no network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import prichexy_model

__all__ = ["monai", "run_on", "verify_metadata", "verify_net_in_out"]

#: A proxy that nobody serves: whatever tries the network fails at once.
_NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")


def monai(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m monai.bundle`` in the bundle's folder, as its README says."""
    paths = [str(Path(prichexy_model.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        **_NO_NETWORK,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, "-m", "monai.bundle", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def verify_metadata(folder: Path) -> subprocess.CompletedProcess[str]:
    """Compare the metadata with the bundle's own schema."""
    return monai(
        folder,
        "verify_metadata",
        *("--meta_file", "configs/metadata.json"),
        *("--filepath", "configs/metadata.schema.json"),
    )


def verify_net_in_out(folder: Path) -> subprocess.CompletedProcess[str]:
    """Have the network take and give what the metadata says."""
    return monai(
        folder,
        *("verify_net_in_out", "network_def"),
        *("--meta_file", "configs/metadata.json"),
        *("--config_file", "configs/inference.json"),
    )


def run_on(folder: Path, images: Path, output: Path) -> subprocess.CompletedProcess[str]:
    """Deform pictures."""
    return monai(
        folder,
        "run",
        *("--config_file", "configs/inference.json"),
        *("--images", str(images)),
        *("--output_dir", str(output)),
        *("--device", "$torch.device('cpu')"),
    )
