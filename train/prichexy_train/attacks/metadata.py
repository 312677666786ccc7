"""Rung 7: what tables alone tell, which no change of the pixels can hide."""

from __future__ import annotations

from collections.abc import Sequence

from prichexy_train.attacks.rung import Attempt, NotApplicable, Rung, Workplace
from prichexy_train.attacks.target import Target
from prichexy_train.measures.demographics import demographics_score, original_size_score

__all__ = ["Metadata", "OriginalSize"]


class Metadata(Rung):
    """The floor of a list of pairs: what an attacker knows without looking at the images.

    On a list whose negatives are not matched it is high, and says so; it is the same for every
    method, and no part of the maximum over rungs.
    """

    number = 7
    name = "sex-age-view"
    role = "floor"

    def seeds(self, target: Target) -> Sequence[int]:
        """Give one. Raises NotApplicable where neither sex nor age nor view is known."""
        images = (image for catalogue in target.pool.catalogues for image in catalogue.images)
        if not any(image.sex or image.view or image.age is not None for image in images):
            raise NotApplicable(f"{target.pool.name} tells no sex, age or view")
        return (1,)

    def attack(self, target: Target, workplace: Workplace) -> Attempt:  # noqa: ARG002
        """Score; see ``Rung``."""
        catalogues = target.pool.catalogues
        return Attempt(
            {name: demographics_score(catalogues, pairs) for name, pairs in target.lists.items()}
        )


class OriginalSize(Rung):
    """The columns and rows that the department's machine gave, and so the aspect ratio.

    What is released at native resolution keeps them. High here, and a verifier that was shown
    images squeezed into a square may have learned machines and collimation, not patients.
    """

    number = 7
    name = "original-size"
    role = "floor"

    def seeds(self, target: Target) -> Sequence[int]:
        """Give one. Raises NotApplicable where not one set tells of two sizes."""
        for catalogue in target.pool.catalogues:
            if len({image.original for image in catalogue.images} - {None}) > 1:
                return (1,)
        raise NotApplicable(f"{target.pool.name} tells no original sizes that differ")

    def attack(self, target: Target, workplace: Workplace) -> Attempt:  # noqa: ARG002
        """Score; see ``Rung``."""
        catalogues = target.pool.catalogues
        return Attempt(
            {name: original_size_score(catalogues, pairs) for name, pairs in target.lists.items()}
        )
