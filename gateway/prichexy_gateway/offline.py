"""Anonymising files with no server: the worker's own code over folders.

A study is processed by the same ``process_study`` that a worker runs: a folder is the source, a
staging folder the export target, and a list takes the place of the plugin's ledger. What left the
pipeline whole is moved from the staging folder to its destination in one step; everything else
goes to quarantine with its reason.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from prichexy_gateway.dicom_files import DicomFile
from prichexy_gateway.errors import Failed
from prichexy_gateway.home import write_privately
from prichexy_worker.contract import (
    REPORTABLE,
    Claim,
    ImageInDoubt,
    ImagePictures,
    PatientsAsked,
    PatientsTold,
    Reason,
    State,
    StudyMessage,
    StudyReport,
    TextPictures,
    WorkerAnnouncement,
)
from prichexy_worker.destinations import Destinations
from prichexy_worker.errors import Retryable
from prichexy_worker.export.folder import FolderExport
from prichexy_worker.pipeline import Tools
from prichexy_worker.ports import Snapshot
from prichexy_worker.pseudonyms import Pseudonyms
from prichexy_worker.study import process_study

__all__ = ["FileStudy", "Places", "StudyResult", "anonymize_study", "exit_code", "group_studies"]

#: Nobody gives the study back later: the first attempt is the last.
_ONE_ATTEMPT: Final = Claim(proceed=True, left=1, final=True)
#: Of figures in the report: all of a double's digits can look like a date that was removed.
_DECIMALS: Final = 6
_STAGING: Final = ".prichexy-staging"
_LOCK: Final = ".prichexy-lock"


@dataclass(frozen=True, slots=True)
class FileStudy:
    """The files of one study, in order. ``name`` is opaque: made with the pseudonym key."""

    name: str
    files: tuple[DicomFile, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Places:
    """Where results go. ``quarantine`` lies outside ``destination``."""

    destination: Path
    quarantine: Path

    @property
    def staging(self) -> Path:
        """Where a study is put together before it leaves; on the destination's file system."""
        return self.destination / _STAGING

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the destination for one run, ready for use; leave nothing of ours but results.

        Two runs would delete each other's staging folder. A killed holder's lock is free at once.
        Raises Failed when another run works there, or it cannot be written to.
        """
        lock = self.destination / _LOCK
        try:
            self.destination.mkdir(parents=True, exist_ok=True)
            stream = lock.open("a", encoding="utf-8")
        except OSError as error:
            raise Failed(f"The destination cannot be written to ({error.strerror}).") from None
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The holder before us may have removed the file between our two steps.
                ours = os.path.samestat(lock.stat(), os.fstat(stream.fileno()))
            except OSError:
                ours = False
            if not ours:
                raise Failed(
                    "Another run writes to DEST. Wait until it has ended, or name another folder."
                )
            try:
                self.prepare()
                yield
            finally:
                self.clean_up()
                lock.unlink(missing_ok=True)

    def prepare(self) -> None:
        """Make the destination; clear what a killed run left half done. Raises Failed."""
        try:
            self.destination.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(self.staging, ignore_errors=True)
            self.staging.mkdir(mode=0o700)
        except OSError as error:
            raise Failed(f"The destination cannot be written to ({error.strerror}).") from None

    def clean_up(self) -> None:
        """Remove the staging folder."""
        shutil.rmtree(self.staging, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class StudyResult:
    """What became of one study. Nothing in it identifies a patient.

    ``exported_as`` are the names of the folders made for it, which are new StudyInstanceUIDs.
    """

    study: str
    state: State
    files: int
    reason: Reason | None = None
    exported_as: tuple[str, ...] = ()
    durations: Mapping[str, float] = field(default_factory=dict)
    measures: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Give the entry of the machine-readable report."""
        return {
            "study": self.study,
            "state": self.state.value,
            "reason": None if self.reason is None else self.reason.value,
            "reason_sentence": None if self.reason is None else self.reason.sentence,
            "files": self.files,
            "exported_as": list(self.exported_as),
            "durations": _rounded(self.durations),
            "measures": _rounded(self.measures),
        }


def group_studies(files: Iterable[DicomFile], pseudonyms: Pseudonyms) -> list[FileStudy]:
    """Give the files by StudyInstanceUID, in the order in which the studies first appear.

    A file that names no study stands alone: it cannot be made safe, and takes none with it.
    """
    by_uid: dict[str, list[DicomFile]] = {}
    alone = 0
    for file in files:
        key = file.study_uid
        if not key:
            alone += 1
            key = f"no study {alone}"
        by_uid.setdefault(key, []).append(file)
    return [
        FileStudy(pseudonyms.opaque("study of files", uid.encode()), tuple(members))
        for uid, members in by_uid.items()
    ]


class _Files:
    """A StudySource over the files of one study; the instances are named by their number."""

    def __init__(self, study: FileStudy) -> None:
        self._files = study.files

    def snapshot(self, study_id: str) -> Snapshot:
        """Give the files' numbers and what tells whether one was changed."""
        del study_id
        try:
            stats = [file.path.stat() for file in self._files]
        except OSError:
            raise Retryable(Reason.CHANGED_MEANWHILE) from None
        version = hashlib.sha256(repr([(s.st_size, s.st_mtime_ns) for s in stats]).encode())
        return Snapshot(
            tuple(str(i) for i in range(len(self._files))),
            version.hexdigest(),
            size=sum(s.st_size for s in stats),
        )

    def fetch(self, instance_id: str) -> bytes:
        """Give the file's bytes."""
        try:
            return self._files[int(instance_id)].path.read_bytes()
        except OSError:
            raise Retryable(Reason.CHANGED_MEANWHILE) from None


class _LastReport:
    """A Reporter that lets everything proceed and keeps the last report."""

    def __init__(self) -> None:
        self.report_: StudyReport | None = None
        self.pictures: tuple[bytes, ...] = ()

    def report(self, report: StudyReport) -> Claim:
        """Keep the report."""
        self.report_ = report
        return _ONE_ATTEMPT

    def show(self, pictures: TextPictures) -> Claim:
        """Keep the pictures."""
        self.pictures = pictures.pictures
        return Claim(proceed=True)

    def show_whole(self, image: ImageInDoubt) -> Claim:
        """Keep nothing: the original lies beside what is kept."""
        del image
        return Claim(proceed=True)

    def show_image(self, pictures: ImagePictures) -> Claim:
        """Keep none."""
        del pictures
        return Claim(proceed=False)

    def patients(self, asked: PatientsAsked, study_uid: str) -> PatientsTold:
        """Tell of one: the files were put together by their own identifiers."""
        del asked, study_uid
        return PatientsTold(proceed=True, patients=1)

    def announce(self, announcement: WorkerAnnouncement) -> None:
        """Nobody asks."""


def anonymize_study(study: FileStudy, places: Places, tools: Tools) -> StudyResult:
    """Bring one study to the destination or to quarantine, whole.

    Raises Failed when neither can be written to, or when an earlier export cannot be read.
    """
    reporter = _LastReport()
    staging = places.staging / study.name
    staging.mkdir(mode=0o700)
    try:
        process_study(
            _message(study),
            _Files(study),
            Destinations.only(FolderExport(staging)),
            reporter,
            tools,
            max_instances=len(study.files),
        )
        last = reporter.report_
        if last is None or last.state not in REPORTABLE - {State.PROCESSING, State.QUEUED}:
            raise Failed("A study came to no end; nothing of it has left.")
        exported: tuple[str, ...] = ()
        if last.state is State.EXPORTED:
            exported = _release(staging, places.destination)
            # An earlier run may have thought otherwise of this study.
            shutil.rmtree(places.quarantine / study.name, ignore_errors=True)
        else:
            _withdraw(study, places, tools)
            _quarantine(study, last, reporter.pictures, places.quarantine)
    except OSError as error:
        raise Failed(f"The result cannot be written ({error.strerror}).") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return StudyResult(
        study=study.name,
        state=last.state,
        files=len(study.files),
        reason=last.reason,
        exported_as=exported,
        durations=last.durations,
        measures=last.measures,
    )


def _rounded(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: round(figure, _DECIMALS) for name, figure in figures.items()}


def _message(study: FileStudy) -> StudyMessage:
    """Name the study as a gateway's plugin would; both ids are opaque."""
    digits = (study.name + study.name)[:40]
    grouped = "-".join(digits[start : start + 8] for start in range(0, 40, 8))
    return StudyMessage(job_id=study.name, study_id=grouped, revision=1)


def _release(staging: Path, destination: Path) -> tuple[str, ...]:
    """Move finished study folders to the destination; give their names.

    A new study appears in one step. Into one that is there already (an earlier run, or another
    part of the same study) each file is moved in one step.
    """
    names = []
    for study in sorted(staging.iterdir()):
        names.append(study.name)
        target = destination / study.name
        if not target.exists():
            study.replace(target)
            continue
        for file in sorted(study.rglob("*.dcm")):
            place = target / file.relative_to(study)
            place.parent.mkdir(exist_ok=True)
            file.replace(place)
    return tuple(names)


def _withdraw(study: FileStudy, places: Places, tools: Tools) -> None:
    """Remove what an earlier run exported of this study: it leaves whole or not at all.

    Where a profile keeps UIDs, the folder of that name may hold somebody's own files. Whatever is
    no image that this software made stays.
    """
    for uid in {file.study_uid for file in study.files if file.study_uid}:
        exported = places.destination / tools.study_uid(uid)
        if not exported.is_dir():
            continue
        try:
            ours = FolderExport(places.destination).images(exported.name)
        except Retryable:
            raise Failed(
                "An earlier export of a study cannot be read, and so not be removed."
            ) from None
        if ours == {path for path in exported.rglob("*") if path.is_symlink() or not path.is_dir()}:
            # Gone in one step, so that nobody reads half of it.
            withdrawn = places.staging / f"{study.name}-withdrawn"
            exported.replace(withdrawn)
            shutil.rmtree(withdrawn)
            continue
        for path in ours:
            path.unlink()
        for series in {path.parent for path in ours}:
            with suppress(OSError):  # not empty
                series.rmdir()


def _quarantine(
    study: FileStudy, report: StudyReport, pictures: Sequence[bytes], quarantine: Path
) -> None:
    """Copy the originals to a folder for this user alone, with reason and pictures beside them."""
    quarantine.mkdir(mode=0o700, parents=True, exist_ok=True)
    quarantine.chmod(0o700)
    folder = quarantine / study.name
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier run
    folder.mkdir(mode=0o700)
    missing = 0
    for number, file in enumerate(study.files, start=1):
        try:
            content = file.path.read_bytes()
        except OSError:  # one bad file must not end the run over all the others
            missing += 1
            continue
        _put(folder / f"{number:04d}.dcm", content)
    for number, picture in enumerate(pictures, start=1):
        _put(folder / f"text-{number}.png", picture)
    reason = report.reason
    entry = {
        "study": study.name,
        "state": report.state.value,
        "reason": None if reason is None else reason.value,
        "reason_sentence": None if reason is None else reason.sentence,
        "not_copied_because_unreadable": missing,
    }
    write_privately(folder / "reason.json", json.dumps(entry, indent=2) + "\n")


def _put(path: Path, content: bytes) -> None:
    """Write a new file that only this user can read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as target:
        target.write(content)


def exit_code(results: Sequence[StudyResult], unreadable: int = 0) -> int:
    """Give 0 when all studies were exported, 1 when one failed, 3 when one is in quarantine.

    It is 1, too, when files of the source could not be read: a study may lack them.
    """
    states = {result.state for result in results}
    if State.FAILED in states or unreadable:
        return 1
    return 3 if State.QUARANTINED in states else 0
