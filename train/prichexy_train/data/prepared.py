"""A prepared set on disk: all that training reads, in one folder that needs nothing else.

``prepared.json`` (written last: a folder without it is not finished), ``catalogue.csv``,
``images.npy``, ``split.csv``, ``near_duplicates.csv`` and ``pairs/NAME.csv``.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from prichexy_train.data.catalogue import PARTS, Catalogue, Part
from prichexy_train.data.images import CachedImages
from prichexy_train.data.pairs import Pairs
from prichexy_train.data.problems import UnusableData
from prichexy_train.data.tied import tied

__all__ = [
    "CATALOGUE",
    "FORMAT",
    "IMAGES",
    "LEFT_OUT",
    "NEAR_DUPLICATES",
    "PREPARED",
    "SPLIT",
    "PreparedSet",
    "array_digest",
    "near_duplicates_text",
    "pairs_file",
    "split_text",
]

FORMAT: Final = 2
PREPARED: Final = "prepared.json"
CATALOGUE: Final = "catalogue.csv"
IMAGES: Final = "images.npy"
SPLIT: Final = "split.csv"
NEAR_DUPLICATES: Final = "near_duplicates.csv"
#: Stands in the split for an image that is in the cache and in no part.
LEFT_OUT: Final = "left out"


@dataclass(frozen=True)
class PreparedSet:
    """What ``prichexy-train prepare`` made of a set of radiographs.

    ``pictures`` holds a code for each image, the same for images that are (nearly) one picture.
    ``digest`` is one SHA-256 over images, catalogue, split, near duplicates and pairs. ``summary``
    is what ``prepare`` counted, as it stands in ``prepared.json``.
    """

    folder: Path
    name: str
    catalogue: Catalogue
    images: CachedImages
    parts: NDArray[np.int64]
    pictures: NDArray[np.int64]
    pair_names: tuple[str, ...]
    digest: str
    summary: Mapping[str, Any]

    @classmethod
    def open(cls, folder: str | Path, *, verify: bool = False) -> PreparedSet:
        """Open a finished set; the tables are checked by their digests, images when ``verify``.

        Raises UnusableData where the folder is not a finished set or is not as it was written.
        """
        folder = Path(folder)
        about = _about(folder / PREPARED)
        for file, digest in about["files"].items():
            if file != IMAGES and _file_digest(folder / file) != digest:
                raise UnusableData(f"{folder / file}: is not as it was written; prepare again")
        catalogue = Catalogue.read(folder / CATALOGUE, about["name"], about["label_names"])
        images = CachedImages(folder / IMAGES)
        if (len(images), images.size) != (len(catalogue), about["size"]):
            raise UnusableData(f"{folder / IMAGES}: does not fit {CATALOGUE}; prepare again")
        if verify and array_digest(folder / IMAGES) != about["files"][IMAGES]:
            raise UnusableData(f"{folder / IMAGES}: is not as it was written; prepare again")
        return cls(
            folder=folder,
            name=about["name"],
            catalogue=catalogue,
            images=images,
            parts=_read_split(folder / SPLIT, catalogue),
            pictures=_read_pictures(folder / NEAR_DUPLICATES, catalogue),
            pair_names=tuple(about["pairs"]),
            digest=about["digest"],
            summary=about["summary"],
        )

    def split(self, part: Part) -> NDArray[np.int64]:
        """Give the indices of the images of one part, ascending; no patient is in two parts."""
        return np.flatnonzero(self.parts == PARTS.index(part))

    def pairs(self, name: str) -> Pairs:
        """Give one list of pairs. Raises UnusableData where there is none of that name."""
        if name not in self.pair_names:
            raise UnusableData(
                f"{self.folder}: has no pairs {name}; there are {', '.join(self.pair_names)}"
            )
        if name not in self._lists:
            self._lists[name] = Pairs.read(self.folder / pairs_file(name), self.catalogue)
        return self._lists[name]

    @cached_property
    def _lists(self) -> dict[str, Pairs]:
        return {}


def pairs_file(name: str) -> str:
    """Give where a list of pairs lies in the folder."""
    return f"pairs/{name}.csv"


def split_text(catalogue: Catalogue, parts: NDArray[np.int64]) -> str:
    """Give the split as CSV: each image's id and its part."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("image_id", "part"))
    for image, part in zip(catalogue.images, parts, strict=True):
        table.writerow((image.image_id, PARTS[part] if part >= 0 else LEFT_OUT))
    return text.getvalue()


def near_duplicates_text(catalogue: Catalogue, pairs: Iterable[tuple[int, int]]) -> str:
    """Give pairs of images that are (nearly) one picture as CSV, by their ids."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("first", "second"))
    for first, second in pairs:
        table.writerow((catalogue.images[first].image_id, catalogue.images[second].image_id))
    return text.getvalue()


def array_digest(path: Path) -> str:
    """Give the SHA-256 over the digests of all images of a cache, in their order."""
    whole = hashlib.sha256()
    for image in np.load(path, mmap_mode="r", allow_pickle=False):
        whole.update(hashlib.sha256(image).digest())
    return whole.hexdigest()


def _about(path: Path) -> dict[str, Any]:
    try:
        about: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UnusableData(
            f"{path.parent}: is not a finished set; run prichexy-train prepare"
        ) from error
    except (OSError, ValueError) as error:
        raise UnusableData(f"{path}: cannot be read") from error
    if about.get("format") != FORMAT:
        raise UnusableData(f"{path}: was written by another version; prepare again")
    return about


def _file_digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UnusableData(f"{path}: cannot be read ({error.strerror})") from error


def _read_split(path: Path, catalogue: Catalogue) -> NDArray[np.int64]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    number: dict[str, int] = {part: index for index, part in enumerate(PARTS)}
    number[LEFT_OUT] = -1
    try:
        named = [row["image_id"] for row in rows]
        parts = np.array([number[row["part"]] for row in rows], dtype=np.int64)
    except KeyError as error:
        raise UnusableData(f"{path}: has a row that is no image's part") from error
    if named != [image.image_id for image in catalogue.images]:
        raise UnusableData(f"{path}: does not fit {CATALOGUE}; prepare again")
    return parts


def _read_pictures(path: Path, catalogue: Catalogue) -> NDArray[np.int64]:
    index = catalogue.index
    with path.open(encoding="utf-8", newline="") as file:
        try:
            ties = [(index[row["first"]], index[row["second"]]) for row in csv.DictReader(file)]
        except KeyError as error:
            raise UnusableData(f"{path}: has a row that is no pair of images") from error
    return tied(len(catalogue), ties)
