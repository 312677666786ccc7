"""Studies for fault tests: small chest radiographs of different patients, some of them poisoned."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from pydicom.encaps import encapsulate, get_frame

from prichexy_testing.dicoms import CANARIES, radiograph_dataset, write
from prichexy_worker.contract import State
from prichexy_worker.pixels import decode, with_pixels

__all__ = ["ENDED_BY_HAND", "Study", "patient_of"]

#: The ends of a study that cannot be exported: a human looks at it.
ENDED_BY_HAND: Final = frozenset({State.QUARANTINED, State.FAILED})
_ROOT: Final = "1.2.826.0.1.3680043.10.777.9"


def patient_of(number: int) -> str:
    """Give the PatientID of a study, which must be seen nowhere but at the ingest Orthanc."""
    return f"CANARYPATIENT{number:06d}"


@dataclass(frozen=True, slots=True)
class Study:
    """Study ``number`` with so many images.

    ``codec``: how the codec misbehaves that reads the last image; ``worker``: what that image does
    to the worker itself; ``unsafe``: it is no radiograph that may leave.
    """

    number: int
    images: int = 1
    codec: bytes = b""
    worker: str = ""
    unsafe: bool = False

    @property
    def uid(self) -> str:
        """The StudyInstanceUID."""
        return f"{_ROOT}.{self.number}"

    def sop_uids(self) -> tuple[str, ...]:
        """Give the images' SOPInstanceUIDs."""
        return tuple(f"{self.uid}.2.{image}" for image in range(self.images))

    def with_another_image(self) -> Study:
        """Give the study as it is when one more image has come."""
        return replace(self, images=self.images + 1)

    def files(self) -> tuple[bytes, ...]:
        """Give the images as DICOM files."""
        return tuple(self._file(image) for image in range(self.images))

    def _file(self, image: int) -> bytes:
        last = image == self.images - 1
        patient = {"PatientID": patient_of(self.number), "StudyInstanceUID": self.uid}
        series = {
            "SeriesInstanceUID": f"{self.uid}.1",
            "SOPInstanceUID": self.sop_uids()[image],
        }
        dataset = radiograph_dataset(
            rows=112,
            columns=96,
            window=(2048, 4096),
            identity={**CANARIES, **patient, **series},
            InstanceNumber=image + 1,
            ImageComments=self.worker if self.worker and last else None,
        )
        if self.codec and last:
            coded = with_pixels(dataset, decode(dataset), "jpeg-ls-lossless")
            frame = get_frame(coded.PixelData, 0, number_of_frames=1)
            coded.PixelData = encapsulate([frame + self.codec])
            return write(coded)
        if self.unsafe and last:
            dataset.PhotometricInterpretation = "PALETTE COLOR"
        return write(dataset)
