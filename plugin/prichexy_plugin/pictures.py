"""Pictures of what a human must look at, kept as attachments of the study that they show.

They lie where the originals are and go when the study is deleted there.
"""

from __future__ import annotations

from typing import Final, Protocol

from prichexy_plugin.host import Host

__all__ = ["OrthancPictures", "Pictures"]

#: Orthanc leaves attachments from 1024 to 65535 to its users; these begin at "PX".
_FIRST: Final = 0x5058


class Pictures(Protocol):
    """Where pictures are kept, by Orthanc's id of the study and a number from 1."""

    def keep(self, study_id: str, number: int, picture: bytes) -> bool:
        """Keep a PNG file in place of any earlier one; False when that was not possible."""
        ...

    def picture(self, study_id: str, number: int) -> bytes | None:
        """Give it, or None where there is none."""
        ...


class OrthancPictures:
    """Keeps them in the Orthanc that this runs in."""

    def __init__(self, orthanc: Host) -> None:
        self._orthanc = orthanc

    def keep(self, study_id: str, number: int, picture: bytes) -> bool:
        """Keep a PNG file in place of any earlier one; False when that was not possible."""
        try:
            self._orthanc.RestApiPut(_address(study_id, number), picture)
        except self._orthanc.OrthancException:
            return False
        return True

    def picture(self, study_id: str, number: int) -> bytes | None:
        """Give it, or None where there is none."""
        try:
            return self._orthanc.RestApiGet(f"{_address(study_id, number)}/data")
        except self._orthanc.OrthancException:
            return None


def _address(study_id: str, number: int) -> str:
    return f"/studies/{study_id}/attachments/{_FIRST + number}"
