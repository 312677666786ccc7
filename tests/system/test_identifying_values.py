"""What the system tests look for, and that chance figures are not taken for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

from prichexy_testing.system_data import identifying_values, occurrences


@pytest.fixture
def radiograph(tmp_path) -> Path:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = ComputedRadiographyImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.PatientName = "Ngubane^Thandiwe"
    dataset.PatientBirthDate = "19810324"
    dataset.PlateID = "0.1000"
    path = tmp_path / "radiograph.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_names_and_dates_identify_and_a_short_number_does_not(radiograph):
    values = identifying_values(radiograph)
    assert {"Ngubane^Thandiwe", "Thandiwe", "19810324"} <= values
    assert "0.1000" not in values


@pytest.mark.parametrize(
    "content",
    [
        b"born 19810324.",
        b'{"date": "19810324"}',
        b"id19810324",
        "19810324".encode("utf-16-le"),
        b"patient_19810324",
    ],
)
def test_a_date_is_found_where_it_stands_by_itself(content):
    assert occurrences({"19810324"}, content) == {"19810324"}


@pytest.mark.parametrize(
    "content", [b"0.19810324771", b"auc 119810324", b"sha256:7e19810324bc", b"2.25.19810324.1"]
)
def test_within_a_longer_number_or_a_digest_it_is_chance(content):
    assert occurrences({"19810324"}, content) == set()


def test_a_text_is_found_wherever_it_stands():
    assert occurrences({"Thandiwe"}, b"xxTHANDIWExx") == {"Thandiwe"}
