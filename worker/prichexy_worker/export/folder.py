"""A folder of DICOM files as export target."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError

from prichexy_worker import header
from prichexy_worker.export.study_folders import StudyFolders, os_errors
from prichexy_worker.ports import Anonymized, InstanceName
from prichexy_worker.readback import read_back
from prichexy_worker.sent import Image, Sent

__all__ = ["FolderExport"]


class FolderExport:
    """An ExportTarget that writes files: ``<study>/<series>/<instance>.dcm``, by the new UIDs."""

    recalls = True
    proves = True

    def __init__(self, folder: Path, marker: str | None = None) -> None:
        self._files = StudyFolders(folder, ".dcm", marker)

    def check(self) -> None:
        """Return when the folder exists and may be written to."""
        self._files.check()

    def store(self, instance: Anonymized) -> None:
        """Write the file."""
        self._files.write(instance, instance.content)

    def holds(self, instance: InstanceName) -> bool:
        """Look for the file."""
        return self._files.holds(instance)

    def differences(self, kept: Sequence[Anonymized]) -> Iterator[tuple[str, ...]]:
        """Read each file back, whole."""
        return read_back(self, kept)

    def fetch(self, instance: InstanceName) -> bytes | None:
        """Give the file's bytes."""
        return self._files.read(instance)

    def withdraw(self, instance: InstanceName) -> None:
        """Remove the file, and the folders that it leaves empty."""
        self._files.remove(instance)

    def withdraw_study(self, study_uid: str, sent: Sent) -> bool:
        """Remove the study's folder, in one step.

        From one with images like ours that are not in ``sent``, only those that are.
        """
        held = self._held(study_uid)
        mine = sent.among(held.values())
        strange = [image for image in held.values() if image not in mine]
        if strange:
            self._files.remove_from(study_uid, lambda path: held.get(path) in mine)
            return not any(map(sent.may_concern, strange))
        self._files.remove_study(study_uid)
        return True

    def withdraw_others(self, kept: Sequence[Anonymized], sent: Sent) -> None:
        """Remove the study's other images of ours, and what killed workers left half written."""
        paths = {self._files.path(instance) for instance in kept}
        held = self._held(kept[0].study_uid)
        mine = {image for image in sent.among(held.values()) if image[0] == kept[0].patient_id}
        self._files.remove_from(
            kept[0].study_uid, lambda path: path not in paths and held.get(path) in mine
        )

    def _held(self, study_uid: str) -> Mapping[Path, Image]:
        """Give the images of the study that this gateway, or one like it, made."""
        found = {path: _patient_of(path) for path in self._files.files(study_uid)}
        return {
            path: Image(patient, study_uid, path.stem)
            for path, patient in found.items()
            if patient is not None
        }

    def close(self) -> None:
        """Nothing is kept open."""


def _patient_of(path: Path) -> str | None:
    """Give the PatientID of an image that this gateway, or one like it, made.

    None of any other file, and of one that went meanwhile. Raises Retryable where it cannot be
    told: what could not be read is neither ours nor another's.
    """
    wanted = ["SOPClassUID", "PatientID", "DeidentificationMethod"]
    with os_errors(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # their texts hold values
        try:
            found = pydicom.dcmread(path, specific_tags=wanted, stop_before_pixels=True)
            method = found.get("DeidentificationMethod") or ""
            methods = [method] if isinstance(method, str) else [str(text) for text in method]
            ours = header.is_ours(str(found.get("SOPClassUID", "")), methods)
            return str(found.get("PatientID", "")) if ours else None
        except FileNotFoundError:
            return None
        except (InvalidDicomError, ValueError, TypeError, KeyError, EOFError, AttributeError):
            return None
