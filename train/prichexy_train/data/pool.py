"""Sets that are used together, and everything about them under one numbering of the images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prichexy_train.data.catalogue import Catalogue, Part
from prichexy_train.data.images import Images, JoinedImages
from prichexy_train.data.pairs import Pairs
from prichexy_train.data.prepared import PreparedSet
from prichexy_train.data.problems import UnusableData

__all__ = ["Pool"]


@dataclass(frozen=True)
class Pool:
    """One or several prepared sets, one after the other.

    ``patients`` holds a code for each image, different for patients of different sets;
    ``pictures`` one that images share which are (nearly) one picture.
    ``targets`` is (images, label names), 0 or 1, for the labels that any set was prepared with, the
    first set's before the next one's; NaN where the image's set was prepared without the label.
    ``serials`` is (images, 2), as a catalogue has it, with different series for
    different sets. ``digest`` changes with anything that training sees.
    """

    sets: tuple[PreparedSet, ...]
    images: Images
    patients: NDArray[np.int64]
    pictures: NDArray[np.int64]
    serials: NDArray[np.int64]
    label_names: tuple[str, ...]
    targets: NDArray[np.float32]
    digest: str

    @classmethod
    def join(cls, sets: Sequence[PreparedSet]) -> Pool:
        """Give these sets as one.

        Nothing is known about patients who are in several of them: sets with one name are refused,
        others must be known to be of different people. Raises UnusableData for that, for images
        of different sizes, and where no set is given.
        """
        names = [prepared.name for prepared in sets]
        if not sets or len(set(names)) != len(names):
            raise UnusableData(f"cannot join {', '.join(names) or 'no sets'}: each set once")
        catalogues = [prepared.catalogue for prepared in sets]
        label_names = tuple(dict.fromkeys(name for one in catalogues for name in one.label_names))
        patients, pictures, serials, targets = [], [], [], []
        people, series, before = 0, 0, 0
        for prepared in sets:
            one = prepared.catalogue
            pictures.append(prepared.pictures + before)
            before += len(one)
            patients.append(one.patients + people)
            people += int(one.patients.max(initial=-1)) + 1
            shift = np.where(one.serials[:, 0] >= 0, series, 0)
            serials.append(one.serials + np.stack([shift, np.zeros_like(shift)], axis=1))
            series += int(one.serials[:, 0].max(initial=-1)) + 1
            own = np.full((len(one), len(label_names)), np.nan, dtype=np.float32)
            own[:, [label_names.index(name) for name in one.label_names]] = one.targets()
            targets.append(own)
        digests = "\n".join(prepared.digest for prepared in sets)
        return cls(
            sets=tuple(sets),
            images=sets[0].images if len(sets) == 1 else JoinedImages([s.images for s in sets]),
            patients=np.concatenate(patients),
            pictures=np.concatenate(pictures),
            serials=np.concatenate(serials),
            label_names=label_names,
            targets=np.concatenate(targets),
            digest=sets[0].digest
            if len(sets) == 1
            else hashlib.sha256(digests.encode()).hexdigest(),
        )

    def __len__(self) -> int:
        """Give the number of images."""
        return len(self.patients)

    @property
    def name(self) -> str:
        """Give the sets' names, joined by a plus sign."""
        return "+".join(prepared.name for prepared in self.sets)

    @property
    def catalogues(self) -> tuple[Catalogue, ...]:
        """Give the sets' catalogues, in the order of the images."""
        return tuple(prepared.catalogue for prepared in self.sets)

    @property
    def set_codes(self) -> NDArray[np.int64]:
        """Give the number of each image's set, in the order of ``sets``."""
        return np.repeat(np.arange(len(self.sets)), [len(one) for one in self.catalogues])

    @property
    def pair_names(self) -> tuple[str, ...]:
        """Give the lists of pairs that every set has, in the first set's order."""
        return tuple(
            name
            for name in self.sets[0].pair_names
            if all(name in prepared.pair_names for prepared in self.sets)
        )

    def split(self, part: Part) -> NDArray[np.int64]:
        """Give the indices of the images of one part, ascending."""
        return np.concatenate(
            [one.split(part) + start for one, start in zip(self.sets, self._starts(), strict=True)]
        )

    def pairs(self, name: str) -> Pairs:
        """Give one list of pairs. Raises UnusableData where a set has none of that name."""
        return Pairs.joined(
            [
                one.pairs(name).shifted(start)
                for one, start in zip(self.sets, self._starts(), strict=True)
            ]
        )

    def _starts(self) -> list[int]:
        lengths = [len(prepared.catalogue) for prepared in self.sets]
        return [sum(lengths[:number]) for number in range(len(lengths))]
