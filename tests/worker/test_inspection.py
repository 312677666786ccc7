"""Reading is permissive and silent; deciding is strict."""

import logging
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from prichexy_testing.dicoms import (
    CANARIES,
    CHEST_REGION,
    canary_values,
    code,
    lut,
    radiograph_dataset,
    write,
)
from prichexy_testing.shared_data import CHEST, NOT_CHEST, chest_files, need
from prichexy_worker import inspection
from prichexy_worker.contract import Reason
from prichexy_worker.errors import Rejected
from prichexy_worker.header.allowlist import allow_lists
from prichexy_worker.pixels import decode
from prichexy_worker.view import displayed


def verdict(dataset) -> Reason | None:
    try:
        inspection.inspect(inspection.read(write(dataset)))
    except Rejected as error:
        assert not any(value in str(error) for value in canary_values())
        return error.reason
    return None


def raw_elements(dataset: Dataset) -> list[int]:
    tags = list(dataset.keys())
    found = [tag for tag in tags if isinstance(dataset.get_item(tag), RawDataElement)]
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                found += raw_elements(item)
    return found


@pytest.mark.parametrize(
    ("sop_class", "modality"),
    [
        (uid.ComputedRadiographyImageStorage, "CR"),
        (uid.DigitalXRayImageStorageForPresentation, "DX"),
        (uid.DigitalXRayImageStorageForProcessing, "DX"),
        (uid.SecondaryCaptureImageStorage, "CR"),
        (uid.SecondaryCaptureImageStorage, "RG"),
    ],
)
def test_chest_radiographs_of_every_supported_class_pass(sop_class, modality):
    assert verdict(radiograph_dataset(sop_class=sop_class, modality=modality)) is None


@pytest.mark.parametrize("path", chest_files(), ids=lambda path: path.name)
def test_every_real_chest_radiograph_passes(path):
    dataset = inspection.read(path.read_bytes())
    inspection.inspect(dataset)
    assert raw_elements(dataset) == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("wg04_RG2_JLSN", Reason.NOT_A_CHEST_RADIOGRAPH),
        ("wg04_RG2_JPLL", Reason.NOT_A_CHEST_RADIOGRAPH),
        ("wg04_RG2_JPLY", Reason.NOT_A_CHEST_RADIOGRAPH),
        ("wg04_RG3_JLSL", Reason.NOT_A_CHEST_RADIOGRAPH),
        ("wg04_RG3_UNC", Reason.NOT_A_CHEST_RADIOGRAPH),
        ("highdicom_dx_image_DOG_thorax", Reason.NOT_A_CHEST_RADIOGRAPH),
        ("fodicom_CR-ModalitySequenceLUT_teeth", Reason.NOT_A_CHEST_RADIOGRAPH),
        ("fodicom_chrJapMulti_nopixel", Reason.NO_PIXEL_DATA),
        ("fodicom_chrJapMultiExplicitIR6_nopixel", Reason.NO_PIXEL_DATA),
        ("fodicom_chrKoreanMulti_nopixel", Reason.NO_PIXEL_DATA),
        ("presidio_pseudoPHI_0_ORIGINAL_no_pixels", Reason.NO_PIXEL_DATA),
    ],
)
def test_every_real_object_that_is_none_is_turned_away(name, reason):
    dataset = inspection.read(need(NOT_CHEST / f"{name}.dcm").read_bytes())
    with pytest.raises(Rejected) as caught:
        inspection.inspect(dataset)
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sop_class": uid.CTImageStorage}, Reason.UNSUPPORTED_SOP_CLASS),
        ({"sop_class": uid.DigitalMammographyXRayImageStorageForPresentation, "modality": "MG"},
         Reason.UNSUPPORTED_SOP_CLASS),
        ({"sop_class": uid.EncapsulatedPDFStorage}, Reason.UNSUPPORTED_SOP_CLASS),
        ({"SOPInstanceUID": ""}, Reason.INCOMPLETE_HEADER),
        ({"StudyInstanceUID": None}, Reason.INCOMPLETE_HEADER),
        ({"modality": "CT", "sop_class": uid.SecondaryCaptureImageStorage},
         Reason.NOT_A_CHEST_RADIOGRAPH),
        ({"modality": "OT", "sop_class": uid.SecondaryCaptureImageStorage},
         Reason.NOT_A_CHEST_RADIOGRAPH),
        ({"modality": ""}, Reason.NOT_A_CHEST_RADIOGRAPH),
        ({"body_part": None}, Reason.NOT_A_CHEST_RADIOGRAPH),
        ({"body_part": ""}, Reason.NOT_A_CHEST_RADIOGRAPH),
        ({"body_part": "HAND"}, Reason.NOT_A_CHEST_RADIOGRAPH),
        ({"body_part": "THORAX"}, Reason.NOT_A_CHEST_RADIOGRAPH),
        ({"body_part": "CHESTABDOMEN"}, Reason.NOT_A_CHEST_RADIOGRAPH),
        ({"BodyPartExamined": ["CHEST", "ABDOMEN"]}, Reason.NOT_A_CHEST_RADIOGRAPH),
        ({"region": ("T-D4000", "SRT", "Abdomen")}, Reason.NOT_A_CHEST_RADIOGRAPH),
        ({"body_part": None, "region": ("51185008", "99LOCAL", "Chest")},
         Reason.NOT_A_CHEST_RADIOGRAPH),
        ({"PatientSpeciesDescription": "Canis lupus familiaris"}, Reason.NOT_A_CHEST_RADIOGRAPH),
        ({"PatientBreedDescription": "Beagle"}, Reason.NOT_A_CHEST_RADIOGRAPH),
        ({"PatientSpeciesCodeSequence": [code("448771007", "SCT", "dog")]},
         Reason.NOT_A_CHEST_RADIOGRAPH),
        ({"PixelData": None}, Reason.NO_PIXEL_DATA),
        ({"NumberOfFrames": 2}, Reason.MULTI_FRAME),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, Reason.COLOUR),
        ({"BitsAllocated": 32}, Reason.UNSUPPORTED_PIXELS),
    ],
)  # fmt: skip
def test_whatever_leaves_a_doubt_is_turned_away(changes, reason):
    assert verdict(radiograph_dataset(**changes)) is reason


@pytest.mark.parametrize(
    "changes",
    [
        {"body_part": None, "region": CHEST_REGION},
        {"body_part": None, "region": ("T-D3000", "SRT", "Chest")},
        {"body_part": None, "region": ("816094009", "SCT", "Chest")},
        {"BurnedInAnnotation": "NO"},
        {"PatientSpeciesDescription": "Human"},
        {"PatientSpeciesCodeSequence": [code("337915000", "SCT", "homo sapiens")]},
        {"NumberOfFrames": 1},
        {"AnatomicRegionSequence": []},
    ],
)
def test_what_says_chest_in_another_way_passes(changes):
    assert verdict(radiograph_dataset(**changes)) is None


def test_a_body_part_in_lower_case_passes():
    content = write(radiograph_dataset()).replace(b"CS\x06\0CHEST ", b"CS\x06\0chest ")
    dataset = inspection.read(content)
    assert dataset.BodyPartExamined == "chest"
    inspection.inspect(dataset)


def test_the_dataset_is_not_altered_by_looking_at_it():
    dataset = inspection.read(write(radiograph_dataset(nested=True)))
    before = write(dataset)
    inspection.inspect(dataset)
    assert write(dataset) == before


@pytest.mark.parametrize("content", [b"", b"\0", b"hello world" * 50, b"\0" * 128 + b"DICM"])
def test_what_is_no_dicom_is_unreadable(content):
    with pytest.raises(Rejected) as caught:
        inspection.read(content)
    assert caught.value.reason is Reason.UNREADABLE


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damage_anywhere_is_rejected_or_read_and_never_told(data):
    voi = lut(np.arange(16, dtype=np.uint16), first=0, bits=4)
    chest = radiograph_dataset(
        rows=8, columns=8, nested=True, private=True, voi_lut=voi, window=(9, 9), padding=0
    )
    content = bytearray(write(chest))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(len(content) // 2, len(content)))]
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logging.getLogger().addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                dataset = inspection.read(bytes(content))
                inspection.inspect(dataset)
                displayed(decode(dataset), dataset)
            except Rejected as error:
                assert not any(value in str(error) for value in canary_values())
                assert error.__cause__ is None
    finally:
        logging.getLogger().removeHandler(handler)
    assert records == []
    assert warned == []


def with_bytes(content: bytes, tag: int, vr: bytes, value: bytes) -> bytes:
    """The file with the bytes of one short element replaced, whatever they are."""
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    start = content.index(head)
    end = start + 8 + int.from_bytes(content[start + 6 : start + 8], "little")
    return content[:start] + head + struct.pack("<H", len(value)) + value + content[end:]


def test_values_that_do_not_fit_their_vr_warn_nobody_later(recwarn, caplog):
    dataset = radiograph_dataset(
        SpecificCharacterSet="ISO_IR 100", PatientAge="040Y", DistanceSourceToPatient="1.0"
    )
    content = write(dataset)
    for tag, vr, value in (
        (0x00100030, b"DA", b"not a date, CANARY"),
        (0x00181111, b"DS", b"1,25 "),
        (0x00200013, b"IS", b"CANARYNUMBER"),
        (0x00080005, b"CS", b"CANARY_CHARSET"),
        (0x00280011, b"US", b"\x60\0\0"),
        (0x00101010, b"AS", b"CANARYAGE "),
        (0x00100010, b"PN", b"\xff\xfe\xfd^CANARY"),
    ):
        content = with_bytes(content, tag, vr, value)
    damaged = inspection.read(content)
    for element in damaged:
        str(element.value)
    assert damaged.PatientID == CANARIES["PatientID"]
    assert damaged.DistanceSourceToPatient == "1,25"
    assert damaged["Columns"].VR == "UN"  # kept as its bytes
    assert damaged["Columns"].value == b"\x60\0\0"
    with pytest.raises(Rejected, match="Columns is no number"):
        inspection.inspect(damaged)
    assert len(recwarn) == 0
    assert caplog.records == []


def test_a_name_that_is_not_in_its_character_set_warns_nobody_later(recwarn, caplog):
    content = write(radiograph_dataset(SpecificCharacterSet="ISO_IR 192"))
    content = with_bytes(content, 0x00100010, b"PN", b"CANARY\xff\xfe^\xe4\xf6")
    dataset = inspection.read(content)
    assert str(dataset.PatientName).startswith("CANARY")
    assert len(recwarn) == 0
    assert caplog.records == []


def test_an_object_without_preamble_names_the_syntax_it_was_read_in():
    content = need(CHEST / "barre_CR-MONO1-10-chest.dcm").read_bytes()
    dataset = inspection.read(content)
    assert dataset.file_meta.TransferSyntaxUID == uid.ImplicitVRLittleEndian


def test_compressed_pixels_without_a_named_syntax_are_unreadable():
    dataset = radiograph_dataset()
    element = DataElement(0x7FE00010, "OB", encapsulate([b"\0\0"]), is_undefined_length=True)
    dataset.add(element)
    content = write_compressed(dataset)
    body = content[144 + int.from_bytes(content[140:144], "little") :]
    with pytest.raises(Rejected) as caught:
        inspection.read(body)
    assert caught.value.reason is Reason.UNREADABLE


def write_compressed(dataset) -> bytes:
    dataset.file_meta.TransferSyntaxUID = uid.RLELossless
    return write(dataset)


def test_word_data_of_a_big_endian_object_come_in_little_endian():
    table = np.arange(1000, dtype=">u2")
    item = lut(np.zeros(1000, np.uint16), first=0, bits=12)
    item.LUTData = table.tobytes()
    dataset = radiograph_dataset(transfer_syntax=uid.ExplicitVRBigEndian, voi_lut=item)
    read = inspection.read(write(dataset))
    assert read.VOILUTSequence[0].LUTData == table.astype("<u2").tobytes()
    assert read.PixelData == dataset.PixelData


def test_a_deflated_bomb_is_not_inflated():
    dataset = radiograph_dataset(
        rows=2, columns=2, transfer_syntax=uid.DeflatedExplicitVRLittleEndian
    )
    content = write(dataset)
    end = 144 + int.from_bytes(content[140:144], "little")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = packer.compress(b"\0" * (480 << 20)) + packer.flush()
    assert len(bomb) < 1 << 20
    with pytest.raises(Rejected) as caught:
        inspection.read(content[:end] + bomb)
    assert caught.value.reason is Reason.UNREADABLE
    assert caught.value.detail == "deflated data are too long"


def test_damaged_deflated_data_are_unreadable():
    content = write(radiograph_dataset(transfer_syntax=uid.DeflatedExplicitVRLittleEndian))
    end = 144 + int.from_bytes(content[140:144], "little")
    with pytest.raises(Rejected) as caught:
        inspection.read(content[:end] + b"\xff" * 100)
    assert caught.value.reason is Reason.UNREADABLE


def test_each_class_that_is_accepted_has_an_allow_list_and_no_other_has():
    assert set(allow_lists()) == inspection.SUPPORTED_SOP_CLASSES
