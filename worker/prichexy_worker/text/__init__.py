"""Burned-in text: found, told from side and view markers, erased, and searched for again.

``cleaning`` is the way in. It fills the fixed ``masks``, lets ``finder`` search the image as it is
displayed, erases (``erasing``) every region that is no marker, larger than it was found, and
searches again until nothing but markers is found. A marker is what is surely read as words of a
list (``markers``) and stands alone; one that an erased region reaches is lost with it.

What a machine is not sure of goes to a human, with ``pictures`` that show the regions and nothing
else. That is Rejected BURNED_IN_TEXT:

* text is still found after MOST_ROUNDS rounds of erasing;
* one region, as found, covers more than LARGEST_REGION of the image: it may be anatomy;
* in one round there are more than MOST_REGIONS regions;
* more than MOST_ERASED of the image would be erased, masks not counted;
* the header speaks of burned-in text (BurnedInAnnotation is neither NO nor absent), nothing was
  found and no mask applies.

A person may have ``looked`` at the image meanwhile. What that person named is erased beside the
masks, however large it is; what lies within a box that is to be kept is no text any more; and no
find is missed because a header speaks of one. All else is judged as above.

Not promised: that every text is found (handwriting, lead letters in a hazy picture, letters
below about 14 of 2500 rows with little contrast are often missed), nor that what is found is
text. What the given view does not show cannot be found in it: ``view.searched`` sees to that.
"""

from prichexy_worker.text.cleaning import Cleaned, clean, doubted, is_within
from prichexy_worker.text.erasing import area_of
from prichexy_worker.text.finder import Finder, TextFinder, TextRegion
from prichexy_worker.text.markers import MARKERS
from prichexy_worker.text.masks import Mask, masks_of
from prichexy_worker.text.pictures import picture, whole_picture

__all__ = [
    "MARKERS",
    "Cleaned",
    "Finder",
    "Mask",
    "TextFinder",
    "TextRegion",
    "area_of",
    "clean",
    "doubted",
    "is_within",
    "masks_of",
    "picture",
    "whole_picture",
]
