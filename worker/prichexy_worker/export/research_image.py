"""A released radiograph as researchers like it: a 16-bit PNG, and a row of a table.

Both are made of the released object alone, so nothing is told here that it does not tell.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final

import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from prichexy_worker import header, pixels

__all__ = ["COLUMNS", "is_picture_of", "picture_of", "row_of"]

#: The table's columns, in order; docs/export-targets.md says what each holds.
COLUMNS: Final = (
    "study_uid",
    "series_uid",
    "sop_uid",
    "patient_id",
    "file",
    "modality",
    "view",
    "laterality",
    "sex",
    "age",
    "study_date",
    "rows",
    "columns",
    "bits_stored",
    "photometric",
    "value_offset",
    "row_spacing_mm",
    "column_spacing_mm",
    "spacing_from",
    "window_center",
    "window_width",
    "rescale_slope",
    "rescale_intercept",
    "model_digest",
)

#: Where a spacing may stand, the best one first: at the patient, at the detector, on the film.
_SPACINGS: Final = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
#: What codes, ages, dates and UIDs consist of; a text that holds more is left out.
_PLAIN: Final = re.compile(r"[A-Za-z0-9_. -]*")


def picture_of(content: bytes) -> bytes:
    """Give the stored values of the DICOM file ``content`` as a 16-bit grey PNG.

    A pixel is the stored value less ``value_offset`` of its row: nothing is windowed, inverted or
    scaled. Raises Rejected when the pixels cannot be decoded.
    """
    _done, png = cv2.imencode(".png", _unsigned(_decoded(content)))
    return bytes(png)


def is_picture_of(png: bytes, content: bytes) -> bool:
    """Tell whether ``png`` shows exactly the stored values of the DICOM file ``content``."""
    shown = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED) if png else None
    if shown is None or shown.dtype != np.uint16:
        return False
    return np.array_equal(shown, _unsigned(_decoded(content)))


def row_of(content: bytes, file: str) -> Mapping[str, str]:
    """Give the row of the DICOM file ``content``, whose PNG is ``file``; all columns, as text.

    What the object does not tell, because the profile did not keep it or it never had it, is empty.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # their texts hold values
        dataset = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)
        signed = dataset.get("PixelRepresentation") == 1
        name, spacing = _spacing(dataset)
        values: dict[str, object] = {
            "study_uid": dataset.StudyInstanceUID,
            "series_uid": dataset.SeriesInstanceUID,
            "sop_uid": dataset.SOPInstanceUID,
            "modality": dataset.get("Modality"),
            "view": dataset.get("ViewPosition"),
            "laterality": dataset.get("ImageLaterality") or dataset.get("Laterality"),
            "sex": dataset.get("PatientSex"),
            "age": dataset.get("PatientAge"),
            "study_date": dataset.get("StudyDate"),
            "rows": dataset.Rows,
            "columns": dataset.Columns,
            "bits_stored": dataset.BitsStored,
            "photometric": dataset.PhotometricInterpretation,
            "value_offset": _offset(dataset.BitsStored) if signed else 0,
            "row_spacing_mm": spacing[0] if spacing else None,
            "column_spacing_mm": spacing[1] if spacing else None,
            "spacing_from": name,
            "window_center": _first(dataset.get("WindowCenter")),
            "window_width": _first(dataset.get("WindowWidth")),
            "rescale_slope": _first(dataset.get("RescaleSlope")),
            "rescale_intercept": _first(dataset.get("RescaleIntercept")),
            "model_digest": header.model_digest(dataset),
        }
    row = {column: _cell(value) for column, value in values.items()}
    row |= {"patient_id": str(dataset.PatientID), "file": file}
    return {column: row[column] for column in COLUMNS}


def _decoded(content: bytes) -> pixels.Radiograph:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pixels.decode(pydicom.dcmread(io.BytesIO(content)))


def _unsigned(radiograph: pixels.Radiograph) -> NDArray[np.uint16]:
    values = radiograph.values.astype(np.int32)
    if radiograph.values.dtype.kind == "i":
        values -= _offset(radiograph.bits_stored)
    return values.astype(np.uint16)


def _offset(bits_stored: int) -> int:
    """Give the least value that fits so many bits with a sign."""
    return -(1 << (bits_stored - 1))


def _spacing(dataset: Dataset) -> tuple[str, Sequence[Any]]:
    for name in _SPACINGS:
        value = dataset.get(name)
        if value is not None and len(value) == 2:
            return name, value
    return "", ()


def _first(value: object) -> object:
    several = isinstance(value, Sequence) and not isinstance(value, str)
    return next(iter(value), None) if several else value  # type: ignore[call-overload]


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, int | float):
        return f"{value:.10g}" if math.isfinite(value) else ""
    text = str(value)
    return text if _PLAIN.fullmatch(text) else ""
