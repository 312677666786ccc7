"""What a report is made from: the records and the runs below a folder, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from prichexy_train.errors import Failed
from prichexy_train.records import Stored, UtilityRecord, read_records
from prichexy_train.runs import RunFolder
from prichexy_train.settings import RANDOM_WEIGHTS

__all__ = ["Evidence", "Run", "attempt_provenance", "began_with", "gather"]

#: Of a digest, what tells files apart for people.
_DIGITS: Final = 16

#: What runs call the weights that they begin with.
_GENERATORS: Final[Mapping[str, str]] = {"start": "pretrained generator"}
_NETWORKS: Final[Mapping[str, str]] = {
    "network.pretrained": "pretrained weights",
    "verifier": "strong verifier",
}


@dataclass(frozen=True)
class Run:
    """A run as its folder tells of it; ``name`` is the folder's, below the one searched.

    ``history`` is empty for a run that trains no network itself, ``result`` for one that is not
    finished.
    """

    name: str
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    result: Mapping[str, Any]

    @property
    def stage(self) -> str:
        """Give what kind of run it was, such as ``verifier``."""
        return str(self.provenance["stage"])

    @property
    def seconds(self) -> float | None:
        """Give the seconds that all its starts together took; None before its end."""
        seconds = self.provenance.get("seconds")
        return None if seconds is None else float(seconds)


@dataclass(frozen=True)
class Evidence:
    """Records and runs, each in the order of its path below ``folder``."""

    folder: Path
    records: tuple[Stored, ...]
    runs: tuple[Run, ...]

    def owner(self, stored: Stored) -> str:
        """Give the name of the run, or else the folder, that a record lies in."""
        place = stored.path.parent.parent
        names = {run.name for run in self.runs}
        for folder in (place, *place.parents):
            if not folder.is_relative_to(self.folder):
                break
            if (name := folder.relative_to(self.folder).as_posix()) in names:
                return name
        return place.relative_to(self.folder).as_posix()

    def run_of(self, stored: Stored) -> Run | None:
        """Give the run that a record lies in; None where only a folder does."""
        name = self.owner(stored)
        return next((run for run in self.runs if run.name == name), None)


def attempt_provenance(stored: Stored) -> Mapping[str, Any] | None:
    """Give how the attacker of a record was trained; None where its run is not kept."""
    record = stored.record
    if isinstance(record, UtilityRecord):
        return None
    run = stored.path.parent.parent / "attempts" / record.rung.name / f"seed-{record.seed}"
    folder = RunFolder(run)
    return folder.provenance() if folder.provenance_file.is_file() else None


def began_with(provenance: Mapping[str, Any]) -> str:
    """Say what a trained network was before it learned, by its run's provenance."""
    data: Mapping[str, str] = provenance.get("data", {})
    # What else a generator's run reads are its critics.
    known = _GENERATORS if provenance.get("stage") == "anonymizer" else _NETWORKS
    for key, words in known.items():
        if data.get(key, RANDOM_WEIGHTS) != RANDOM_WEIGHTS:
            return f"{words} {data[key][:_DIGITS]}"
    return "random weights"


def gather(folder: str | Path) -> Evidence:
    """Read every record and every run below ``folder``.

    A run inside another run's folder (an attacker that an attack trained) is part of that one and
    not listed. Raises Failed where there is no record, or one cannot be read: a report with a
    result left out would mislead.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise Failed(f"{folder}: is no folder of runs")
    records = read_records(folder)
    if not records:
        raise Failed(f"{folder}: holds no record; run prichexy-train attack or utility first")
    runs = tuple(_run(place, folder) for place in _outermost(folder))
    return Evidence(folder, tuple(records), runs)


def _outermost(folder: Path) -> Iterator[RunFolder]:
    run = RunFolder(folder)
    if run.settings_file.is_file():
        yield run
        return
    # Sorted, so that a report does not depend on the order the file system lists folders in.
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir(follow_symlinks=False):
            yield from _outermost(Path(entry.path))


def _run(place: RunFolder, folder: Path) -> Run:
    return Run(
        name=place.path.relative_to(folder).as_posix(),
        settings=place.settings(),
        provenance=place.provenance(),
        history=place.history(),
        result=place.result() if place.finished else {},
    )
