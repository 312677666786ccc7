"""Pairs of images, and whether both show one patient: what a verifier is trained and tested on."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from prichexy_train.data.catalogue import Catalogue
from prichexy_train.data.problems import UnusableData

__all__ = ["Pairs"]

_COLUMNS: Final = ("first", "second", "same")
#: In the place of the number that each stands for.
_ANSWERS: Final = ("0", "1")


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Images by their index, and whether they are one patient's. All three of one length."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    same: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if not len(self.first) == len(self.second) == len(self.same):
            raise ValueError("first, second and same are of different lengths")

    def __len__(self) -> int:
        """Give the number of pairs."""
        return len(self.same)

    def take(self, rows: NDArray[np.int64]) -> Pairs:
        """Give these pairs, in this order."""
        return Pairs(self.first[rows], self.second[rows], self.same[rows])

    def shifted(self, offset: int) -> Pairs:
        """Give the same pairs where every image's index is ``offset`` higher."""
        return Pairs(self.first + offset, self.second + offset, self.same)

    @classmethod
    def joined(cls, lists: Sequence[Pairs]) -> Pairs:
        """Give several lists as one."""
        return cls(
            np.concatenate([np.empty(0, np.int64), *(pairs.first for pairs in lists)]),
            np.concatenate([np.empty(0, np.int64), *(pairs.second for pairs in lists)]),
            np.concatenate([np.empty(0, np.bool_), *(pairs.same for pairs in lists)]),
        )

    def text(self, catalogue: Catalogue) -> str:
        """Give the pairs as CSV: first and second image's id, and 1 for the same patient."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(_COLUMNS)
        for first, second, same in zip(self.first, self.second, self.same, strict=True):
            images = catalogue.images
            table.writerow((images[first].image_id, images[second].image_id, int(same)))
        return text.getvalue()

    @classmethod
    def read(cls, path: Path, catalogue: Catalogue) -> Pairs:
        """Read what ``text`` gave.

        Raises UnusableData where the file is absent, is not such a table, names an image that the
        catalogue lacks, or contradicts its patients.
        """
        index = catalogue.index
        try:
            with path.open(encoding="utf-8", newline="") as file:
                rows = csv.reader(file)
                if tuple(next(rows, ())) != _COLUMNS:
                    raise UnusableData(f"{path}: has not the columns of a list of pairs")
                read = [(index[a], index[b], _ANSWERS.index(same)) for a, b, same in rows]
        except OSError as error:
            raise UnusableData(f"{path}: cannot be read ({error.strerror})") from error
        except KeyError as error:
            raise UnusableData(f"{path}: {error.args[0]} is not in the catalogue") from error
        except (ValueError, csv.Error) as error:
            raise UnusableData(f"{path}: has a row that is no pair") from error
        table = np.array(read, dtype=np.int64).reshape(-1, 3)
        pairs = cls(table[:, 0], table[:, 1], table[:, 2].astype(np.bool_))
        patients = catalogue.patients
        if not np.array_equal(patients[pairs.first] == patients[pairs.second], pairs.same):
            raise UnusableData(f"{path}: contradicts the catalogue about who is the same patient")
        return pairs
