"""Erases burned-in text until a search finds none, or says that a human must look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from prichexy_worker import view
from prichexy_worker.contract import MOST_BOXES, Box, Looked, Reason
from prichexy_worker.errors import Rejected
from prichexy_worker.pixels import Radiograph
from prichexy_worker.text.erasing import area_of, fill, reach_of
from prichexy_worker.text.finder import Finder, TextRegion
from prichexy_worker.text.masks import Mask, masked_area
from prichexy_worker.text.pictures import picture

__all__ = [
    "LARGEST_REGION",
    "MOST_ERASED",
    "MOST_REGIONS",
    "MOST_ROUNDS",
    "Cleaned",
    "clean",
    "doubted",
    "is_within",
]

#: How often text may be found and erased in one image; it is searched once more often.
MOST_ROUNDS: Final = 3
#: The largest region that is erased unseen, as found, as a share of the image. What is larger may
#: be anatomy.
LARGEST_REGION: Final = 0.1
#: The most that is erased of an image unseen, as a share of it, beside masks.
MOST_ERASED: Final = 0.2
#: The most regions that are erased in one round unseen.
MOST_REGIONS: Final = 50
#: How many regions a human is shown.
_MOST_PICTURES: Final = 12

View = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Cleaned:
    """A radiograph without text but markers, and what was done to it.

    ``erased`` (rows, columns) is True where pixels were filled: by a mask, for a text, or because
    a person said so;
    ``regions`` the number of separate places erased for a text; ``markers`` those kept, and
    ``kept`` their boxes (left, top, right, bottom), in each view that showed them.
    """

    radiograph: Radiograph
    erased: npt.NDArray[np.bool_]
    regions: int = 0
    markers: int = 0
    kept: tuple[tuple[int, int, int, int], ...] = ()

    def measures(self) -> dict[str, float]:
        """Give ``text_regions_erased``, ``text_markers_kept`` and ``text_erased_share``.

        The share is of all pixels, 0 to 1.
        """
        return {
            "text_regions_erased": float(self.regions),
            "text_markers_kept": float(self.markers),
            "text_erased_share": float(np.mean(self.erased)),
        }


def clean(
    radiograph: Radiograph,
    dataset: Dataset,
    finder: Finder,
    masks: Sequence[Mask] = (),
    *,
    claimed: bool = False,
    looked: Looked | None = None,
) -> Cleaned:
    """Give ``radiograph`` with masks filled and all text erased that ``finder`` finds, bar markers.

    ``claimed`` says that the header speaks of burned-in text: then something must have been erased,
    unless a person has ``looked`` at this very image.
    Raises Rejected BURNED_IN_TEXT with pictures where there is doubt; the rules are those of the
    package's docstring.
    """
    shape = radiograph.values.shape
    masked = masked_area(masks, dataset, shape)
    spared: tuple[Box, ...] = ()
    if looked is not None:
        # What is found in an area that was filled from outside it is no text of the image.
        spared = (*looked.keep, *looked.erase)
        for left, top, right, bottom in looked.erase:
            masked[top:bottom, left:right] = True
    texts, markers = np.zeros(shape, dtype=np.bool_), 0
    kept: tuple[tuple[int, int, int, int], ...] = ()
    current = fill(radiograph, masked)
    for rounds in range(MOST_ROUNDS + 1):
        found = [(shown, finder.find(shown)) for shown in view.searched(current, dataset)]
        unread = [(shown, one) for shown, each in found for one in each if not one.marker]
        doubtful = [(shown, one) for shown, one in unread if not is_within(one.box, spared)]
        if not doubtful:
            marked = [[one.box for one in each if one.marker] for _, each in found]
            markers = max(len(each) for each in marked)
            kept = tuple(box for each in marked for box in each)
            break
        if rounds == MOST_ROUNDS:
            raise doubted(f"still {_count(doubtful)} after {rounds} rounds of erasing", doubtful)
        texts |= _erasable(shape, doubtful)
        if np.mean(texts) > MOST_ERASED:
            raise doubted(f"{_count(doubtful)}, more than {MOST_ERASED:.0%} of the image", doubtful)
        # From the original each time: an area that grew holds nothing of an earlier filling.
        current = fill(radiograph, masked | texts)
    erased = masked | texts
    if claimed and looked is None and not erased.any():
        raise Rejected(Reason.BURNED_IN_TEXT, "BurnedInAnnotation, and none was found")
    places = cv2.connectedComponents(texts.astype(np.uint8))[0] - 1
    return Cleaned(radiograph=current, erased=erased, regions=places, markers=markers, kept=kept)


def is_within(box: Box, others: Sequence[Box]) -> bool:
    """Tell whether ``box`` lies in one of the others as a whole."""
    return any(
        left <= box[0] and top <= box[1] and box[2] <= right and box[3] <= bottom
        for left, top, right, bottom in others
    )


def doubted(detail: str, found: Sequence[tuple[View, TextRegion]]) -> Rejected:
    """Give the refusal for regions, each with the view that shows it: their boxes and pictures."""
    return Rejected(
        Reason.BURNED_IN_TEXT,
        detail,
        findings=tuple(reach_of(shown.shape, one) for shown, one in islice(found, MOST_BOXES)),
        pictures=tuple(picture(shown, region) for shown, region in islice(found, _MOST_PICTURES)),
    )


def _erasable(
    shape: tuple[int, ...], found: Sequence[tuple[View, TextRegion]]
) -> npt.NDArray[np.bool_]:
    """Give the area of the regions. Raises Rejected for one too large, or too many of them."""
    most = LARGEST_REGION * shape[0] * shape[1]
    large = [(shown, region) for shown, region in found if _largest(region) > most]
    if large:
        raise doubted(f"{_count(large)} of more than {LARGEST_REGION:.0%} of the image", large)
    if len(found) > MOST_REGIONS:
        raise doubted(f"{_count(found)}, more than {MOST_REGIONS}", found)
    return area_of(shape, [region for _, region in found])


def _largest(region: TextRegion) -> float:
    outlines = (np.array(outline, dtype=np.float32) for outline in region.outlines())
    return max(float(cv2.contourArea(outline)) for outline in outlines)


def _count(found: Sequence[object]) -> str:
    return f"{len(found)} region{'s' if len(found) > 1 else ''}"
