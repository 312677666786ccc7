"""A tiny ChestX-ray14: drawn chests in the official layout, where a patient looks like themself.

A patient's body is drawn from a few numbers (lungs, heart, ribs, collar bones); each image of it
is taken from a slightly other position and exposure, and shows what its labels say. So a verifier
has something to learn within seconds, a classifier too, and nobody's radiograph is in it.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prichexy_train.data.prepared import PreparedSet
from prichexy_train.data.preparing import prepare_set
from prichexy_train.data.settings import PrepareSettings

__all__ = ["Miniature", "make", "prepared", "radiograph", "settings"]

_HEADER: Final = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
_FINDINGS: Final = ("Cardiomegaly", "Effusion", "Mass")
_FOLDERS: Final = 3


@dataclass(frozen=True)
class Miniature:
    """What was written: the first ``train_images`` lines of ``train_val_list.txt`` are training."""

    folder: Path
    train_images: int
    images: int
    patients: int


def make(folder: Path, *, patients: int = 24, seed: int = 0, size: int = 64) -> Miniature:
    """Write a set of that many patients with 1 to 6 images each; most have several.

    Half of the patients are training, a quarter each validation and test. The lists of pairs are
    named as the published ones and half positive.
    """
    random = np.random.default_rng(seed)
    rows: list[tuple[Any, ...]] = []
    for patient in range(1, patients + 1):
        body = random.normal(size=10)
        sex, age = "MF"[patient % 2], int(random.integers(20, 80))
        number = 1 if patient % 6 == 0 else int(random.integers(2, 7))
        for followup in range(number):
            view = "AP" if random.random() < 0.4 else "PA"
            found = [label for label in _FINDINGS if random.random() < 0.25]
            name = f"{patient:08d}_{followup:03d}.png"
            pixels = radiograph(body, frozenset(found), size, random)
            where = folder / f"images_{patient % _FOLDERS + 1:03d}" / "images"
            where.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(where / name)
            labels = "|".join(found) or "No Finding"
            rows.append((name, labels, followup, patient, age + followup // 2, sex, view))
    with (folder / "Data_Entry_2017_v2020.csv").open("w", encoding="utf-8", newline="") as file:
        file.write(_HEADER + "\n")
        csv.writer(file, lineterminator="\n").writerows(
            (*row, 2048, 2048 + 100 * (row[3] % 5), 0.1, 0.1) for row in rows
        )
    first, last = patients // 2, patients * 3 // 4
    parts = {
        "training": [row for row in rows if row[3] <= first],
        "validation": [row for row in rows if first < row[3] <= last],
        "testing": [row for row in rows if row[3] > last],
    }
    _lines(folder / "train_val_list.txt", [r[0] for r in parts["training"] + parts["validation"]])
    _lines(folder / "test_list.txt", [row[0] for row in parts["testing"]])
    for part, count in (("training", 10000), ("validation", 2000), ("testing", 5000)):
        _lines(folder / f"image_pairs_{part}_{count}.txt", _pairs(parts[part], random))
    return Miniature(folder, len(parts["training"]), len(rows), patients)


def settings(miniature: Miniature, *, size: int = 32, **changes: Any) -> PrepareSettings:
    """Give the settings that prepare it, with the published lists and a matched one."""
    published = {"drawn": "published"}
    whole: dict[str, Any] = {
        "name": "miniature",
        "size": size,
        "source": {"layout": "chestxray14"},
        "split": {"by": "official", "train_images": miniature.train_images},
        "pairs": {
            "train": {**published, "file": "image_pairs_training_10000.txt"},
            "val": {**published, "file": "image_pairs_validation_2000.txt"},
            "test": {**published, "file": "image_pairs_testing_5000.txt"},
            "test_matched": {"count": 5000, "a_patient": 1, "match": ["sex", "view"]},
        },
    }
    return PrepareSettings.model_validate({**whole, **changes})


def prepared(folder: Path, *, patients: int = 24, seed: int = 0, size: int = 32) -> PreparedSet:
    """Make a miniature below ``folder`` and prepare it, in this process."""
    miniature = make(folder / "source", patients=patients, seed=seed, size=2 * size)
    prepare_set(settings(miniature, size=size), miniature.folder, folder / "prepared", jobs=1)
    return PreparedSet.open(folder / "prepared")


def radiograph(
    body: NDArray[np.float64], found: frozenset[str], size: int, random: np.random.Generator
) -> NDArray[np.uint8]:
    """Draw one image of a body (10 numbers, about normal) at a position drawn from ``random``."""
    y, x = np.mgrid[0:size, 0:size] / (size - 1) * 2 - 1
    turn, zoom, left, down = random.normal(scale=(0.03, 0.03, 0.04, 0.04))
    x, y = (1 + zoom) * (x + turn * y) + left, (1 + zoom) * (y - turn * x) + down
    widths, heights = 0.34 + 0.05 * body[0:2], 0.62 + 0.06 * body[2:4]
    heart = 0.30 + 0.05 * body[4] + (0.22 if "Cardiomegaly" in found else 0.0)
    grey = 0.55 + 0.06 * body[5] - 0.35 * np.clip(np.hypot(x / 1.1, y / 1.4) - 0.75, 0, 1)
    for side, width, height in zip((-1, 1), widths, heights, strict=True):
        lung = np.hypot((x - side * 0.45) / width, (y + 0.05) / height)
        grey -= 0.38 / (1 + np.exp((lung - 1) * 14))
    ribs = np.sin((y + 0.25 * np.abs(x) ** 1.5) * (15 + 1.5 * body[6]) + 2 * body[7])
    grey += 0.07 * ribs * (np.abs(x) < 0.85)
    grey += 0.25 * np.exp(-((x / 0.10) ** 2))
    grey += 0.30 / (1 + np.exp((np.hypot((x - 0.14) / heart, (y - 0.35) / 0.32) - 1) * 12))
    collar = y + 0.72 + 0.06 * body[8] - (0.15 + 0.05 * body[9]) * np.abs(x)
    grey += 0.20 * np.exp(-((collar / 0.05) ** 2))
    if "Effusion" in found:
        grey += 0.35 / (1 + np.exp(-(y - 0.45) * 14)) * (x > 0.1)
    if "Mass" in found:
        grey += 0.45 * np.exp(-((np.hypot(x + 0.45, y + 0.25) / 0.14) ** 2))
    exposed = (grey * random.normal(1, 0.05) + random.normal(0, 0.02)).clip(0, 1)
    noisy = exposed + random.normal(0, 0.015, exposed.shape)
    drawn: NDArray[np.uint8] = (noisy.clip(0, 1) * 255).round().astype(np.uint8)
    return drawn


def _pairs(rows: list[tuple[Any, ...]], random: np.random.Generator) -> list[str]:
    """Give every two images of one patient, and as many of two patients."""
    all_pairs = [(a, b) for i, a in enumerate(rows) for b in rows[i + 1 :]]
    same = [(a, b) for a, b in all_pairs if a[3] == b[3]]
    others = [(a, b) for a, b in all_pairs if a[3] != b[3]]
    chosen = random.choice(len(others), size=min(len(same), len(others)), replace=False)
    different = [others[number] for number in chosen]
    return [f"{a[0]}\t{b[0]}\t1.0" for a, b in same] + [
        f"{a[0]}\t{b[0]}\t0.0" for a, b in different
    ]


def _lines(path: Path, lines: list[str]) -> None:
    # As the official lists are: no line end after the last line.
    path.write_text("\n".join(lines), encoding="utf-8")
