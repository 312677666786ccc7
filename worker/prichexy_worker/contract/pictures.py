"""Pictures that a worker sends to where the originals are, for the people who decide."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from prichexy_worker.contract.reading import DIGEST, JOB_ID, LONGEST_SIDE, ContractError, Reader
from prichexy_worker.contract.terms import DECISIONS, MOST_DOUBTS, MOST_IMAGES, OLDEST_VERSION, Box

__all__ = [
    "ImageInDoubt",
    "ImagePictures",
    "TextPictures",
]


@dataclass(frozen=True, slots=True)
class TextPictures:
    """Pictures of the regions that a worker is in doubt about, for the human who decides.

    PNG files, at least one and at most ``MOST_PICTURES``, of up to 256 KiB. They show patients'
    data: they go to where the originals are and nowhere else. Like a report they are void unless
    ``attempt`` is the number of the claim that holds. The answer is a Claim.
    """

    job_id: str
    revision: int
    attempt: int
    pictures: tuple[bytes, ...] = field(repr=False)

    def to_json(self) -> dict[str, object]:
        """Give the JSON object that ``from_json`` reads, as version 1, which can say all of it."""
        return {
            "version": OLDEST_VERSION,
            "job_id": self.job_id,
            "revision": self.revision,
            "attempt": self.attempt,
            "pictures": [base64.b64encode(picture).decode("ascii") for picture in self.pictures],
        }

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Parse strictly. Raises ContractError naming the key that does not fit."""
        read = Reader(data, "pictures", {"job_id", "revision", "attempt", "pictures"})
        return cls(
            job_id=read.text("job_id", JOB_ID),
            revision=read.count("revision", minimum=1),
            attempt=read.count("attempt", minimum=1),
            pictures=read.pictures("pictures"),
        )


@dataclass(frozen=True, slots=True)
class ImageInDoubt:
    """One image that a worker is in doubt about, whole, for the person who may decide over it.

    ``number`` counts the study's images in doubt from 1; ``digest`` is the SHA-256 of the image's
    file. ``boxes`` are where text may stand, in pixels of the stored image of ``rows`` by
    ``columns``, as they would be erased; there may be none. ``picture`` is a PNG file of all of it,
    with a longer side of ``WHOLE_SIDE`` pixels or all of its own. It shows a patient's data, as
    ``TextPictures`` do, and goes where they go. Version 3 brought it; plugins of before are sent
    none. The answer is a Claim.
    """

    job_id: str
    revision: int
    attempt: int
    number: int
    digest: str
    rows: int
    columns: int
    boxes: tuple[Box, ...]
    picture: bytes = field(repr=False)

    def to_json(self) -> dict[str, object]:
        """Give the JSON object that ``from_json`` reads, as version 3, which can say all of it."""
        return {
            "version": DECISIONS,
            "job_id": self.job_id,
            "revision": self.revision,
            "attempt": self.attempt,
            "number": self.number,
            "digest": self.digest,
            "rows": self.rows,
            "columns": self.columns,
            "boxes": [side for box in self.boxes for side in box],
            "picture": base64.b64encode(self.picture).decode("ascii"),
        }

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Parse strictly. Raises ContractError naming the key that does not fit."""
        keys = {
            "job_id",
            "revision",
            "attempt",
            "number",
            "digest",
            "rows",
            "columns",
            "boxes",
            "picture",
        }
        read = Reader(data, "image in doubt", keys)
        image = cls(
            job_id=read.text("job_id", JOB_ID),
            revision=read.count("revision", minimum=1),
            attempt=read.count("attempt", minimum=1),
            number=read.count("number", minimum=1),
            digest=read.text("digest", DIGEST),
            rows=read.count("rows", minimum=1),
            columns=read.count("columns", minimum=1),
            boxes=read.boxes("boxes"),
            picture=read.whole_picture("picture"),
        )
        outside = any(box[2] > image.columns or box[3] > image.rows for box in image.boxes)
        if outside or image.number > MOST_DOUBTS or max(image.rows, image.columns) > LONGEST_SIDE:
            raise ContractError("image in doubt: boxes, number or size is not valid")
        return image


@dataclass(frozen=True, slots=True)
class ImagePictures:
    """Pictures of one image of a study that was just exported, for whoever compares.

    ``number`` counts the study's images from 1 to ``count``, at most ``MOST_IMAGES``. ``pictures``
    are JPEG files of up to 512 KiB, those of ``IMAGE_PARTS``; ``figures`` are named numbers about
    them (``prichexy_worker.side_by_side``). They show patients' data: they go to where the
    originals are and nowhere else. Void as ``TextPictures`` are. The answer is a Claim.
    """

    job_id: str
    revision: int
    attempt: int
    number: int
    count: int
    figures: Mapping[str, float]
    pictures: tuple[bytes, ...] = field(repr=False)

    def to_json(self) -> dict[str, object]:
        """Give the JSON object that ``from_json`` reads, as version 1, which can say all of it."""
        return {
            "version": OLDEST_VERSION,
            "job_id": self.job_id,
            "revision": self.revision,
            "attempt": self.attempt,
            "number": self.number,
            "count": self.count,
            "figures": dict(self.figures),
            "pictures": [base64.b64encode(picture).decode("ascii") for picture in self.pictures],
        }

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Parse strictly. Raises ContractError naming the key that does not fit."""
        keys = {"job_id", "revision", "attempt", "number", "count", "figures", "pictures"}
        read = Reader(data, "pictures of an image", keys)
        number, count = read.count("number", minimum=1), read.count("count", minimum=1)
        if not number <= count <= MOST_IMAGES:
            raise ContractError("pictures of an image: count is not valid")
        return cls(
            job_id=read.text("job_id", JOB_ID),
            revision=read.count("revision", minimum=1),
            attempt=read.count("attempt", minimum=1),
            number=number,
            count=count,
            figures=read.numbers("figures"),
            pictures=read.image_parts("pictures"),
        )
