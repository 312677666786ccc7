"""Which files are DICOM objects, and of which study."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian, MediaStorageDirectoryStorage

from prichexy_gateway.dicom_files import find_dicom_files
from prichexy_gateway.errors import Failed
from prichexy_testing.dicoms import CANARIES, canary_values, radiograph_dataset, write


def test_files_are_found_at_any_depth_whatever_their_names(tmp_path: Path) -> None:
    content = write(radiograph_dataset())
    for name in ("a.dcm", "deep/er/IM0001", "deep/image.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "notes.txt").write_text("no DICOM")
    (tmp_path / "empty").touch()

    found = find_dicom_files(tmp_path)

    names = [str(file.path.relative_to(tmp_path)) for file in found.files]
    assert names == ["a.dcm", "deep/image.jpg", "deep/er/IM0001"]
    assert found.not_dicom == 2
    assert {file.study_uid for file in found.files} == {CANARIES["StudyInstanceUID"]}


def test_a_file_without_preamble_is_found(tmp_path: Path) -> None:
    # Without preamble, prefix and file meta, as old archives keep them.
    dataset = Dataset(radiograph_dataset())
    path = tmp_path / "old"
    dataset.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert b"DICM" not in path.read_bytes()
    (file,) = find_dicom_files(path).files
    assert file.transfer_syntax == ImplicitVRLittleEndian
    assert file.study_uid == CANARIES["StudyInstanceUID"]


def test_a_damaged_dicom_file_is_kept_for_the_pipeline_to_judge(tmp_path: Path) -> None:
    (tmp_path / "damaged").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 64)
    found = find_dicom_files(tmp_path)
    assert len(found.files) == 1
    assert found.files[0].study_uid == ""


def test_a_directory_file_is_no_image(tmp_path: Path) -> None:
    dataset = radiograph_dataset()
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    (tmp_path / "DICOMDIR").write_bytes(write(dataset))
    found = find_dicom_files(tmp_path)
    assert (found.files, found.directories) == ((), 1)


def test_a_source_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="does not exist"):
        find_dicom_files(tmp_path / "CANARYFAMILY")


def test_what_identifies_is_not_in_a_repr(tmp_path: Path) -> None:
    path = tmp_path / "CANARYFAMILY.dcm"
    path.write_bytes(write(radiograph_dataset()))
    text = repr(find_dicom_files(tmp_path))
    assert not [value for value in canary_values() if value in text]
