"""Pictures of a study, kept as its attachments: of what a human must look at, and side by side.

They lie where the originals are and go when the study is deleted there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from prichexy_plugin.host import Host
from prichexy_worker.contract import IMAGE_PARTS, MOST_DOUBTS, MOST_IMAGES, MOST_PICTURES

__all__ = ["OrthancPictures", "Pictures"]

#: Orthanc leaves attachments from 1024 to 65535 to its users; these begin at "PX".
_FIRST: Final = 0x5058
#: And those of whole images behind them.
_FIRST_WHOLE: Final = _FIRST + MOST_PICTURES
#: Those of images: eight numbers each, the first for the figures, then the parts.
_FIRST_IMAGE: Final = 0x5100
_OF_AN_IMAGE: Final = 8
_OURS: Final = frozenset(
    (
        *range(_FIRST + 1, _FIRST_WHOLE + MOST_DOUBTS + 1),
        *range(_FIRST_IMAGE, _FIRST_IMAGE + _OF_AN_IMAGE * MOST_IMAGES),
    )
)


class Pictures(Protocol):
    """Where pictures are kept, by Orthanc's id of the study and a number from 1."""

    def keep(self, study_id: str, number: int, picture: bytes) -> bool:
        """Keep a PNG file in place of any earlier one; False when that was not possible."""
        ...

    def picture(self, study_id: str, number: int) -> bytes | None:
        """Give it, or None where there is none."""
        ...

    def keep_whole(self, study_id: str, number: int, picture: bytes) -> bool:
        """Keep the picture of a whole image in doubt, as ``keep`` does; numbers of their own."""
        ...

    def whole(self, study_id: str, number: int) -> bytes | None:
        """Give it, or None where there is none."""
        ...

    def keep_image(
        self,
        study_id: str,
        number: int,
        figures: Mapping[str, float],
        pictures: Sequence[bytes],
    ) -> bool:
        """Keep an image's JPEG files, those of ``IMAGE_PARTS``; False when that was not possible.

        They take the place of any earlier ones. ``figures`` are kept with them.
        """
        ...

    def figures(self, study_id: str, number: int) -> Mapping[str, float] | None:
        """Give the figures of an image that is kept, or None."""
        ...

    def part(self, study_id: str, number: int, part: str) -> bytes | None:
        """Give one of the JPEG files of an image, or None where there is none."""
        ...

    def delete(self, study_id: str) -> bool:
        """Delete all of a study; False when that was not possible. It may have none."""
        ...


class OrthancPictures:
    """Keeps them in the Orthanc that this runs in."""

    def __init__(self, orthanc: Host) -> None:
        self._orthanc = orthanc

    def keep(self, study_id: str, number: int, picture: bytes) -> bool:
        """Keep a PNG file in place of any earlier one; False when that was not possible."""
        return self._put(study_id, _FIRST + number, picture)

    def picture(self, study_id: str, number: int) -> bytes | None:
        """Give it, or None where there is none."""
        return self._get(study_id, _FIRST + number)

    def keep_whole(self, study_id: str, number: int, picture: bytes) -> bool:
        """Keep the picture of a whole image in doubt, as ``keep`` does."""
        return self._put(study_id, _FIRST_WHOLE + number, picture)

    def whole(self, study_id: str, number: int) -> bytes | None:
        """Give it, or None where there is none."""
        return self._get(study_id, _FIRST_WHOLE + number)

    def keep_image(
        self,
        study_id: str,
        number: int,
        figures: Mapping[str, float],
        pictures: Sequence[bytes],
    ) -> bool:
        """Keep an image's JPEG files and, when all are there, its figures."""
        first = _image(number)
        kept = all(
            self._put(study_id, first + place, picture)
            for place, picture in enumerate(pictures, start=1)
        )
        return kept and self._put(study_id, first, json.dumps(dict(figures)).encode())

    def figures(self, study_id: str, number: int) -> Mapping[str, float] | None:
        """Give the figures of an image that is kept, or None."""
        found = self._get(study_id, _image(number))
        try:
            figures = None if found is None else json.loads(found)
        except ValueError:
            return None
        return figures if isinstance(figures, dict) else None

    def part(self, study_id: str, number: int, part: str) -> bytes | None:
        """Give one of the JPEG files of an image, or None where there is none."""
        return self._get(study_id, _image(number) + 1 + IMAGE_PARTS.index(part))

    def delete(self, study_id: str) -> bool:
        """Delete all of a study; False when that was not possible. It may have none."""
        try:
            listed = json.loads(self._orthanc.RestApiGet(f"/studies/{study_id}/attachments"))
        except self._orthanc.OrthancException as error:
            return self._is_absent(error)
        except ValueError:
            return False
        for name in listed:
            # Orthanc calls an attachment by its number, unless its configuration has a name for it.
            if not (isinstance(name, str) and name.isdecimal() and int(name) in _OURS):
                continue
            try:
                self._orthanc.RestApiDelete(_address(study_id, int(name)))
            except self._orthanc.OrthancException as error:
                if not self._is_absent(error):
                    return False
        return True

    def _is_absent(self, error: Exception) -> bool:
        codes = self._orthanc.ErrorCode
        absent = (int(codes.UNKNOWN_RESOURCE), int(codes.INEXISTENT_ITEM))
        return bool(error.args) and error.args[0] in absent

    def _put(self, study_id: str, place: int, content: bytes) -> bool:
        try:
            self._orthanc.RestApiPut(_address(study_id, place), content)
        except self._orthanc.OrthancException:
            return False
        return True

    def _get(self, study_id: str, place: int) -> bytes | None:
        try:
            return self._orthanc.RestApiGet(f"{_address(study_id, place)}/data")
        except self._orthanc.OrthancException:
            return None


def _image(number: int) -> int:
    return _FIRST_IMAGE + _OF_AN_IMAGE * (number - 1)


def _address(study_id: str, place: int) -> str:
    return f"/studies/{study_id}/attachments/{place}"
