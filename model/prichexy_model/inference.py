"""What the bundle's ``configs/inference.json`` runs: picture files in, deformed pictures out.

For looking at a model and for research on exported pictures. It knows no DICOM, keeps 256 pixels
of the image and de-identifies nothing: the gateway's worker is the way for a patient's study.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from prichexy_model.anonymizer import Anonymizer
from prichexy_model.flow import warp

__all__ = ["deform_files", "read_radiograph"]

_WHITE: Final = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}


def read_radiograph(path: str | Path) -> Tensor:
    """Give the grey picture at ``path`` as (1, rows, columns) float32 in [0, 1].

    A file that Pillow reads, or a NumPy ``.npy`` file of shape (rows, columns): 8 or 16 unsigned
    bits are divided by their largest value, floating values must lie in [0, 1] already. Bone is
    expected bright. Raises ValueError for anything else.
    """
    # Not MONAI's LoadImage: its NumPy reader unpickles, and a picture must not run code.
    path = Path(path)
    if path.suffix == ".npy":
        values = np.load(path, allow_pickle=False)
    else:
        with Image.open(path) as image:
            values = np.asarray(image)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"{path}: not one grey image of rows and columns")
    return torch.from_numpy(_in_unit_range(path, values))[None]


def deform_files(
    anonymizer: Anonymizer,
    prepare: Callable[[Path], Tensor],
    files: Sequence[str | Path],
    folder: str | Path,
) -> list[Path]:
    """Deform each file and give the paths written below ``folder``, two for each.

    ``NAME.deformed.png``      what ``prepare`` made of the file, deformed: 16-bit grey
    ``NAME.displacement.npy``  float32 (2, rows, columns), normalised coordinates, x before y

    ``prepare`` gives (1, size, size) in [0, 1]. Each image is computed alone, so its result does
    not depend on the others. Raises ValueError when there is no file, or two of the same name.
    """
    paths = [Path(file) for file in files]
    if not paths:
        raise ValueError("no file matches")
    twice = sorted(
        name for name, count in Counter(path.stem for path in paths).items() if count > 1
    )
    if twice:
        raise ValueError(f"more than one file is called {', '.join(twice)}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    device = next(anonymizer.parameters()).device
    written: list[Path] = []
    for path in paths:
        with torch.inference_mode():
            image = prepare(path)[None].to(device)
            displacement = anonymizer.displacement(image)
            deformed = warp(image, displacement)
        picture = folder / f"{path.stem}.deformed.png"
        field = folder / f"{path.stem}.displacement.npy"
        grey = (deformed[0, 0].cpu().numpy() * 65535).round().astype(np.uint16)
        Image.fromarray(grey).save(picture)
        np.save(field, displacement[0].cpu().numpy())
        written += [picture, field]
    return written


def _in_unit_range(path: Path, values: NDArray[np.generic]) -> NDArray[np.float32]:
    if values.dtype in _WHITE:
        return (values.astype(np.float32) / _WHITE[values.dtype]).astype(np.float32)
    if not np.issubdtype(values.dtype, np.floating):
        raise ValueError(f"{path}: its values are neither 8 or 16 unsigned bits nor floating")
    floating = values.astype(np.float32)
    if not (floating.min() >= 0 and floating.max() <= 1):
        raise ValueError(f"{path}: its values are not all in [0, 1]")
    return floating
