"""Which files are DICOM objects, and of which study."""

from __future__ import annotations

import io
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
)

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


def _deflated(zeros: int = 0) -> bytes:
    """Give a radiograph in the deflated syntax, with so many zero bytes behind it."""
    dataset = radiograph_dataset()
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    content = buffer.getvalue()
    end_of_meta = 144 + int.from_bytes(content[140:144], "little")
    inflated = zlib.decompress(content[end_of_meta:], -zlib.MAX_WBITS)
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = deflater.compress(inflated)
    chunk = bytes(1 << 20)
    for _ in range(zeros >> 20):
        packed += deflater.compress(chunk)
    return content[:end_of_meta] + packed + deflater.flush()


def test_a_deflated_file_is_found_with_its_study(tmp_path: Path) -> None:
    path = tmp_path / "deflated"
    path.write_bytes(_deflated())
    (file,) = find_dicom_files(path).files
    assert file.study_uid == CANARIES["StudyInstanceUID"]
    assert file.sop_class == radiograph_dataset().SOPClassUID
    assert file.transfer_syntax == DeflatedExplicitVRLittleEndian


def test_a_deflated_file_is_not_inflated_to_be_recognised(tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(_deflated(zeros=64 << 20))
    tracemalloc.start()
    try:
        (file,) = find_dicom_files(path).files
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert file.study_uid == CANARIES["StudyInstanceUID"]
    assert most < 16 << 20


def test_a_file_that_cannot_be_read_is_counted_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.dcm", "b.dcm", "c.dcm"):
        (tmp_path / name).write_bytes(write(radiograph_dataset()))
    really_open = Path.open

    def refuse(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == "b.dcm":
            raise PermissionError(13, "Permission denied")
        return really_open(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    found = find_dicom_files(tmp_path)
    assert [file.path.name for file in found.files] == ["a.dcm", "c.dcm"]
    assert (found.unreadable, found.not_dicom) == (1, 0)
    assert "1 files" in found.unread_sentence()
