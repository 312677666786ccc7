"""Which images at the export targets one ledger had sent there, by marks that tell nothing else.

An image is known by its patient's pseudonym as well as by its SOPInstanceUID: a study whose
PatientID was corrected comes again with the same UIDs, and is another study, to Orthanc and here.

A mark is 16 hexadecimal digits, eight of each of two digests. There is one for each image, of its
SOPInstanceUID and of patient and SOPInstanceUID together, and one for each patient of a study, of
the study and of both together. A ledger of before has the first 16 digits of the SHA-256 of the
SOPInstanceUID, which no patient is known of. Such a mark counts until there is one of the new form
of its image, so from the study's next export on no more, and where a target holds images of that
UID of two patients, it counts for neither: what may be another study's stays, and that is told.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

__all__ = ["Image", "Named", "Sent", "marks_of", "older_mark_of"]

_PART: Final = 8


class Named(Protocol):
    """What has the pseudonymous names of an image."""

    @property
    def patient_id(self) -> str:
        """The patient's."""

    @property
    def study_uid(self) -> str:
        """The study's."""

    @property
    def sop_uid(self) -> str:
        """Its own."""


class Image(NamedTuple):
    """An image as an export target holds it, by its pseudonymous names."""

    patient_id: str
    study_uid: str
    sop_uid: str


def marks_of(images: Iterable[Named]) -> frozenset[str]:
    """Give the marks of images, with those of their patients."""
    return frozenset(
        mark for image in images for mark in (_image_mark(image), _patient_mark(image))
    )


def older_mark_of(sop_uid: str) -> str:
    """Give the mark that ledgers of before have of an image."""
    return hashlib.sha256(sop_uid.encode()).hexdigest()[: 2 * _PART]


@dataclass(frozen=True, slots=True)
class Sent:
    """A set of images of which only the marks are known."""

    marks: frozenset[str] = frozenset()

    def with_these(self, images: Iterable[Named]) -> Sent:
        """Give the set with more of them."""
        return Sent(self.marks | marks_of(images))

    def among(self, held: Collection[Image]) -> frozenset[Image]:
        """Give those of the set that are among ``held``, all that a target has of a study."""
        pairs = {(image.sop_uid, image.patient_id) for image in held}
        patients = Counter(sop_uid for sop_uid, _patient in pairs)
        return frozenset(
            image
            for image in held
            if _image_mark(image) in self.marks
            or (self._known_of_old(image.sop_uid) and patients[image.sop_uid] == 1)
        )

    def names(self, sop_uid: str) -> bool:
        """Say whether an image of this UID is in the set, whoever its patient is."""
        return self._begins(_name_part(sop_uid)) or older_mark_of(sop_uid) in self.marks

    def may_concern(self, image: Named) -> bool:
        """Say whether an image may be of the study that the set is of, although it is not in it.

        It is not where the set's images of that study are known to be another patient's.
        """
        if older_mark_of(image.sop_uid) in self.marks or _patient_mark(image) in self.marks:
            return True
        return not self._begins(_study_part(image.study_uid))

    def left(self, image: Named, like_ours: Callable[[], bool]) -> bool:
        """Say whether an object that is not in the set and stays counts as left of its study.

        Of a study of which nothing is known to have been sent, only an image that is ``like_ours``
        does: a ledger that was lost may have sent it.
        """
        return self.may_concern(image) and (bool(self.marks) or like_ours())

    def _known_of_old(self, sop_uid: str) -> bool:
        return older_mark_of(sop_uid) in self.marks and not self._begins(_name_part(sop_uid))

    def _begins(self, part: str) -> bool:
        return any(mark.startswith(part) for mark in self.marks)


def _image_mark(image: Named) -> str:
    return _name_part(image.sop_uid) + _part("of patient", image.patient_id, image.sop_uid)


def _patient_mark(image: Named) -> str:
    return _study_part(image.study_uid) + _part("patient", image.patient_id, image.study_uid)


def _name_part(sop_uid: str) -> str:
    return _part("image", sop_uid)


def _study_part(study_uid: str) -> str:
    return _part("study", study_uid)


def _part(*texts: str) -> str:
    # No UID and no patient's pseudonym holds a backslash: DICOM has it between values.
    return hashlib.sha256("\\".join(texts).encode()).hexdigest()[:_PART]
