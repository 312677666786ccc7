"""Other de-identifiers, run on a folder of DICOM files in a process with packages of its own.

``python others.py NAME SOURCE TARGET`` runs in a Python that finds the library under test and may
lack this project's packages. Each file keeps its name; what a library cannot process is left out.
A line of JSON tells the milliseconds of processor time that each took.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

__all__ = ["LIBRARIES"]

Process = Callable[[Path, Path], None]


def dicom_anonymizer() -> Process:
    """Give dicom-anonymizer with its newest table of Table E.1-1."""
    from dicomanonymizer import simpledicomanonymizer

    def rules() -> object:
        return simpledicomanonymizer.initialize_actions("dicomfields_2026c")

    def process(source: Path, target: Path) -> None:
        simpledicomanonymizer.anonymize_dicom_file(str(source), str(target), base_rules_gen=rules)

    return process


def dicognito() -> Process:
    """Give dicognito as its documentation shows it, with a seed."""
    import pydicom
    from dicognito.anonymizer import Anonymizer

    anonymizer = Anonymizer(seed="side by side")

    def process(source: Path, target: Path) -> None:
        with pydicom.dcmread(source) as dataset:
            anonymizer.anonymize(dataset)
            dataset.save_as(target)

    return process


def deid() -> Process:
    """Give deid with its own recipe, private elements and sequences removed."""
    from deid.dicom import replace_identifiers

    def process(source: Path, target: Path) -> None:
        replace_identifiers(
            dicom_files=[str(source)],
            save=True,
            output_folder=str(target.parent),
            strip_sequences=True,
            remove_private=True,
            overwrite=True,
        )

    return process


LIBRARIES: dict[str, Callable[[], Process]] = {
    "dicom-anonymizer": dicom_anonymizer,
    "dicognito": dicognito,
    "deid": deid,
}


def main(name: str, source: Path, target: Path) -> None:
    """Run over the files in the order of their names."""
    warnings.simplefilter("ignore")
    logging.disable()
    process = LIBRARIES[name]()
    milliseconds: dict[str, float] = {}
    for file in sorted(source.iterdir()):
        start = time.process_time()
        try:
            process(file, target / file.name)
        except Exception:  # noqa: BLE001 - whatever a library raises, its file is missing then
            (target / file.name).unlink(missing_ok=True)
            continue
        milliseconds[file.name] = 1000 * (time.process_time() - start)
    sys.stdout.write("\n" + json.dumps(milliseconds) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
