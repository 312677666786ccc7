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

    def withdraw_study(self, study_uid: str, sent: Sent, may_go_on: Check = unhindered) -> bool:
        """Remove the files of ``sent``; the study's folder in one step, where it holds no others.

        What is there under the name of one and is no DICOM object is one that was damaged.
        """
        held, damaged = self._held(study_uid)
        mine = sent.among([one.image for one in held.values()])
        gone = {path for path, one in held.items() if one.image in mine}
        gone |= {path for path in damaged if sent.names(path.stem)}
        self._files.remove_study(study_uid, Ours(gone.__contains__, sent.names), may_go_on)
        return not any(
            sent.left(one.image, lambda one=one: one.like_ours)  # type: ignore[misc]
            for path, one in held.items()
            if path not in gone
        )

    def withdraw_others(
        self, kept: Sequence[Anonymized], sent: Sent, may_go_on: Check = unhindered
    ) -> None:
        """Remove the study's other images of ours, and what killed workers left half written."""
        paths = {self._files.path(instance) for instance in kept}
        held, _damaged = self._held(kept[0].study_uid)
        mine = sent.among([one.image for one in held.values()])
        gone = {
            path
            for path, one in held.items()
            if one.like_ours and one.image in mine and one.image.patient_id == kept[0].patient_id
        }
        ours = Ours((gone - paths).__contains__, sent.names)
        self._files.remove_from(kept[0].study_uid, ours, may_go_on)

    def _held(self, study_uid: str) -> tuple[Mapping[Path, _Held], frozenset[Path]]:
        """Give the study's objects by their files, and the files that are no DICOM objects."""
        found = {path: _read(path, study_uid) for path in self._files.files(study_uid)}
        held = {path: one for path, one in found.items() if one is not None}
        return held, frozenset(found.keys() - held.keys())

    def close(self) -> None:
        """Nothing is kept open."""


class _Held(NamedTuple):
    """An object of a study, and whether it is an image that this gateway, or one like it, made."""

    image: Image
    like_ours: bool


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
