"""Which images are for training, which for validation and which for the test: by patient."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from prichexy_train.data.catalogue import PARTS, Catalogue, Reading
from prichexy_train.data.chestxray14 import OfficialLists
from prichexy_train.data.problems import Problems
from prichexy_train.data.settings import DrawnSplit
from prichexy_train.data.tied import alike, tied

__all__ = ["drawn_split", "kin", "official_split"]

_TRAIN, _VAL, _TEST = range(len(PARTS))


def kin(catalogue: Catalogue, near_duplicates: Iterable[tuple[int, int]]) -> NDArray[np.int64]:
    """Give a code of each image's kin: patients who are tied together by nearly equal pictures."""
    return tied(len(catalogue), alike(catalogue.patients.tolist()), near_duplicates)


def official_split(
    reading: Reading, lists: OfficialLists, train_images: int, problems: Problems
) -> NDArray[np.int64]:
    """Give each image's part by the official lists: 0 train, 1 validation, 2 test.

    An image in no list or in both, one that the table does not list, and a patient in two parts
    go to ``problems``.
    """
    catalogue = reading.catalogue
    for image in sorted(set(lists.train_val) & set(lists.test)):
        problems.add("In both official lists: remove a line", image)
    part_of = {
        **dict.fromkeys(lists.train_val[:train_images], _TRAIN),
        **dict.fromkeys(lists.train_val[train_images:], _VAL),
        **dict.fromkeys(lists.test, _TEST),
    }
    if train_images >= len(lists.train_val):
        problems.add(
            "split.train_images leaves nothing for validation",
            f"{train_images:,} of {len(lists.train_val):,} lines",
        )
    for image in sorted(part_of.keys() - reading.listed):
        problems.add("In an official list, but not in the table: add a row", image)
    parts = np.full(len(catalogue), -1, dtype=np.int64)
    for index, record in enumerate(catalogue.images):
        if record.image_id in part_of:
            parts[index] = part_of[record.image_id]
        else:
            problems.add("In no official list: add a line", record.image_id)
    _check_disjoint(catalogue, parts, problems)
    return parts


def drawn_split(
    catalogue: Catalogue, relatives: NDArray[np.int64], settings: DrawnSplit
) -> tuple[NDArray[np.int64], dict[str, int]]:
    """Give each image's part (-1: left out), and how many images were left out, by reason.

    What stays together are ``relatives`` (a code for each image) and, where patients carry serial
    numbers, ``settings.block`` numbers in a row. Each series is shared out for itself; where there
    are none, those with several images and the others are.
    """
    units = _units(catalogue, relatives, settings.block)
    members: dict[int, list[int]] = defaultdict(list)
    for image, unit in enumerate(units):
        members[int(unit)].append(image)
    strata: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for unit, images in members.items():
        first = catalogue.images[images[0]]
        stratum: tuple[object, ...] = (first.serial[0],) if first.serial else (len(images) > 1,)
        strata[stratum].append(unit)
    parts = np.full(len(catalogue), -1, dtype=np.int64)
    for stratum in sorted(strata, key=str):
        order = sorted(
            strata[stratum],
            key=lambda unit: _draw(settings.seed, catalogue.images[members[unit][0]].patient_id),
        )
        total = sum(len(members[unit]) for unit in order)
        reached = 0.0
        for unit in order:
            # By where the unit's middle falls: a large one at a border goes to the nearer side.
            middle = (reached + len(members[unit]) / 2) / total
            reached += len(members[unit])
            test, val = middle < settings.test, middle < settings.test + settings.val
            parts[members[unit]] = _TEST if test else _VAL if val else _TRAIN
    notes = _open_the_edges(catalogue, relatives, parts)
    return parts, notes


def _check_disjoint(catalogue: Catalogue, parts: NDArray[np.int64], problems: Problems) -> None:
    """Note each patient with images in two parts."""
    found: dict[str, set[int]] = defaultdict(set)
    for image, part in zip(catalogue.images, parts.tolist(), strict=True):
        if part >= 0:
            found[image.patient_id].add(part)
    for patient, those in found.items():
        if len(those) > 1:
            names = " and ".join(PARTS[part] for part in sorted(those))
            problems.add("A patient in two parts of the split", f"{patient} in {names}")


def _units(catalogue: Catalogue, relatives: NDArray[np.int64], block: int) -> NDArray[np.int64]:
    """Give a code of what may not be parted: relatives, and blocks of serial numbers."""
    serials = (image.serial for image in catalogue.images)
    blocks = ((serial[0], serial[1] // block) if serial else None for serial in serials)
    return tied(len(catalogue), alike(relatives.tolist()), alike(blocks))


def _open_the_edges(
    catalogue: Catalogue, relatives: NDArray[np.int64], parts: NDArray[np.int64]
) -> dict[str, int]:
    """Leave out, in ``parts``, one of two neighbours by number that are in different parts.

    The one in the larger part goes, with its relatives: it is missed least.
    """
    at: dict[tuple[str, int], list[int]] = defaultdict(list)
    for index, image in enumerate(catalogue.images):
        if image.serial:
            at[image.serial].append(index)
    sizes = Counter(parts.tolist())
    left = 0
    for series, number in sorted(at):
        here, there = at[series, number][0], at.get((series, number + 1), [-1])[0]
        if there < 0 or parts[here] < 0 or parts[there] < 0 or parts[here] == parts[there]:
            continue
        gone = here if sizes[int(parts[here])] >= sizes[int(parts[there])] else there
        images = np.flatnonzero(relatives == relatives[gone])
        parts[images] = -1
        left += len(images)
    return {"images of neighbours by number across the split's edge": left} if left else {}


def _draw(seed: int, word: str) -> str:
    """Give a digest to sort by: an order that no other unit's presence changes."""
    return hashlib.sha256(f"{seed} {word}".encode()).hexdigest()
