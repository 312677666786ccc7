"""What a set of radiographs holds: one record an image, in one fixed order."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from prichexy_train.data.problems import UnusableData

__all__ = ["PARTS", "Catalogue", "ImageRecord", "Part", "Reading", "codes"]

#: The parts of a split; elsewhere a part is its place here.
Part = Literal["train", "val", "test"]
PARTS: Final[tuple[Part, ...]] = get_args(Part)

_COLUMNS: Final = (
    "image_id",
    "patient_id",
    "path",
    "labels",
    "view",
    "sex",
    "age",
    "followup",
    "series",
    "number",
    "columns",
    "rows",
)


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """What the tables say about one image.

    ``path`` is the file below the set's folder, with forward slashes. ``labels`` holds findings
    only: it is empty where there is none. Text is empty and a number None where unknown. ``age``
    is in years, ``followup`` the image's place in the patient's history.

    ``serial`` is (series, number) where patients were numbered in the order they came, and where
    two numbers in a row may therefore be one person; None where numbers say nothing.

    ``original`` is (columns, rows) of the image as the department's machine gave it, where the
    table tells: what lies on disk may have been resized since.
    """

    image_id: str
    patient_id: str
    path: str
    labels: frozenset[str] = frozenset()
    view: str = ""
    sex: str = ""
    age: int | None = None
    followup: int | None = None
    serial: tuple[str, int] | None = None
    original: tuple[int, int] | None = None


@dataclass(frozen=True)
class Catalogue:
    """All images of a set. Everything else names an image by its index in ``images``.

    ``label_names`` are the labels that a classifier is trained for, in the order of its outputs.
    """

    name: str
    label_names: tuple[str, ...]
    images: tuple[ImageRecord, ...]

    def __len__(self) -> int:
        """Give the number of images."""
        return len(self.images)

    @cached_property
    def index(self) -> dict[str, int]:
        """Give each image's index by its id."""
        return {image.image_id: index for index, image in enumerate(self.images)}

    @cached_property
    def patients(self) -> NDArray[np.int64]:
        """Give a code of each image's patient: 0, 1, … in order of first appearance."""
        return codes([image.patient_id for image in self.images])

    @cached_property
    def serials(self) -> NDArray[np.int64]:
        """Give (series code, number) of each image, shape (images, 2); (-1, 0) where none."""
        series = {image.serial[0] for image in self.images if image.serial}
        code = {name: number for number, name in enumerate(sorted(series))}
        rows = [(code[i.serial[0]], i.serial[1]) if i.serial else (-1, 0) for i in self.images]
        return np.array(rows, dtype=np.int64).reshape(-1, 2)

    def targets(self) -> NDArray[np.float32]:
        """Give 1 where an image has a label, else 0; shape (images, label names)."""
        column = {name: index for index, name in enumerate(self.label_names)}
        targets = np.zeros((len(self.images), len(self.label_names)), dtype=np.float32)
        for row, image in enumerate(self.images):
            for label in image.labels & column.keys():
                targets[row, column[label]] = 1
        return targets

    def digest(self) -> str:
        """Give the SHA-256 of all that the catalogue says; the same wherever the files lie."""
        head = "\t".join((self.name, *self.label_names))
        return hashlib.sha256(f"{head}\n{self.text()}".encode()).hexdigest()

    @classmethod
    def read(cls, path: Path, name: str, label_names: Sequence[str]) -> Catalogue:
        """Read what ``text`` gave.

        Raises UnusableData where the file is absent or is not such a table.
        """
        try:
            with path.open(encoding="utf-8", newline="") as file:
                rows = csv.reader(file)
                if tuple(next(rows, ())) != _COLUMNS:
                    raise UnusableData(f"{path}: has not the columns of a catalogue")
                images = tuple(_record(dict(zip(_COLUMNS, cells, strict=True))) for cells in rows)
        except OSError as error:
            raise UnusableData(f"{path}: cannot be read ({error.strerror})") from error
        except (ValueError, csv.Error) as error:
            raise UnusableData(f"{path}: has a row that is no image's record") from error
        return cls(name, tuple(label_names), images)

    def counts(self) -> dict[str, int]:
        """Give how many images have each label, also those that are no label name."""
        counted = Counter(label for image in self.images for label in image.labels)
        return dict(sorted(counted.items()))

    def text(self) -> str:
        """Give the records as CSV; the name and the label names are not in it."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(_COLUMNS)
        for image in self.images:
            series, number = image.serial or ("", "")
            columns, rows = image.original or ("", "")
            table.writerow(
                (
                    image.image_id,
                    image.patient_id,
                    image.path,
                    "|".join(sorted(image.labels)),
                    image.view,
                    image.sex,
                    _or_empty(image.age),
                    _or_empty(image.followup),
                    series,
                    number,
                    columns,
                    rows,
                )
            )
        return text.getvalue()


@dataclass(frozen=True)
class Reading:
    """A set as it was found on disk.

    ``listed`` are the ids of all images in its table, also of those that are no part of the
    catalogue; ``left_out`` says how many of what are not, by reason.
    """

    catalogue: Catalogue
    listed: frozenset[str]
    left_out: dict[str, int]


def codes(words: Sequence[str]) -> NDArray[np.int64]:
    """Give each word as a number: 0, 1, … in order of first appearance."""
    known: dict[str, int] = {}
    return np.array([known.setdefault(word, len(known)) for word in words], dtype=np.int64)


def _or_empty(number: int | None) -> str:
    return "" if number is None else str(number)


def _number(text: str) -> int | None:
    return int(text) if text else None


def _record(row: dict[str, str]) -> ImageRecord:
    number, columns, rows = (_number(row[key]) for key in ("number", "columns", "rows"))
    return ImageRecord(
        image_id=row["image_id"],
        patient_id=row["patient_id"],
        path=row["path"],
        labels=frozenset(row["labels"].split("|")) if row["labels"] else frozenset(),
        view=row["view"],
        sex=row["sex"],
        age=_number(row["age"]),
        followup=_number(row["followup"]),
        serial=None if number is None else (row["series"], number),
        original=None if columns is None or rows is None else (columns, rows),
    )
