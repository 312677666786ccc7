"""The header that leaves: what is in it, what is not, and what it says of itself."""

from __future__ import annotations

import logging
import re
import struct
import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from prichexy_testing.dicoms import code, lut
from prichexy_testing.headers import (
    KEY,
    MODEL,
    PROVENANCE,
    cr,
    deidentified,
    dx,
    reread,
    secondary_capture,
    serialised,
)
from prichexy_worker.contract import Reason
from prichexy_worker.errors import Rejected
from prichexy_worker.header import Profile, deidentify
from prichexy_worker.header import sweep as sweeping
from prichexy_worker.header.allowlist import Pattern, Rule, allow_lists
from prichexy_worker.pseudonyms import Pseudonyms

KINDS = [cr, dx, secondary_capture]
TYPE_2 = [
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyID",
    "PatientBirthDate",
    "PatientSex",
]


@pytest.mark.parametrize("build", KINDS)
def test_type_2_identity_is_there_and_empty(build: Callable[..., Dataset]) -> None:
    for source in (build(), build(**dict.fromkeys(TYPE_2))):
        result = deidentified(source)
        for keyword in TYPE_2:
            assert keyword in result
            assert result[keyword].is_empty, keyword


def test_type_2_of_each_object_is_there_where_the_source_lacks_it() -> None:
    result = deidentified(cr(BodyPartExamined=None, ViewPosition=None, Manufacturer=None))
    assert result["BodyPartExamined"].is_empty
    assert result["ViewPosition"].is_empty
    assert result["Manufacturer"].is_empty
    digital = deidentified(dx(AcquisitionContextSequence=None, DetectorType=None))
    assert list(digital.AcquisitionContextSequence) == []
    assert digital["DetectorType"].is_empty


def test_an_acquisition_context_is_emptied() -> None:
    assert (
        list(deidentified(dx(AcquisitionContextSequence=[code("1", "2", "3")]))[0x00400555]) == []
    )


def test_what_a_researcher_needs_is_kept() -> None:
    result = deidentified(dx(window=(2048, 4096), padding=(0, 10), ExposureIndex="319"))
    assert (result.Rows, result.Columns, result.BitsStored) == (96, 80, 12)
    assert result.PhotometricInterpretation == "MONOCHROME2"
    assert (result.WindowCenter, result.WindowWidth) == (2048, 4096)
    assert (result.RescaleSlope, result.RescaleIntercept, result.RescaleType) == (1, 0, "US")
    assert (result.PixelPaddingValue, result.PixelPaddingRangeLimit) == (0, 10)
    assert list(result.ImagerPixelSpacing) == [0.143, 0.143]
    assert (result.BodyPartExamined, result.ViewPosition) == ("CHEST", "PA")
    assert (result.KVP, result.ExposureTime, result.ExposureIndex) == (125, 8, 319)
    assert list(result.PatientOrientation) == ["L", "F"]
    assert result.PresentationIntentType == "FOR PRESENTATION"
    assert result.AnatomicRegionSequence[0].CodeMeaning == "Chest"
    assert result.ViewCodeSequence[0].CodeValue == "272479007"
    assert (result.SeriesNumber, result.InstanceNumber) == (1, 1)


def test_pixel_data_is_not_copied() -> None:
    assert "PixelData" not in deidentified(cr())


def test_a_patient_has_one_pseudonym_in_all_objects() -> None:
    names = {(r.PatientID, r.PatientName) for r in map(deidentified, [cr(), dx(), reread(cr())])}
    assert len(names) == 1
    ((patient_id, name),) = names
    assert name == f"PRICHEXY^{patient_id}"
    assert deidentified(cr(PatientID="CANARY-OTHER")).PatientID != patient_id
    assert deidentified(cr(IssuerOfPatientID="CANARY-ELSE")).PatientID != patient_id


def test_patients_without_an_id_stay_apart_by_their_study() -> None:
    one = deidentified(cr(PatientID=None, StudyInstanceUID="1.2.3.1")).PatientID
    other = deidentified(cr(PatientID="", StudyInstanceUID="1.2.3.2")).PatientID
    assert one
    assert one != other
    assert one == deidentified(cr(PatientID=" ", StudyInstanceUID="1.2.3.1")).PatientID


def test_patient_ids_that_cannot_be_decoded_are_not_merged() -> None:
    def with_bytes(value: bytes) -> Dataset:
        dataset = cr()
        raw = RawDataElement(Tag(0x00100020), "LO", len(value), value, 0, False, True)
        dataset.__setitem__(Tag(0x00100020), raw)
        dataset.SpecificCharacterSet = "ISO_IR 192"
        return dataset

    assert (
        deidentified(with_bytes(b"\xff\xfe1")).PatientID
        != deidentified(with_bytes(b"\xfe\xff1")).PatientID
    )
    with pytest.raises(Rejected, match=r"\(0010,0020\) is not decodable") as caught:
        deidentified(cr(PatientID="CANARY\ufffd"))
    assert caught.value.reason is Reason.INCOMPLETE_HEADER


def test_an_id_reads_the_same_in_any_character_set() -> None:
    latin = cr(SpecificCharacterSet="ISO_IR 100", PatientID="Müller-7")
    unicode = cr(SpecificCharacterSet="ISO_IR 192", PatientID="Müller-7")
    assert deidentified(reread(latin)).PatientID == deidentified(reread(unicode)).PatientID
    assert deidentified(latin).PatientID == deidentified(reread(latin)).PatientID


def test_uids_are_replaced_consistently_and_references_with_them() -> None:
    predecessor = Dataset()
    predecessor.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    predecessor.ReferencedSOPInstanceUID = "1.2.3.99"
    predecessor.PurposeOfReferenceCodeSequence = [code("121320", "DCM", "CANARY")]
    source = cr(SourceImageSequence=[predecessor], FrameOfReferenceUID="1.2.3.5")
    first, second = deidentified(cr(SOPInstanceUID="1.2.3.99")), deidentified(source)
    assert second.SourceImageSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID
    meaning = second.SourceImageSequence[0].PurposeOfReferenceCodeSequence[0].CodeMeaning
    assert meaning == "Uncompressed predecessor"
    assert second.StudyInstanceUID == first.StudyInstanceUID
    assert second.SOPInstanceUID != first.SOPInstanceUID
    assert second.FrameOfReferenceUID == Pseudonyms(KEY).uid("1.2.3.5")
    assert second.SOPClassUID == source.SOPClassUID


def test_a_reference_without_its_uids_or_to_no_standard_class_is_dropped() -> None:
    private, lonely = Dataset(), Dataset()
    private.ReferencedSOPClassUID, private.ReferencedSOPInstanceUID = "1.2.3.4.5", "1.2.3.99"
    lonely.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    assert "SourceImageSequence" not in deidentified(cr(SourceImageSequence=[private, lonely]))


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_an_object_without_its_uids_is_rejected_by_tag(keyword: str) -> None:
    for value in (None, "", ["1.2.3", "1.2.4"]):
        with pytest.raises(Rejected) as caught:
            deidentified(cr(**{keyword: value}))
        assert caught.value.reason is Reason.INCOMPLETE_HEADER


def test_an_object_of_another_class_is_rejected() -> None:
    for sop_class in ("1.2.840.10008.5.1.4.1.1.2", "1.2.3", None):
        with pytest.raises(Rejected) as caught:
            deidentified(cr(SOPClassUID=sop_class))
        assert caught.value.reason is Reason.UNSUPPORTED_SOP_CLASS


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("BodyPartExamined", "CANARY"),
        ("ViewPosition", "PA OF CANARY"),
        ("PatientOrientation", ["CANARY", "F"]),
        ("PhotometricInterpretation", "CANARY"),
        ("PresentationLUTShape", "CANARY"),
        ("RescaleType", "CANARY"),
        ("WindowCenterWidthExplanation", "CANARY"),
        ("ManufacturerModelName", "CANARY"),
        ("SoftwareVersions", "CANARY"),
        ("FilterType", "CANARY"),
        ("DetectorDescription", "CANARY"),
        ("AcquisitionDeviceProcessingCode", "CANARY"),
        ("PerformedProcedureStepDescription", "CANARY"),
        ("ProcedureCodeSequence", [code("CANARY", "99CANARY", "CANARY")]),
        ("AnatomicRegionSequence", [code("51185008", "99CANARY", "CANARY")]),
        ("ViewCodeSequence", [code("272479007", "SCT", "CANARY")]),
        ("OriginalAttributesSequence", [code("CANARY", "99CANARY", "CANARY")]),
        ("ContributingEquipmentSequence", [code("CANARY", "99CANARY", "CANARY")]),
        ("IconImageSequence", [code("CANARY", "99CANARY", "CANARY")]),
        ("DeidentificationMethod", "CANARY"),
        ("DerivationDescription", "CANARY"),
        ("PixelSpacingCalibrationDescription", "CANARY"),
    ],
)
def test_text_in_an_attribute_of_the_picture_does_not_leave(keyword: str, value: object) -> None:
    for build in KINDS:
        assert b"CANARY" not in serialised(deidentified(build(**{keyword: value})))


def test_image_type_keeps_known_terms_in_their_places() -> None:
    source = dx(ImageType=["ORIGINAL", "PRIMARY", "CANARY", "RAD", "", "CANARY"])
    assert list(deidentified(source).ImageType) == ["DERIVED", "PRIMARY", "", "RAD"]
    assert list(deidentified(cr(ImageType=None)).ImageType) == ["DERIVED", "PRIMARY"]
    captured = deidentified(secondary_capture(ImageType="CANARY"))
    assert list(captured.ImageType) == ["DERIVED", "SECONDARY"]


def test_codes_keep_their_scheme_and_take_the_meaning_of_the_standard() -> None:
    source = dx(ViewCodeSequence=[code("R-10206", "SRT", "CANARY")])
    source.ViewCodeSequence[0].ViewModifierCodeSequence = [
        code("R-40554", "SNM3", "CANARY"),
        code("111069", "DCM", "CANARY"),
        code("CANARY", "DCM", "CANARY"),
    ]
    (view,) = deidentified(source).ViewCodeSequence
    assert (view.CodeValue, view.CodingSchemeDesignator) == ("R-10206", "SRT")
    assert view.CodeMeaning == "antero-posterior"
    assert [m.CodeMeaning for m in view.ViewModifierCodeSequence] == ["transorbital", "Crosstable"]


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("InstanceNumber", "19330417"),
        ("SeriesNumber", "330417"),
        ("KVP", "19330417"),
        ("WindowCenter", "19330417"),
        ("KVP", "1.9330417E7"),
        ("ExposureInuAs", "19330417"),
    ],
)
def test_a_date_in_a_number_does_not_leave(keyword: str, value: str) -> None:
    result = deidentified(cr(**{keyword: value}))
    assert keyword not in result or result[keyword].is_empty


def test_numbers_are_written_anew() -> None:
    source = reread(cr())
    for tag, vr, value in (
        (0x00180060, "DS", b"  +125.000 "),
        (0x00181164, "DS", b"0.14300000000000001\\0.143"),
        (0x00200013, "IS", b"0007"),
        (0x00181150, "IS", b"8 mAs"),
        (0x00181152, "IS", b"nan "),
    ):
        raw = RawDataElement(Tag(tag), vr, len(value), value, 0, False, True)
        source.__setitem__(Tag(tag), raw)
    result = deidentified(source)
    assert str(result.KVP) == "125"
    assert list(result.ImagerPixelSpacing) == pytest.approx([0.143, 0.143], rel=1e-12)
    assert max(len(str(value)) for value in result.ImagerPixelSpacing) <= 16
    assert str(result.InstanceNumber) == "7"
    assert "ExposureTime" not in result
    assert "Exposure" not in result


def test_a_value_that_leaves_the_pixels_meaning_open_is_left_out_not_guessed() -> None:
    result = deidentified(cr(RescaleType="CANARY", rescale=(2, -10)))
    assert result.RescaleType == "US"
    assert "RescaleType" not in deidentified(cr())


def test_half_a_window_is_no_window() -> None:
    result = deidentified(cr(WindowWidth="19330417"))
    assert "WindowCenter" not in result
    assert "WindowWidth" not in result
    two = deidentified(cr(WindowCenter=["1", "2"], WindowWidth="3"))
    assert "WindowCenter" not in two
    assert list(deidentified(cr(window=([1, 2], [3, 4]))).WindowWidth) == [3, 4]


@pytest.mark.parametrize("keyword", ["RescaleSlope", "RescaleIntercept"])
def test_a_rescale_that_may_not_be_kept_is_rejected(keyword: str) -> None:
    with pytest.raises(Rejected) as caught:
        deidentified(cr(**{keyword: "19330417"}))
    assert caught.value.reason is Reason.UNSUPPORTED_PIXELS


def test_a_number_of_another_vr_is_treated_as_absent() -> None:
    source = cr()
    for tag, vr, value in ((0x00280010, "LO", b"19"), (0x00280120, "OB", b"33")):
        raw = RawDataElement(Tag(tag), vr, len(value), value, 0, False, True)
        source.__setitem__(Tag(tag), raw)
    result = deidentified(source)
    assert "Rows" not in result
    assert "PixelPaddingValue" not in result


@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_lookup_tables_mean_the_same_in_every_encoding(syntax: str | None) -> None:
    values = np.linspace(0, 4095, 4096).astype(np.uint16)
    table = lut(values, first=0, bits=12)
    if syntax == ExplicitVRBigEndian:
        table[0x00283006].value = values.astype(">u2").tobytes()
    table.LUTExplanation = "CANARY"
    options = {} if syntax is None else {"transfer_syntax": syntax}
    result = deidentified(reread(cr(voi_lut=table, **options)))
    (kept,) = result.VOILUTSequence
    assert list(kept.LUTDescriptor) == [4096, 0, 12]
    assert kept.LUTData == values.astype("<u2").tobytes()
    assert "LUTExplanation" not in kept


def test_a_signed_lookup_table_keeps_its_first_value() -> None:
    table = lut(np.arange(100, dtype=np.uint16), first=-50, bits=8, signed=True)
    for syntax in ("1.2.840.10008.1.2.1", ImplicitVRLittleEndian):
        source = cr(voi_lut=table, signed=True, transfer_syntax=syntax)
        (kept,) = reread(deidentified(reread(source))).VOILUTSequence
        assert list(kept.LUTDescriptor) == [100, -50, 8]


def test_a_lookup_table_of_65536_entries_is_kept() -> None:
    table = lut(np.arange(65536, dtype=np.uint16), first=0, bits=16)
    (kept,) = reread(deidentified(reread(cr(voi_lut=table)))).VOILUTSequence
    assert len(kept.LUTData) == 131072
    assert list(kept.LUTDescriptor) == [0, 0, 16]


def _hidden_text() -> list[Dataset]:
    text = b"CANARYFAMILY^CANARYGIVEN"
    words = np.frombuffer(text, "<u2")
    longer = lut(np.arange(12, dtype=np.uint16), first=0, bits=8)
    longer[0x00283006].value += text
    wider = lut(np.sort(words), first=0, bits=8)
    return [lut(words, first=0, bits=16), longer, wider]


@pytest.mark.parametrize("table", _hidden_text())
def test_text_in_a_lookup_table_does_not_leave(table: Dataset) -> None:
    assert "VOILUTSequence" not in deidentified(cr(voi_lut=table))
    with pytest.raises(Rejected) as caught:
        deidentified(cr(modality_lut=table))
    assert caught.value.reason is Reason.UNSUPPORTED_PIXELS


def test_a_modality_table_that_was_encoded_as_unknown_is_rejected_not_lost() -> None:
    source = cr()
    raw = RawDataElement(Tag(0x00283000), "UN", 8, b"CANARY_7", 0, False, True)
    source.__setitem__(Tag(0x00283000), raw)
    with pytest.raises(Rejected, match=r"\(0028,3000\) may not be kept"):
        deidentified(source)
    assert deidentified(cr(ModalityLUTSequence=[])).PatientIdentityRemoved == "YES"


def test_a_modality_table_keeps_its_type() -> None:
    table = lut(np.arange(4096, dtype=np.uint16), first=0, bits=16)
    table.ModalityLUTType, table.LUTExplanation = "CANARY", "CANARY"
    assert deidentified(cr(modality_lut=table)).ModalityLUTSequence[0].ModalityLUTType == "US"
    table.ModalityLUTType = "OD"
    assert deidentified(cr(modality_lut=table)).ModalityLUTSequence[0].ModalityLUTType == "OD"


def test_signed_padding_keeps_its_sign_in_every_encoding() -> None:
    for syntax in ("1.2.840.10008.1.2.1", ImplicitVRLittleEndian, ExplicitVRBigEndian):
        source = cr(signed=True, padding=-2048, transfer_syntax=syntax)
        assert deidentified(reread(source)).PixelPaddingValue == -2048


@pytest.mark.parametrize("build", KINDS)
@pytest.mark.parametrize("word", ["NO", "YES", None])
def test_what_is_said_of_burned_in_text_follows_from_our_search_and_not_from_the_source(
    build: Callable[..., Dataset], word: str | None
) -> None:
    source = build(BurnedInAnnotation=word)
    assert deidentified(source).BurnedInAnnotation == "NO"


def test_the_basic_profile_and_clean_pixels_are_claimed_and_no_more() -> None:
    codes = {item.CodeValue for item in deidentified(cr()).DeidentificationMethodCodeSequence}
    assert codes == {"113100", "113101"}


@pytest.mark.parametrize(
    ("build", "keyword"),
    [
        (cr, "PixelSpacing"),
        (cr, "ImagerPixelSpacing"),
        (dx, "ImagerPixelSpacing"),
        (dx, "DetectorElementSpacing"),
        (secondary_capture, "NominalScannedPixelSpacing"),
    ],
)
def test_a_spacing_that_is_no_length_is_not_kept(
    build: Callable[..., Dataset], keyword: str
) -> None:
    for spacing in (["0", "0"], ["0.14", "0"], ["-0.14", "0.14"], ["1e-9", "0.14"], ["1e9", "1"]):
        assert keyword not in deidentified(build(**{keyword: spacing})), spacing
    assert list(deidentified(build(**{keyword: ["0.14", "0.2"]}))[keyword].value) == [0.14, 0.2]


def test_the_result_says_what_was_done_and_no_more() -> None:
    result = deidentified(dx())
    assert result.PatientIdentityRemoved == "YES"
    assert result.LongitudinalTemporalInformationModified == "REMOVED"
    done = result.DeidentificationMethodCodeSequence
    assert [item.CodeValue for item in done] == ["113100", "113101"]
    assert {item.CodingSchemeDesignator for item in done} == {"DCM"}
    assert all(len(text) <= 64 for text in result.DeidentificationMethod)
    assert any("Basic Profile" in text for text in result.DeidentificationMethod)
    assert "RecognizableVisualFeatures" not in result
    for told in (MODEL.digest, MODEL.name, MODEL.statement, PROVENANCE.key_id, "0.1.0"):
        assert told in result.DerivationDescription
    assert len(result.DerivationDescription) <= 1024


def test_our_equipment_is_the_only_one_named() -> None:
    earlier = Dataset()
    earlier.Manufacturer = "CANARY"
    earlier.PurposeOfReferenceCodeSequence = [code("109103", "DCM", "Modifying Equipment")]
    (item,) = deidentified(
        cr(ContributingEquipmentSequence=[earlier])
    ).ContributingEquipmentSequence
    assert item.PurposeOfReferenceCodeSequence[0].CodeValue == "109104"
    assert MODEL.digest in item.SoftwareVersions
    assert any("0.1.0" in version for version in item.SoftwareVersions)


def test_a_deformation_is_said_to_be_one_only_where_it_was_done() -> None:
    deformed = deidentified(cr())
    assert deformed.ImageType[0] == "DERIVED"
    assert deformed.DerivationCodeSequence[-1].CodingSchemeDesignator == "99PRICHEXY"
    same = deidentified(cr(), provenance=replace(PROVENANCE, deformed=False))
    assert list(same.ImageType) == ["ORIGINAL", "PRIMARY"]
    assert "DerivationCodeSequence" not in same
    assert "not deformed" in same.DerivationDescription
    assert MODEL.digest not in str(same)


def test_words_of_a_model_fit_their_value_representations() -> None:
    model = replace(MODEL, name="модель\\x" + "n" * 80, statement="s" * 400)
    result = deidentified(cr(), provenance=replace(PROVENANCE, model=model))
    assert result.SpecificCharacterSet == "ISO_IR 192"
    again = reread(result)
    (item,) = again.ContributingEquipmentSequence
    assert item.SoftwareVersions[1].startswith("модель/xn")
    assert max(len(version) for version in item.SoftwareVersions) <= 64
    assert "SpecificCharacterSet" not in deidentified(cr(SpecificCharacterSet="ISO_IR 100"))


def test_file_meta_and_preamble_are_written_anew() -> None:
    source = reread(cr())
    source.preamble = b"CANARY" + b"\0" * 122
    source.file_meta.SourceApplicationEntityTitle = "CANARY"
    source.file_meta.ImplementationVersionName = "CANARY"
    source.file_meta.PrivateInformationCreatorUID = "1.2.3"
    source.file_meta.PrivateInformation = b"CANARY"
    result = deidentified(source)
    assert b"CANARY" not in serialised(result)
    assert serialised(result)[:128] == bytes(128)
    assert {element.keyword for element in result.file_meta} == {
        "FileMetaInformationVersion",
        "MediaStorageSOPClassUID",
        "MediaStorageSOPInstanceUID",
        "TransferSyntaxUID",
        "ImplementationClassUID",
        "ImplementationVersionName",
    }
    assert result.file_meta.MediaStorageSOPInstanceUID == result.SOPInstanceUID
    assert result.file_meta.ImplementationVersionName == "PRICHEXY_0.1.0"


def test_a_dataset_without_file_meta_and_preamble_is_taken() -> None:
    source = cr()
    source.file_meta, source.preamble = FileMetaDataset(), None
    assert deidentified(source).PatientIdentityRemoved == "YES"
    del source.file_meta
    assert deidentified(source).PatientIdentityRemoved == "YES"


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"LossyImageCompressionMethod": "ISO_10918_1"}, "01"),
        ({"LossyImageCompressionRatio": "12.5"}, "01"),
        ({"LossyImageCompressionRatio": ["1", "12.5"]}, "01"),
        ({"LossyImageCompressionRatio": "1"}, None),
        ({"LossyImageCompressionRatio": "12.5", "LossyImageCompression": "00"}, "00"),
    ],
)
def test_a_source_that_names_a_method_or_a_ratio_was_lossy_unless_it_denies_it(
    attributes: dict[str, object], expected: str | None
) -> None:
    result = deidentified(cr(**attributes))
    assert result.get("LossyImageCompression") == expected


@pytest.mark.parametrize(
    ("syntax", "stated", "expected"),
    [
        ("1.2.840.10008.1.2.1", None, None),
        ("1.2.840.10008.1.2.1", "00", "00"),
        ("1.2.840.10008.1.2.1", "01", "01"),
        ("1.2.840.10008.1.2.4.50", "00", "01"),
        ("1.2.840.10008.1.2.4.51", None, "01"),
        ("1.2.840.10008.1.2.4.91", None, "01"),
        ("1.2.840.10008.1.2.4.91", "00", "00"),
        ("1.2.840.10008.1.2.4.70", None, None),
    ],
)
def test_once_lossy_always_lossy(syntax: str, stated: str | None, expected: str | None) -> None:
    source = cr(LossyImageCompression=stated)
    source.file_meta.TransferSyntaxUID = syntax
    source[0x7FE00010].value = b"\0" * 1536
    result = deidentified(source)
    assert result.get("LossyImageCompression") == expected
    if expected == "01" and syntax != "1.2.840.10008.1.2.1":
        assert result.LossyImageCompressionMethod.startswith("ISO_")
        assert result.LossyImageCompressionRatio == 10
    told = deidentified(cr(LossyImageCompression="01", LossyImageCompressionRatio="35"))
    assert told.LossyImageCompressionRatio == 35


def test_a_sequence_encoded_as_unknown_is_not_kept() -> None:
    source = dx()
    hidden = struct.pack("<HHI", 0xFFFE, 0xE000, 14) + struct.pack("<HHI", 8, 0x0104, 6) + b"CANARY"
    raw = RawDataElement(Tag(0x00082218), "UN", len(hidden), hidden, 0, False, True)
    source.__setitem__(Tag(0x00082218), raw)
    result = deidentified(source)
    assert list(result.AnatomicRegionSequence) == []
    assert b"CANARY" not in serialised(result)


def test_an_identifier_encoded_as_unknown_still_names_its_patient() -> None:
    source = reread(cr())
    value = source.get_item(0x00100020).value
    raw = RawDataElement(Tag(0x00100020), "UN", len(value), value, 0, False, True)
    source.__setitem__(Tag(0x00100020), raw)
    assert deidentified(source).PatientID == deidentified(cr()).PatientID


def test_a_malformed_sequence_is_rejected_by_tag() -> None:
    source = reread(dx())
    value = b"CANARY"
    raw = RawDataElement(Tag(0x00082218), "SQ", len(value), value, 0, False, True)
    source.__setitem__(Tag(0x00082218), raw)
    with pytest.raises(Rejected, match=r"\(0008,2218\) is malformed") as caught:
        deidentified(source)
    assert caught.value.reason is Reason.UNREADABLE
    assert "CANARY" not in str(caught.value)


def test_nothing_of_a_value_is_warned_of_or_logged(caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        source = cr()
        for tag, vr, value in (
            (0x00180015, "CS", b"canary, canary and so on"),
            (0x00200013, "IS", b"CANARY"),
            (0x00180060, "DS", b"CANARY"),
            (0x00080005, "CS", b"CANARY"),
            (0x00100020, "LO", b"CANARY\xff\x1b$B"),
            (0x00200052, "UI", b"CANARY"),
            (0x00080023, "DA", b"CANARY"),
        ):
            raw = RawDataElement(Tag(tag), vr, len(value), value, 0, False, True)
            source.__setitem__(Tag(tag), raw)
        caplog.set_level(logging.DEBUG)
        deidentified(source)
    assert [str(one.message) for one in warned] == []
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("tag", "vr", "value"),
    [
        (0x00080020, "DA", "19330417"),
        (0x00080090, "PN", "CANARY^X"),
        (0x00091001, "LO", "CANARY"),
        (0x60003000, "OW", b"CANARY"),
        (0x50003000, "OW", b"CANARY"),
        (0x0020000D, "UI", "1.2.3"),
        (0x0020000D, "UI", "2.25.329800735698586629295641978511506172918"),
        (0x00081030, "LO", "CANARY"),
        (0x00102000, "LO", "CANARY"),
        (0x00281055, "LO", "CANARY"),
        (0x00104000, "LT", "CANARY"),
        (0x00081190, "UR", "http://canary"),
        (0x7FE00010, "OW", b"CANARY"),
    ],
)
def test_the_last_look_finds_what_a_wrong_list_would_keep(
    tag: int, vr: str, value: str | bytes
) -> None:
    nested, result = Dataset(), deidentified(cr())
    sweeping.sweep(result)
    nested.add(DataElement(tag, vr, value))
    for carrier in (nested, Dataset()):
        if not carrier:
            carrier.ViewCodeSequence = Sequence([nested])
        with pytest.raises(
            Rejected, match=rf"tags \({tag >> 16:04X},{tag & 0xFFFF:04X}\)"
        ) as found:
            sweeping.sweep(carrier)
        assert found.value.reason is Reason.IDENTITY_SURVIVED
        assert "CANARY" not in str(found.value)


def test_a_result_that_the_last_look_finds_fault_with_does_not_leave() -> None:
    wrong = Rule(0x00081030, "LO", "1", Pattern(re.compile(".*")))
    lists = {uid: (*rules, wrong) for uid, rules in allow_lists().items()}
    profile = Profile("wrong", frozenset(), lists, digest="")
    with pytest.raises(Rejected, match=r"tags \(0008,1030\)") as caught:
        deidentify(cr(StudyDescription="CANARY"), Pseudonyms(KEY), PROVENANCE, profile)
    assert caught.value.reason is Reason.IDENTITY_SURVIVED


@pytest.mark.parametrize(
    ("number", "attributes"),
    [
        (47110, {"PatientID": "47110"}),
        (47110, {"PatientID": "P-0047110"}),
        (8150, {"AccessionNumber": "8150"}),
        (5001, {"StudyID": "5001"}),
    ],
)
def test_a_counter_that_repeats_an_identifier_is_empty(
    number: int, attributes: dict[str, str]
) -> None:
    for keyword in ("SeriesNumber", "InstanceNumber", "AcquisitionNumber"):
        result = deidentified(cr(**{**attributes, keyword: number}))
        assert result[keyword].is_empty
        other = deidentified(cr(**{**attributes, keyword: number + 1}))
        assert int(other[keyword].value) == number + 1


def test_a_short_counter_stays_whatever_the_patients_number_is() -> None:
    assert deidentified(cr(PatientID="120", SeriesNumber=120)).SeriesNumber == 120
