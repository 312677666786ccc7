"""A folder of DICOM files as export target."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError

from prichexy_worker import header
from prichexy_worker.export.study_folders import StudyFolders
from prichexy_worker.ports import Anonymized, InstanceName
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

    def withdraw(self, instance: InstanceName) -> None:
        """Remove the file, and the folders that it leaves empty."""
        for files in (self._files, self._staged):
            files.remove(instance)

    def withdraw_study(self, study_uid: str, sent: Sent) -> bool:
        """Remove the study's folder, in one step, and the hidden one.

        From one with images like ours that are not in ``sent``, only those that are.
        """
        both = self._files, self._staged
        held = {path: image for files in both for path, image in _held(files, study_uid).items()}
        mine = sent.among(held.values())
        strange = [image for image in held.values() if image not in mine]
        if strange:
            for files in both:
                files.remove_from(study_uid, lambda path: held.get(path) in mine)
            return not any(map(sent.may_concern, strange))
        for files in both:
            files.remove_study(study_uid)
        return True

    def withdraw_others(self, kept: Sequence[Anonymized], sent: Sent) -> None:
        """Put the files in their places, and remove the study's other images of ours.

        With them goes what killed workers left half written.
        """
        _keep(self._staged, kept, sent)
        self._staged.release(kept, self._files)
        _keep(self._files, kept, sent)

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


def _keep(files: StudyFolders, kept: Sequence[Anonymized], sent: Sent) -> None:
    """Remove the other images of ours of the study and patient."""
    paths = {files.path(instance) for instance in kept}
    held = _held(files, kept[0].study_uid)
    mine = {image for image in sent.among(held.values()) if image[0] == kept[0].patient_id}
    files.remove_from(kept[0].study_uid, lambda path: path not in paths and held.get(path) in mine)


def _held(files: StudyFolders, study_uid: str) -> Mapping[Path, Image]:
    """Give the images of the study that this gateway, or one like it, made."""
    found = {path: _patient_of(path) for path in files.files(study_uid)}
    return {
        path: Image(patient, study_uid, path.stem)
        for path, patient in found.items()
        if patient is not None
    }


def _patient_of(path: Path) -> str | None:
    """Give the PatientID of an image that this gateway, or one like it, made; None of any other."""
    wanted = ["SOPClassUID", "PatientID", "DeidentificationMethod"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # their texts hold values
        try:
            found = pydicom.dcmread(path, specific_tags=wanted, stop_before_pixels=True)
            method = found.get("DeidentificationMethod") or ""
            methods = [method] if isinstance(method, str) else [str(text) for text in method]
            ours = header.is_ours(str(found.get("SOPClassUID", "")), methods)
            return str(found.get("PatientID", "")) if ours else None
        except (InvalidDicomError, ValueError, TypeError, KeyError, EOFError, AttributeError):
            return None
