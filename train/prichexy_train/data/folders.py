"""Reads a folder of radiographs with one table, ``metadata.csv``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from prichexy_train.data.catalogue import Catalogue, ImageRecord, Reading
from prichexy_train.data.problems import Problems
from prichexy_train.data.settings import FolderSource
from prichexy_train.data.tables import csv_rows, number, table_file

__all__ = ["read_catalogue", "read_near_duplicates"]

_NO_FINDING: Final = "No Finding"
_SIZE: Final = re.compile(r"(?:([1-9]\d{0,5})x([1-9]\d{0,5}))?")
_SUFFIXES: Final = (".png", ".jpg", ".jpeg")


def read_catalogue(folder: Path, name: str, settings: FolderSource, problems: Problems) -> Reading:
    """Give the set in ``folder``, in the table's order.

    What is wrong goes to ``problems``. Raises UnusableData where there is no table at all.
    """
    files = set(_walk(folder))
    serial = re.compile(settings.serial) if settings.serial else None
    table = table_file(folder, settings.table)
    records: list[ImageRecord] = []
    seen: set[str] = set()
    for row, cells in csv_rows(table, ("image", "patient_id"), problems):
        where = f"{table.name}, row {row}"
        record = _record(cells, serial, where, problems)
        if record is None:
            seen.add(cells["image"])
            continue
        if record.image_id in seen:
            problems.add("Listed twice in the table: remove a row", f"{record.path} (row {row})")
            continue
        seen.add(record.image_id)
        if record.path not in files:
            problems.add("In the table, but no such file: fetch it or remove the row", record.path)
            continue
        records.append(record)
    for path in sorted(files - seen):
        problems.add("A file that the table does not list: remove it or add a row", path)
    for patients in _spelt_alike(record.patient_id for record in records):
        problems.add(
            "Patients that differ in upper and lower case only: one person has one identifier",
            " and ".join(patients),
        )
    if not records and not len(problems):
        problems.add("A table without a row", table.name)
    known = {label for record in records for label in record.labels}
    for label in settings.labels:
        if label not in known:
            problems.add("A label of the settings that no image has", label)
    return Reading(Catalogue(name, settings.labels, tuple(records)), frozenset(seen), {})


def read_near_duplicates(
    file: Path, catalogue: Catalogue, problems: Problems
) -> list[tuple[int, int]]:
    """Give the pairs of this catalogue's images that a table calls nearly the same picture.

    Rows about other sets are passed over, by ``set_a`` and ``set_b`` where the table has them.
    """
    index = catalogue.index
    found = []
    table = table_file(file.parent, file.name)
    for row, cells in csv_rows(table, ("image_a", "image_b"), problems):
        sets = {cells.get("set_a", catalogue.name), cells.get("set_b", catalogue.name)}
        if sets != {catalogue.name}:
            continue
        pair = cells["image_a"], cells["image_b"]
        if pair[0] in index and pair[1] in index:
            found.append((index[pair[0]], index[pair[1]]))
        elif "set_a" not in cells:
            problems.add(
                "A near duplicate of an image that the table does not list",
                f"{table.name}, row {row}",
            )
    return found


def _record(
    cells: Mapping[str, str], serial: re.Pattern[str] | None, where: str, problems: Problems
) -> ImageRecord | None:
    image, patient = cells["image"], cells["patient_id"].strip()
    sex, age, followup = (cells.get(key, "").strip() for key in ("sex", "age", "followup"))
    original = _SIZE.fullmatch(cells.get("original_size", "").strip())
    found = serial.fullmatch(patient) if serial else None
    wrong = None
    if not image.lower().endswith(_SUFFIXES):
        wrong = "image is no PNG or JPEG file"
    elif image.startswith("/") or ".." in image.split("/"):
        wrong = "image is outside the folder"
    elif not patient:
        wrong = "no patient"
    elif sex not in ("M", "F", ""):
        wrong = "sex is not M, F or empty"
    elif (age and number(age) is None) or (followup and number(followup) is None):
        wrong = "age or followup is no whole number"
    elif original is None:
        wrong = "original_size is not COLUMNSxROWS or empty"
    elif serial and found is None:
        wrong = "the pattern source.serial does not fit the patient"
    if wrong is not None or original is None:
        problems.add("A row that cannot be read: mend it", f"{where}: {wrong}")
        return None
    named = (label.strip() for label in cells.get("labels", "").split("|"))
    labels = frozenset(filter(None, named)) - {_NO_FINDING}
    return ImageRecord(
        image_id=image,
        patient_id=patient,
        path=image,
        labels=labels,
        view=cells.get("view", "").strip(),
        sex=sex,
        age=number(age),
        followup=number(followup),
        serial=(found["series"], int(found["number"])) if found else None,
        original=(int(original[1]), int(original[2])) if original[1] else None,
    )


def _spelt_alike(patients: Iterable[str]) -> Iterator[list[str]]:
    """Give identifiers that are the same but for upper and lower case, together."""
    spelt: dict[str, dict[str, None]] = {}
    for patient in patients:
        spelt.setdefault(patient.casefold(), {}).setdefault(patient)
    yield from (list(several) for several in spelt.values() if len(several) > 1)


def _walk(folder: Path) -> Iterator[str]:
    for here, folders, files in os.walk(folder):
        folders.sort()
        base = Path(here).relative_to(folder)
        for file in sorted(files):
            if file.lower().endswith(_SUFFIXES):
                yield (base / file).as_posix()
