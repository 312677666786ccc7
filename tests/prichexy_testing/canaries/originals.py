"""The radiographs that values are planted into: real ones made small, or ones built in code."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
import pydicom
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from prichexy_testing.dicoms import CHEST_REGION, lut, phantom
from prichexy_testing.headers import cr, dx, secondary_capture
from prichexy_testing.shared_data import chest_files

__all__ = ["Original", "built_originals", "real_originals"]

#: Pixels along the shorter side of a real image that was made small: the whole path takes
#: milliseconds then, and the header is the real one.
_SIDE: Final = 64


@dataclass(frozen=True, slots=True)
class Original:
    """A chest radiograph without planted values: ``make`` gives a new dataset with native pixels.

    ``name`` tells where it comes from and names nobody.
    """

    name: str
    make: Callable[[], Dataset]


def real_originals() -> list[Original]:
    """Give every real chest radiograph at hand, made small; none where there is none."""
    return [
        Original(f"{path.parent.name}/{path.stem}", partial(_small, path)) for path in chest_files()
    ]


def built_originals() -> list[Original]:
    """Give radiographs of every SOP class, sign, depth and photometric interpretation."""
    small = {"rows": _SIDE, "columns": _SIDE}
    table = lut(np.arange(4096, dtype=np.uint16) * 16, first=0, bits=16)
    return [
        Original("built/cr", lambda: cr(**small)),
        Original("built/dx", lambda: dx(modality="DX", **small)),
        Original(
            "built/dx for processing",
            lambda: dx(
                sop_class="1.2.840.10008.5.1.4.1.1.1.1.1",
                PresentationIntentType="FOR PROCESSING",
                **small,
            ),
        ),
        Original(
            "built/secondary capture", lambda: secondary_capture(**{**small, "modality": "CR"})
        ),
        Original("built/signed", lambda: cr(signed=True, rescale=(1, 1024), **small)),
        Original("built/8 bits", lambda: cr(bits_stored=8, photometric="MONOCHROME1", **small)),
        Original(
            "built/8 bits in 16",
            lambda: cr(bits_stored=8, bits_allocated=16, values=_wide(), rows=1),
        ),
        Original(
            "built/VOI LUT", lambda: cr(voi_lut=table, padding=0, region=CHEST_REGION, **small)
        ),
    ]


def _wide() -> np.ndarray:
    return phantom(_SIDE, _SIDE, bits_stored=8).astype(np.uint16)


def _small(path: Path) -> Dataset:
    values, header = _decoded(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(header, force=True)
        dataset.Rows, dataset.Columns = values.shape
        vr = "OB" if values.dtype.itemsize == 1 else "OW"
        content = values.tobytes()
        dataset.add(DataElement(0x7FE00010, vr, content + b"\0" * (len(content) % 2)))
        for keyword in ("PixelAspectRatio", "NumberOfFrames", "PlanarConfiguration"):
            dataset.pop(keyword, None)
        for _ in dataset.iterall():
            pass  # no element stays in the source's encoding
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        target = BytesIO()
        pydicom.dcmwrite(target, dataset, implicit_vr=False, little_endian=True)
        return pydicom.dcmread(BytesIO(target.getvalue()), force=True)


@cache
def _decoded(path: Path) -> tuple[np.ndarray, Path]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path, force=True)
        if not dataset.file_meta.get("TransferSyntaxUID"):
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        values = np.asarray(dataset.pixel_array)
    step = max(1, min(values.shape) // _SIDE)
    small = values[::step, ::step]
    return np.ascontiguousarray(small.astype(small.dtype.newbyteorder("<"))), path
