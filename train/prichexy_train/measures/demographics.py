"""What tables alone tell about two images being one patient's: sex, age and view, or their size.

No change of the pixels can hide them, so this is the floor of any attack on a list of pairs, and
on a list whose pairs of two patients are not matched it is high.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from prichexy_train.data.catalogue import Catalogue
from prichexy_train.data.pairs import Pairs
from prichexy_train.measures.auc import auc

__all__ = [
    "DIFFERENCES",
    "Fitted",
    "demographics_auc",
    "demographics_differences",
    "demographics_score",
    "fitted",
    "original_size_score",
]

#: In what two images can differ, by their table; the columns of ``demographics_differences``.
Difference = Literal["sex", "age", "view"]
DIFFERENCES: Final[tuple[Difference, ...]] = get_args(Difference)

#: What speaks against one patient, in years of age: another sex outweighs any gap, and another
#: view decides between gaps of the same years.
_OTHER_SEX: Final = 1000.0
_OTHER_VIEW: Final = 0.5


def demographics_score(catalogues: Sequence[Catalogue], pairs: Pairs) -> NDArray[np.float64]:
    """Give a score for each pair, higher where one patient is more likely; nothing is learned.

    ``pairs`` count through the catalogues one after the other, as a ``Pool`` does. What is unknown
    of one image says nothing: it counts as much as the known ones of the list do on average.
    """
    sex, age, view = demographics_differences(catalogues, pairs).T
    against: NDArray[np.float64] = age + _OTHER_SEX * sex + _OTHER_VIEW * view
    return -against


def demographics_differences(catalogues: Sequence[Catalogue], pairs: Pairs) -> NDArray[np.float64]:
    """Give how the images of each pair differ, (pairs, 3), in the order of ``DIFFERENCES``.

    1 for another sex, the years between their ages, 1 for another view. Pairs and the unknown
    count as in ``demographics_score``.
    """
    images = [image for catalogue in catalogues for image in catalogue.images]
    ages = np.array([np.nan if i.age is None else i.age for i in images], dtype=np.float64)
    columns = [
        _other([image.sex for image in images], pairs),
        np.abs(ages[pairs.first] - ages[pairs.second]),
        _other([image.view for image in images], pairs),
    ]
    return np.stack([_known_or_mean(column) for column in columns], axis=1)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A logistic regression on some of the differences, as a list of pairs taught it.

    ``weights`` are of ``DIFFERENCES``, 0 for those that it does not look at: what one more year,
    another sex or another view adds to the logarithm of the odds for one patient.
    """

    weights: NDArray[np.float64]

    def score(self, differences: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give a score for each pair (pairs, 3), higher where one patient is more likely."""
        scores: NDArray[np.float64] = differences @ self.weights
        return scores


def fitted(
    differences: NDArray[np.float64], same: NDArray[np.bool_], by: Sequence[Difference]
) -> Fitted:
    """Fit to pairs with their ``differences`` (pairs, 3), looking at those named in ``by`` only."""
    columns = [DIFFERENCES.index(name) for name in by]
    # Of the same width, so that the (weak) penalty on weights is as fair to years as to answers.
    spread = differences[:, columns].std(axis=0)
    spread[spread == 0] = 1.0
    regression = LogisticRegression().fit(differences[:, columns] / spread, same)
    weights = np.zeros(len(DIFFERENCES))
    weights[columns] = regression.coef_[0] / spread
    return Fitted(weights)


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


def _other(words: Sequence[str], pairs: Pairs) -> NDArray[np.float64]:
    """Give 1 where the words of a pair's images differ, 0 where not, NaN where one is empty."""
    texts = np.array(words, dtype=np.str_)
    first, second = texts[pairs.first], texts[pairs.second]
    return np.where((first == "") | (second == ""), np.nan, first != second)


def _known_or_mean(values: NDArray[Any]) -> NDArray[np.float64]:
    known = ~np.isnan(values)
    mean = values[known].mean() if known.any() else 0.0
    return np.where(known, values, mean).astype(np.float64)
