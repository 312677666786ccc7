"""A folder of DICOM files as export target."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pydicom
from pydicom.errors import InvalidDicomError

from prichexy_worker import header
from prichexy_worker.export.study_folders import Ours, StudyFolders, os_errors
from prichexy_worker.ports import Anonymized, Check, InstanceName, unhindered
from prichexy_worker.readback import read_back
from prichexy_worker.sent import Image, Sent

__all__ = ["FolderExport"]


class FolderExport:
    """An ExportTarget that writes files: ``<study>/<series>/<instance>.dcm``, by the new UIDs.

    They are written beside, hidden, and put in their places when every target holds the study: a
    worker that is killed before leaves nothing that readers take for a study.
    """

    recalls = True
    proves = True

    def __init__(self, folder: Path, marker: str | None = None) -> None:
        self._files = StudyFolders(folder, ".dcm", marker)
        self._staged = self._files.hidden()

    def check(self) -> None:
        """Return when the folder exists and may be written to."""
        self._files.check()

    def store(self, instance: Anonymized) -> None:
        """Write the file, hidden."""
        self._staged.write(instance, instance.content)

    def holds(self, instance: InstanceName) -> bool:
        """Look for the file in its place."""
        return self._files.holds(instance)

    def differences(self, kept: Sequence[Anonymized]) -> Iterator[tuple[str, ...]]:
        """Read each file back, whole, where it lies by now."""
        return read_back(_Either(self._staged, self._files), kept)

    def fetch(self, instance: InstanceName) -> bytes | None:
        """Give the bytes of the file in its place."""
        return self._files.read(instance)

    def images(self, study_uid: str) -> frozenset[Path]:
        """Give the files in their places of the images that this gateway, or one like it, made."""
        held, _damaged = _held(self._files, study_uid)
        return frozenset(path for path, one in held.items() if one.like_ours)

    def withdraw(self, instance: InstanceName) -> None:
        """Remove the file, and the folders that it leaves empty."""
        for files in (self._files, self._staged):
            files.remove(instance)

    def withdraw_study(self, study_uid: str, sent: Sent, may_go_on: Check = unhindered) -> bool:
        """Remove the files of ``sent``, also the hidden ones.

        A folder goes in one step, where it holds no others. What is there under the name of one and
        is no DICOM object is one that was damaged.
        """
        left = []
        for files in (self._files, self._staged):
            held, damaged = _held(files, study_uid)
            mine = sent.among([one.image for one in held.values()])
            gone = {path for path, one in held.items() if one.image in mine}
            gone |= {path for path in damaged if sent.names(path.stem)}
            files.remove_study(study_uid, Ours(gone.__contains__, sent.names), may_go_on)
            left += [one for path, one in held.items() if path not in gone]
        return not any(
            sent.left(one.image, lambda one=one: one.like_ours)  # type: ignore[misc]
            for one in left
        )

    def withdraw_others(
        self, kept: Sequence[Anonymized], sent: Sent, may_go_on: Check = unhindered
    ) -> None:
        """Put the files in their places, and remove the study's other images of ours.

        With them goes what killed workers left half written.
        """
        _keep(self._staged, kept, sent, may_go_on)
        may_go_on()
        self._staged.release(kept, self._files)
        _keep(self._files, kept, sent, may_go_on)

    def close(self) -> None:
        """Nothing is kept open."""


class _Either:
    """The files that were brought: hidden, or put in their places meanwhile."""

    def __init__(self, *places: StudyFolders) -> None:
        self._places = places

    def fetch(self, instance: InstanceName) -> bytes | None:
        """Give a file's bytes."""
        found = (files.read(instance) for files in self._places)
        return next((content for content in found if content is not None), None)


class _Held(NamedTuple):
    """An object of a study, and whether it is an image that this gateway, or one like it, made."""

    image: Image
    like_ours: bool


def _keep(files: StudyFolders, kept: Sequence[Anonymized], sent: Sent, may_go_on: Check) -> None:
    """Remove the other images of ours of the study and patient."""
    paths = {files.path(instance) for instance in kept}
    held, _damaged = _held(files, kept[0].study_uid)
    mine = sent.among([one.image for one in held.values()])
    gone = {
        path
        for path, one in held.items()
        if one.like_ours and one.image in mine and one.image.patient_id == kept[0].patient_id
    }
    ours = Ours((gone - paths).__contains__, sent.names)
    files.remove_from(kept[0].study_uid, ours, may_go_on)


def _held(files: StudyFolders, study_uid: str) -> tuple[Mapping[Path, _Held], frozenset[Path]]:
    """Give the study's objects by their files, and the files that are no DICOM objects."""
    found = {path: _read(path, study_uid) for path in files.files(study_uid)}
    held = {path: one for path, one in found.items() if one is not None}
    return held, frozenset(found.keys() - held.keys())


def _read(path: Path, study_uid: str) -> _Held | None:
    """Give what a file holds; None of one that is no DICOM object, and of one that went meanwhile.

    Raises Retryable where it cannot be told: what could not be read is neither ours nor another's.
    """
    wanted = ["SOPClassUID", "PatientID", "DeidentificationMethod"]
    with os_errors(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # their texts hold values
        try:
            found = pydicom.dcmread(path, specific_tags=wanted, stop_before_pixels=True)
            method = found.get("DeidentificationMethod") or ""
            methods = [method] if isinstance(method, str) else [str(text) for text in method]
            ours = header.is_ours(str(found.get("SOPClassUID", "")), methods)
            return _Held(Image(str(found.get("PatientID", "")), study_uid, path.stem), ours)
        except FileNotFoundError:
            return None
        except (InvalidDicomError, ValueError, TypeError, KeyError, EOFError, AttributeError):
            return None
