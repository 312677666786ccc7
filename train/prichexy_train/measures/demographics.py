"""What tables alone tell about two images being one patient's: sex, age and view, or their size.

No change of the pixels can hide them, so this is the floor of any attack on a list of pairs, and
on a list whose pairs of two patients are not matched it is high.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from prichexy_train.data.catalogue import Catalogue
from prichexy_train.data.pairs import Pairs
from prichexy_train.measures.auc import auc

__all__ = ["demographics_auc", "demographics_score", "original_size_score"]

#: What speaks against one patient, in years of age: another sex outweighs any gap, and another
#: view decides between gaps of the same years.
_OTHER_SEX: Final = 1000.0
_OTHER_VIEW: Final = 0.5


def demographics_score(catalogues: Sequence[Catalogue], pairs: Pairs) -> NDArray[np.float64]:
    """Give a score for each pair, higher where one patient is more likely; nothing is learned.

    ``pairs`` count through the catalogues one after the other, as a ``Pool`` does. What is unknown
    of one image says nothing: it counts as much as the known ones of the list do on average.
    """
    images = [image for catalogue in catalogues for image in catalogue.images]
    ages = np.array([np.nan if i.age is None else i.age for i in images], dtype=np.float64)
    against = _known_or_mean(np.abs(ages[pairs.first] - ages[pairs.second]))
    for words, weight in (
        ([image.sex for image in images], _OTHER_SEX),
        ([image.view for image in images], _OTHER_VIEW),
    ):
        texts = np.array(words, dtype=np.str_)
        first, second = texts[pairs.first], texts[pairs.second]
        differs = np.where((first == "") | (second == ""), np.nan, first != second)
        against += weight * _known_or_mean(differs)
    return -against


def demographics_auc(catalogues: Sequence[Catalogue], pairs: Pairs) -> float:
    """Give the AUC of ``demographics_score``. Raises MeasureError as ``auc`` does."""
    return auc(demographics_score(catalogues, pairs), pairs.same)


def original_size_score(catalogues: Sequence[Catalogue], pairs: Pairs) -> NDArray[np.float64]:
    """Give a score for each pair, higher the nearer their original columns and rows are.

    The gap is one of logarithms, so it counts ratios, not pixels. Pairs and the unknown count as
    in ``demographics_score``.
    """
    images = [image for catalogue in catalogues for image in catalogue.images]
    sizes = np.array([image.original or (np.nan, np.nan) for image in images], dtype=np.float64)
    gaps = np.abs(np.log(sizes[pairs.first]) - np.log(sizes[pairs.second])).sum(axis=1)
    return -_known_or_mean(gaps)


def _known_or_mean(values: NDArray[Any]) -> NDArray[np.float64]:
    known = ~np.isnan(values)
    mean = values[known].mean() if known.any() else 0.0
    return np.where(known, values, mean).astype(np.float64)
