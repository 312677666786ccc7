"""Finding a patient's other images in a gallery: rank-1 and mAP@R."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Found", "retrieve"]


@dataclass(frozen=True, slots=True)
class Found:
    """What each query found, all (queries,), float64 on the CPU.

    ``rank1``: 1 where the likest image is the patient's, else 0. ``average_precision``: of
    mAP@R (Musgrave et al. 2020), with R the number of the patient's images in the gallery: the
    mean over the R likest of the precision so far, where the image is the patient's, else 0.
    ``chance``: what ``rank1`` is on average for a guess.
    """

    rank1: Tensor
    average_precision: Tensor
    chance: Tensor

    @classmethod
    def joined(cls, parts: list[Found]) -> Found:
        """Give several blocks of queries as one."""
        return cls(
            torch.cat([part.rank1 for part in parts]),
            torch.cat([part.average_precision for part in parts]),
            torch.cat([part.chance for part in parts]),
        )


def retrieve(
    likeness: Tensor, query_patients: Tensor, gallery_patients: Tensor, left_out: Tensor
) -> Found:
    """Give what queries find by their ``likeness`` (queries, gallery), the higher the liker.

    ``left_out`` (queries, gallery) says what a query does not find: its own original, and what is
    nearly the same picture, for these are no other images of the patient. Among equal likenesses
    the gallery's order decides: shuffle it, or a constant likeness finds what happens to stand
    first. Raises ValueError for a query whose patient has no other image in the gallery.
    """
    likeness = likeness.masked_fill(left_out, -torch.inf)
    relevant = (query_patients[:, None] == gallery_patients[None, :]) & ~left_out
    others = relevant.sum(1)
    if not bool((others > 0).all()):
        raise ValueError("a query's patient has no other image in the gallery")
    most = int(others.max())
    best = likeness.sort(dim=1, descending=True, stable=True).indices[:, :most]
    hits = relevant.gather(1, best).to(torch.float64)
    ranks = torch.arange(1, most + 1, device=hits.device)
    counted = hits * (ranks <= others[:, None])
    precision = hits.cumsum(1) / ranks
    size = (~left_out).sum(1, dtype=torch.float64)
    return Found(
        rank1=hits[:, 0].cpu(),
        average_precision=((precision * counted).sum(1) / others).cpu(),
        chance=(others / size).cpu(),
    )
