"""What the tests of header de-identification share: a key, a provenance, a radiograph of a kind."""

from __future__ import annotations

import re
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Final

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from prichexy_testing.dicoms import CHEST_REGION, code, radiograph_dataset, write
from prichexy_worker.contract import ModelInfo
from prichexy_worker.header import Provenance, deidentify
from prichexy_worker.pseudonyms import Pseudonyms

__all__ = [
    "KEY",
    "MODEL",
    "PROVENANCE",
    "cr",
    "deidentified",
    "dx",
    "error_kinds",
    "reread",
    "secondary_capture",
    "serialised",
]

KEY: Final = bytes(range(32))
MODEL: Final = ModelInfo("prichexy-net", "0.1.0", "5a" * 32, "untrained", "No privacy is claimed.")
PROVENANCE: Final = Provenance("0.1.0", MODEL, Pseudonyms(KEY).key_id, deformed=True)


def cr(**attributes: object) -> Dataset:
    """Give a valid CR of the chest, full of identity."""
    defaults: dict[str, object] = {
        "PatientOrientation": ["L", "F"],
        "window": (2048, 4096),
        "InstitutionAddress": None,
        "PatientAddress": None,
    }
    return radiograph_dataset(**{**defaults, **attributes})  # type: ignore[arg-type]


def dx(**attributes: object) -> Dataset:
    """Give a valid DX for presentation of the chest, full of identity."""
    defaults: dict[str, object] = {
        "sop_class": "1.2.840.10008.5.1.4.1.1.1.1",
        "modality": "DX",
        "region": CHEST_REGION,
        "rescale": (1, 0),
        "window": (2048, 4096),
        "PatientOrientation": ["L", "F"],
        "ImageType": ["ORIGINAL", "PRIMARY", ""],
        "PresentationIntentType": "FOR PRESENTATION",
        "PresentationLUTShape": "IDENTITY",
        "PixelIntensityRelationship": "LOG",
        "PixelIntensityRelationshipSign": -1,
        "ImageLaterality": "U",
        "LossyImageCompression": "00",
        "BurnedInAnnotation": "NO",
        "DetectorType": "SCINTILLATOR",
        "DetectorID": "CANARY-DETECTOR",
        "PositionerType": "COLUMN",
        "KVP": "125",
        "ExposureTime": "8",
        "ViewCodeSequence": Sequence([code("272479007", "SCT", "postero-anterior")]),
        "AcquisitionContextSequence": Sequence(),
    }
    return radiograph_dataset(**{**defaults, **attributes})  # type: ignore[arg-type]


def secondary_capture(**attributes: object) -> Dataset:
    """Give a valid Secondary Capture of a chest radiograph, full of identity."""
    defaults: dict[str, object] = {
        "sop_class": "1.2.840.10008.5.1.4.1.1.7",
        "modality": "OT",
        "spacing": None,
        "ConversionType": "DF",
        "PatientOrientation": ["L", "F"],
        "DateOfSecondaryCapture": "20070919",
        "SecondaryCaptureDeviceID": "CANARY-SCANNER",
        "ViewPosition": None,
    }
    return radiograph_dataset(**{**defaults, **attributes})  # type: ignore[arg-type]


def reread(dataset: Dataset) -> Dataset:
    """Give the dataset as a reader of its file first sees it: no element converted yet."""
    return dcmread(BytesIO(write(dataset)))


def deidentified(
    dataset: Dataset, *, key: bytes = KEY, provenance: Provenance = PROVENANCE
) -> Dataset:
    """De-identify with the tests' key and provenance."""
    return deidentify(dataset, Pseudonyms(key), provenance)


def serialised(result: Dataset) -> bytes:
    """Give the bytes of the file that a result becomes, without pixel data."""
    return write(result)


def error_kinds(path: Path) -> set[str]:
    """Give the kinds of errors that dciodvfy finds in a file, without values and positions."""
    program = Path(sys.executable).with_name("dciodvfy")
    run = subprocess.run([program, "-new", path], capture_output=True, check=False, timeout=300)
    lines = (run.stdout + run.stderr).decode("latin-1").splitlines()
    errors = (line for line in lines if line.startswith("Error"))
    return {re.sub(r"<[^/<>][^<>]*>|\[\d+\]|0x[0-9a-f]+|\d+ dec", "", line) for line in errors}
