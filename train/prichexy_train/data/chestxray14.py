"""Reads ChestX-ray14 as the NIH gives it out, and the lists of pairs published for it."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from prichexy_train.data.catalogue import Catalogue, ImageRecord, Reading
from prichexy_train.data.pairs import Pairs
from prichexy_train.data.problems import Problems
from prichexy_train.data.settings import CHESTXRAY14_LABELS, ChestXray14Source
from prichexy_train.data.tables import csv_rows, lines, number, table_file

__all__ = ["OfficialLists", "read_catalogue", "read_lists", "read_pairs"]

#: What a comma within brackets makes of the column OriginalImage[Width,Height].
_WIDTH, _HEIGHT = "OriginalImage[Width", "Height]"
_COLUMNS: Final = (
    "Image Index",
    "Finding Labels",
    "Follow-up #",
    "Patient ID",
    "Patient Age",
    "Patient Gender",
    "View Position",
)
_NO_FINDING: Final = "No Finding"
#: The first edition of the table writes ages as 058Y.
_AGE: Final = re.compile(r"(\d{1,3})Y?")
#: The first edition has ages up to 414: above this they are taken as unknown.
OLDEST: Final = 120


@dataclass(frozen=True, slots=True)
class OfficialLists:
    """The names in ``train_val_list.txt`` and ``test_list.txt``, in their order."""

    train_val: tuple[str, ...]
    test: tuple[str, ...]


def read_catalogue(
    folder: Path,
    name: str,
    settings: ChestXray14Source,
    problems: Problems,
    *,
    images: bool = True,
) -> Reading:
    """Give the set in ``folder``, in the table's order.

    What is wrong goes to ``problems``: rows that are no rows, images that are missing, there
    twice, or in no table. Without ``images`` none is looked for: the catalogue has every row of
    the table, with an empty path. Raises UnusableData where there is no table at all.
    """
    notes: dict[str, int] = {}
    files = _files(folder, problems) if images else {}
    records: list[ImageRecord] = []
    seen: set[str] = set()
    table = table_file(folder / settings.tables, settings.table)
    for row, cells in csv_rows(table, _COLUMNS, problems):
        record = _record(cells, f"{table.name}, row {row}", problems, notes)
        if record is None:
            seen.add(cells["Image Index"])
            continue
        if record.image_id in seen:
            problems.add(
                "Listed twice in the table: remove a row", f"{record.image_id} (row {row})"
            )
            continue
        seen.add(record.image_id)
        path = files.get(record.image_id) if images else ""
        if path is None:
            if settings.complete:
                problems.add(
                    "In the table, but no such file: fetch it, or set source.complete = false",
                    record.image_id,
                )
            else:
                _count(notes, "images in the table that are not here")
            continue
        records.append(replace(record, path=path))
    for image in sorted(files.keys() - seen):
        problems.add("A file that the table does not list: remove it", files[image])
    return Reading(Catalogue(name, CHESTXRAY14_LABELS, tuple(records)), frozenset(seen), notes)


def read_lists(folder: Path, settings: ChestXray14Source, problems: Problems) -> OfficialLists:
    """Give the official lists. Raises UnusableData where one is absent."""
    tables = folder / settings.tables
    found = []
    for name in (settings.train_val_list, settings.test_list):
        file = table_file(tables, name)
        names = list(lines(file))
        for image, times in Counter(names).items():
            if times > 1:
                problems.add("Twice in an official list: remove a line", f"{image} in {file.name}")
        found.append(tuple(names))
    return OfficialLists(*found)


def read_pairs(
    file: Path,
    catalogue: Catalogue,
    allowed: NDArray[np.bool_],
    problems: Problems,
    *,
    complete: bool,
) -> tuple[Pairs, dict[str, int]]:
    """Give a published list of pairs, in its order, and how many were left out, by reason.

    ``allowed`` says for each image whether it is in the part that the list is for. A line that is
    no pair, names an image of another part, or contradicts the table about who is the same
    patient is a problem, and so is one that names an unknown image where the set is ``complete``.
    """
    notes: dict[str, int] = {}
    index, patients = catalogue.index, catalogue.patients
    read: list[tuple[int, int, bool]] = []
    for row, line in enumerate(lines(file), start=1):
        where = f"{file.name}, line {row}"
        match line.split("\t"):
            case [first, second, ("1.0" | "1" | "0.0" | "0") as answer]:
                same = answer.startswith("1")
            case _:
                problems.add("Not two images and 1.0 or 0.0, between tabulators", where)
                continue
        if first not in index or second not in index:
            if complete:
                problems.add("A pair of an image that the table does not list", where)
            else:
                _count(notes, "published pairs of images that are not here")
            continue
        a, b = index[first], index[second]
        if not (allowed[a] and allowed[b]):
            problems.add("A pair of an image from another part of the split", where)
        elif bool(patients[a] == patients[b]) != same:
            problems.add("A pair that contradicts the table about the patient", where)
        elif a == b:
            problems.add("A pair of an image with itself", where)
        else:
            read.append((a, b, same))
    table = np.array(read, dtype=np.int64).reshape(-1, 3)
    return Pairs(table[:, 0], table[:, 1], table[:, 2].astype(np.bool_)), notes


def _files(folder: Path, problems: Problems) -> dict[str, str]:
    """Give each PNG's path below ``folder``, by the file's name."""
    found: dict[str, str] = {}
    for path in _walk(folder):
        name = path.rpartition("/")[2]
        if name in found:
            problems.add("There twice: remove one of the files", f"{found[name]} and {path}")
        else:
            found[name] = path
    if not found:
        problems.add("No PNG file below a folder images*", str(folder))
    return found


def _walk(folder: Path) -> Iterator[str]:
    tops = (entry for entry in folder.iterdir() if entry.name.startswith("images"))
    for top in sorted(entry for entry in tops if entry.is_dir()):
        for here, folders, files in os.walk(top):
            folders.sort()
            base = Path(here).relative_to(folder).as_posix()
            yield from (f"{base}/{file}" for file in sorted(files) if file.endswith(".png"))


def _record(
    cells: Mapping[str, str], where: str, problems: Problems, notes: dict[str, int]
) -> ImageRecord | None:
    image, patient = cells["Image Index"], cells["Patient ID"]
    labels = frozenset(cells["Finding Labels"].split("|")) - {_NO_FINDING}
    followup = number(cells["Follow-up #"])
    age = _AGE.fullmatch(cells["Patient Age"])
    wrong = None
    if not image.endswith(".png") or "/" in image:
        wrong = "no image's name"
    elif not patient:
        wrong = "no patient"
    elif labels - set(CHESTXRAY14_LABELS):
        wrong = f"unknown finding {sorted(labels - set(CHESTXRAY14_LABELS))[0]!r}"
    elif followup is None or age is None:
        wrong = "follow-up or age is no number"
    elif cells["Patient Gender"] not in ("M", "F") or cells["View Position"] not in ("PA", "AP"):
        wrong = "sex is not M or F, or view not PA or AP"
    if wrong is not None or age is None:
        problems.add("A row that cannot be read: mend it", f"{where}: {wrong}")
        return None
    years: int | None = int(age[1])
    if years is not None and years > OLDEST:
        _count(notes, f"ages above {OLDEST}, taken as unknown")
        years = None
    width, height = (number(cells.get(key, "")) for key in (_WIDTH, _HEIGHT))
    return ImageRecord(
        image_id=image,
        patient_id=patient,
        path="",
        labels=labels,
        view=cells["View Position"],
        sex=cells["Patient Gender"],
        age=years,
        followup=followup,
        original=(width, height) if width and height else None,
    )


def _count(notes: dict[str, int], reason: str) -> None:
    notes[reason] = notes.get(reason, 0) + 1
