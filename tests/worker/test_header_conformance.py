"""A result is as valid as its source: dciodvfy finds no kind of error that is not there, too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from prichexy_testing import shared_data
from prichexy_testing.dicoms import write
from prichexy_testing.headers import (
    cr,
    deidentified,
    dx,
    error_kinds,
    secondary_capture,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


def result_file(source: Dataset, path: Path) -> Path:
    """Write the result with pixels of the right length: dciodvfy judges those, too."""
    result = deidentified(source)
    bits = result.BitsAllocated
    length = result.Rows * result.Columns * bits // 8
    pixels = bytes(length + length % 2)
    result.add(DataElement(0x7FE00010, "OB" if bits == 8 else "OW", pixels))
    path.write_bytes(write(result))
    return path


@pytest.mark.parametrize("build", [cr, dx, secondary_capture])
def test_a_valid_object_stays_valid(build: Callable[..., Dataset], tmp_path: Path) -> None:
    source = tmp_path / "source.dcm"
    source.write_bytes(write(build(private=True)))
    assert error_kinds(source) == set(), "the object that the test builds"
    assert error_kinds(result_file(build(), tmp_path / "result.dcm")) == set()


def test_the_judge_finds_what_is_wrong(tmp_path: Path) -> None:
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(write(cr(StudyID=None)))
    assert any("StudyID" in error for error in error_kinds(broken))


def test_a_processing_object_and_references_and_tables_stay_valid(tmp_path: Path) -> None:
    reference = Dataset()
    reference.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1.1"
    reference.ReferencedSOPInstanceUID = "1.2.3.99"
    processing = dx(
        sop_class="1.2.840.10008.5.1.4.1.1.1.1.1",
        PresentationIntentType="FOR PROCESSING",
        window=None,
        SourceImageSequence=[reference],
        PixelSpacing=[0.14, 0.14],
        PixelSpacingCalibrationType="GEOMETRY",
        PixelSpacingCalibrationDescription="CANARY",
    )
    source = tmp_path / "source.dcm"
    source.write_bytes(write(processing))
    new = error_kinds(result_file(processing, tmp_path / "result.dcm")) - error_kinds(source)
    assert new == set()


def test_an_unstated_lossy_history_is_told_validly(tmp_path: Path) -> None:
    source = dx(LossyImageCompression=None)
    source.file_meta.TransferSyntaxUID = JPEG2000
    assert error_kinds(result_file(source, tmp_path / "result.dcm")) == set()


def real_files() -> list[Path]:
    return [*shared_data.chest_files(), *sorted(shared_data.NOT_CHEST.glob("*.dcm"))]


@pytest.mark.parametrize("path", real_files() or [shared_data.CHEST], ids=lambda path: path.name)
def test_a_real_object_gets_no_new_kind_of_error(path: Path, tmp_path: Path) -> None:
    source = dcmread(shared_data.need(path), force=True)
    if "Rows" not in source:
        pytest.skip("has no pixels")
    result = result_file(source, tmp_path / "result.dcm")
    judged = path
    if source.file_meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        judged = tmp_path / "inflated.dcm"  # dciodvfy does not inflate
        source.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        source.save_as(judged)
    assert error_kinds(result) - error_kinds(judged) == set()
