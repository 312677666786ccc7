"""Radiographs built in code, whole and with planted identifying values ("canaries").

``radiograph_dataset()`` alone gives a valid 12-bit chest CR. Every identifying value in it is one
of ``CANARIES`` and reads as such: where one of them turns up in a log, a message, a file name or
a result, something leaked.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

__all__ = [
    "CANARIES",
    "CHEST_REGION",
    "canary_values",
    "code",
    "lut",
    "phantom",
    "radiograph_dataset",
    "write",
]

Image = NDArray[np.uint8] | NDArray[np.int8] | NDArray[np.uint16] | NDArray[np.int16]

#: Identifying values by keyword. None occurs in a DICOM file by chance.
CANARIES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "PatientName": "CANARYFAMILY^CANARYGIVEN^CANARYMIDDLE",
        "PatientID": "CANARY-PATIENT-4711",
        "IssuerOfPatientID": "CANARY-ISSUER",
        "PatientBirthDate": "19330417",
        "PatientAddress": "CANARYSTREET 12, CANARYTOWN",
        "PatientComments": "CANARYCOMMENT about the patient",
        "AccessionNumber": "CANARYACC0815",
        "StudyID": "CANARYSTUDYID",
        "StudyInstanceUID": "1.2.826.0.1.3680043.10.777.4711.1",
        "SeriesInstanceUID": "1.2.826.0.1.3680043.10.777.4711.2",
        "SOPInstanceUID": "1.2.826.0.1.3680043.10.777.4711.3",
        "StudyDate": "20070919",
        "SeriesDate": "20070919",
        "AcquisitionDate": "20070919",
        "ContentDate": "20070919",
        "StudyTime": "074713.419",
        "SeriesTime": "074713.419",
        "ContentTime": "074713.419",
        "InstitutionName": "CANARYHOSPITAL",
        "InstitutionAddress": "CANARYROAD 7, CANARYTOWN",
        "ReferringPhysicianName": "CANARYREFERRER^DOCTOR",
        "OperatorsName": "CANARYOPERATOR^NAME",
        "StationName": "CANARYSTATION",
        "DeviceSerialNumber": "CANARYSERIAL-99",
        "StudyDescription": "CANARYSTUDYTEXT chest",
        "SeriesDescription": "CANARYSERIESTEXT pa",
        "ProtocolName": "CANARYPROTOCOL",
    }
)

#: (CodeValue, CodingSchemeDesignator, CodeMeaning) of the chest as PS3.16 CID 4031 has it.
CHEST_REGION: Final = ("51185008", "SCT", "Chest")
_PRIVATE_BLOCK: Final = 0x0009


def canary_values() -> tuple[str, ...]:
    """Give every planted value and every name component of one, longest first."""
    values = set(CANARIES.values())
    for name in ("PatientName", "ReferringPhysicianName", "OperatorsName"):
        values.update(part for part in CANARIES[name].split("^") if part.startswith("CANARY"))
    return tuple(sorted(values, key=lambda value: (-len(value), value)))


def phantom(
    rows: int = 96, columns: int = 80, *, bits_stored: int = 12, signed: bool = False, seed: int = 7
) -> Image:
    """Give an image (rows, columns) of soft shapes, ribs and noise that uses all stored bits.

    Its least and greatest possible values both occur; two's complement where ``signed``.
    """
    y, x = np.mgrid[0:rows, 0:columns]
    v, u = (y + 0.5) / rows, (x + 0.5) / columns
    body = np.exp(-(((u - 0.5) / 0.45) ** 4) - ((v - 0.6) / 0.6) ** 4)
    lungs = sum(
        np.exp(-(((u - centre) / 0.13) ** 2) - ((v - 0.5) / 0.28) ** 2) for centre in (0.3, 0.7)
    )
    ribs = 0.12 * np.sin(v * 40 + 6 * (u - 0.5) ** 2) * body
    noise = np.random.default_rng(seed).normal(0, 0.01, (rows, columns))
    picture = body - 0.6 * lungs + ribs + noise
    picture = (picture - picture.min()) / max(float(np.ptp(picture)), 1e-9)
    low, high = _range(bits_stored, signed=signed)
    values = np.round(low + picture * (high - low))
    return values.astype(_dtype(8 if bits_stored <= 8 else 16, signed=signed))


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """Give one coded item."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def lut(values: NDArray[np.integer], *, first: int, bits: int, signed: bool = False) -> Dataset:
    """Give one item of a VOI LUT Sequence or a Modality LUT Sequence, its data as OW."""
    item = Dataset()
    vr = "SS" if signed else "US"
    entries = len(values) if len(values) < 2**16 else 0
    item.add(DataElement(0x00283002, vr, [entries, first, bits]))
    item.add(DataElement(0x00283006, "OW", np.asarray(values, dtype="<u2").tobytes()))
    return item


def radiograph_dataset(
    *,
    values: Image | None = None,
    rows: int = 96,
    columns: int = 80,
    bits_stored: int = 12,
    bits_allocated: int | None = None,
    signed: bool = False,
    photometric: str = "MONOCHROME2",
    padding: int | tuple[int, int] | None = None,
    rescale: tuple[float, float] | None = None,
    window: tuple[float, float] | None = None,
    voi_lut: Dataset | None = None,
    modality_lut: Dataset | None = None,
    sop_class: str = ComputedRadiographyImageStorage,
    modality: str = "CR",
    body_part: str | None = "CHEST",
    region: tuple[str, str, str] | None = None,
    spacing: tuple[float, float] | None = (0.143, 0.143),
    transfer_syntax: str = ExplicitVRLittleEndian,
    identity: Mapping[str, str] = CANARIES,
    nested: bool = False,
    private: bool = False,
    **attributes: object,
) -> FileDataset:
    """Give a chest radiograph as a file's dataset, with file meta and planted identity.

    ``values`` are the stored values; where it is None ``phantom`` makes them. ``padding`` is a
    PixelPaddingValue, or (PixelPaddingValue, PixelPaddingRangeLimit). ``nested`` adds sequences
    with identity three levels deep, ``private`` a private block with identity. ``attributes`` are
    set last, by keyword; a value of None deletes the attribute.
    """
    if values is None:
        values = phantom(rows, columns, bits_stored=bits_stored, signed=signed)
    allocated = bits_allocated or (8 if bits_stored <= 8 else 16)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = identity.get("SOPInstanceUID", "1.2.3")
    meta.TransferSyntaxUID = transfer_syntax
    meta.ImplementationClassUID = "1.2.826.0.1.3680043.10.777.1"
    dataset = FileDataset(
        None,  # type: ignore[arg-type]
        {},
        preamble=b"\0" * 128,
        file_meta=meta,
        is_implicit_VR=transfer_syntax == ImplicitVRLittleEndian,
        is_little_endian=transfer_syntax != ExplicitVRBigEndian,
    )
    for keyword, value in identity.items():
        setattr(dataset, keyword, value)
    dataset.SOPClassUID = sop_class
    dataset.Modality = modality
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.PatientSex = "O"
    dataset.Manufacturer = "Example"
    dataset.ViewPosition = "PA"
    dataset.SeriesNumber, dataset.InstanceNumber = 1, 1
    if body_part is not None:
        dataset.BodyPartExamined = body_part
    if region is not None:
        dataset.AnatomicRegionSequence = Sequence([code(*region)])
    if spacing is not None:
        dataset.ImagerPixelSpacing = list(spacing)
    _describe_pixels(dataset, values, allocated, bits_stored, photometric, signed=signed)
    _add_lookup(dataset, padding, rescale, window, signed=signed)
    if voi_lut is not None:
        dataset.VOILUTSequence = Sequence([voi_lut])
    if modality_lut is not None:
        dataset.ModalityLUTSequence = Sequence([modality_lut])
    if nested:
        dataset.RequestAttributesSequence = Sequence([_nested_identity(identity)])
    if private:
        block = dataset.private_block(_PRIVATE_BLOCK, "CANARYPRIVATE", create=True)
        block.add_new(0x01, "LO", identity.get("PatientID", "CANARY"))
    for keyword, value in attributes.items():
        if value is None:
            dataset.pop(keyword, None)
        else:
            setattr(dataset, keyword, value)
    return dataset


def write(dataset: Dataset) -> bytes:
    """Give the bytes of a DICOM file (preamble, file meta, dataset)."""
    target = BytesIO()
    dataset.save_as(target, enforce_file_format=True)
    return target.getvalue()


def _dtype(bits_allocated: int, *, signed: bool) -> np.dtype[np.generic]:
    return np.dtype(f"<{'i' if signed else 'u'}{bits_allocated // 8}")


def _range(bits_stored: int, *, signed: bool) -> tuple[int, int]:
    if signed:
        return -(2 ** (bits_stored - 1)), 2 ** (bits_stored - 1) - 1
    return 0, 2**bits_stored - 1


def _describe_pixels(
    dataset: Dataset,
    values: Image,
    bits_allocated: int,
    bits_stored: int,
    photometric: str,
    *,
    signed: bool,
) -> None:
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = photometric
    dataset.Rows, dataset.Columns = values.shape
    dataset.BitsAllocated = bits_allocated
    dataset.BitsStored = bits_stored
    dataset.HighBit = bits_stored - 1
    dataset.PixelRepresentation = int(signed)
    stored = _dtype(bits_allocated, signed=signed)
    if dataset.file_meta.TransferSyntaxUID == ExplicitVRBigEndian:
        stored = stored.newbyteorder(">")
    content = values.astype(stored).tobytes()
    vr = "OB" if bits_allocated == 8 and not dataset.original_encoding[0] else "OW"
    dataset.add(DataElement(0x7FE00010, vr, content + b"\0" * (len(content) % 2)))


def _add_lookup(
    dataset: Dataset,
    padding: int | tuple[int, int] | None,
    rescale: tuple[float, float] | None,
    window: tuple[float, float] | None,
    *,
    signed: bool,
) -> None:
    if padding is not None:
        vr = "SS" if signed else "US"
        first, *limit = padding if isinstance(padding, tuple) else (padding,)
        dataset.add(DataElement(0x00280120, vr, first))
        if limit:
            dataset.add(DataElement(0x00280121, vr, limit[0]))
    if rescale is not None:
        dataset.RescaleSlope, dataset.RescaleIntercept = rescale
        dataset.RescaleType = "US"
    if window is not None:
        dataset.WindowCenter, dataset.WindowWidth = window


def _nested_identity(identity: Mapping[str, str]) -> Dataset:
    deepest = Dataset()
    deepest.PatientName = identity.get("PatientName", "CANARY")
    deepest.PatientID = identity.get("PatientID", "CANARY")
    middle = code("CANARY-CODE", "99CANARY", "CANARYMEANING")
    middle.OtherPatientIDsSequence = Sequence([deepest])
    outer = Dataset()
    outer.RequestedProcedureID = "CANARYREQUEST"
    outer.AccessionNumber = identity.get("AccessionNumber", "CANARY")
    outer.ScheduledProtocolCodeSequence = Sequence([middle])
    return outer
