"""How the rows of an epoch are put into steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from prichexy_train.errors import Misconfigured

__all__ = ["ContrastBatches", "in_batches"]

#: A batch norm of one image learns nothing, and with one pixel a channel it fails.
_LEAST: Final = 2

Rows = NDArray[np.int64]


def in_batches(order: Rows, batch_size: int) -> list[Rows]:
    """Give ``order`` in pieces of ``batch_size``; a last one may be shorter, but not one row."""
    pieces = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return [piece for piece in pieces if len(piece) >= min(_LEAST, batch_size)]


class ContrastBatches:
    """Batches of several images of some patients, filled up with one image of each of others.

    In an epoch every patient with several images comes up once, or rarely not at all: not with a
    neighbour of its series, who may be the same person, in one batch.
    """

    def __init__(
        self,
        patients: NDArray[np.int64],
        rows: Rows,
        serials: NDArray[np.int64],
        *,
        patients_in_batch: int,
        images_of_each: int,
        batch_size: int,
    ) -> None:
        """Take the images numbered ``rows``.

        ``patients`` and ``serials`` (images, 2) are of all images; ``serials`` holds a series, -1
        for none, and the place in it, and may be empty. Raises Misconfigured when there are fewer
        patients with several images than a batch wants.
        """
        self._serials = serials if len(serials) else np.full((len(patients), 2), -1)
        self._patients_in_batch = patients_in_batch
        self._images_of_each = images_of_each
        self._batch_size = batch_size
        order = rows[np.argsort(patients[rows], kind="stable")]
        _, starts = np.unique(patients[order], return_index=True)
        by_patient = np.split(order, starts[1:])
        self._several = [own for own in by_patient if len(own) > 1]
        self._single = [own for own in by_patient if len(own) == 1]
        if len(self._several) < patients_in_batch:
            raise Misconfigured(
                f"{len(self._several)} patients have several images to train on, and a batch "
                f"wants {patients_in_batch}: set contrast.patients lower"
            )

    def epoch(self, source: np.random.Generator, *, share: float = 1.0) -> list[Rows]:
        """Give the images of each step of an epoch, drawn from ``source``.

        Where the patients are a ``share`` of more, they come up anew until there are as many steps
        as all together would give: an epoch is then as long, whatever the share.
        """
        wanted = round(len(self._several) / share) // self._patients_in_batch
        steps: list[Rows] = []
        while len(steps) < wanted:
            several = _shuffled(self._several, source)
            single: list[Rows] = []
            once = len(several) // self._patients_in_batch
            steps += [self._batch(several, single, source) for _ in range(once)]
        return steps[:wanted]

    def _batch(self, several: list[Rows], single: list[Rows], source: np.random.Generator) -> Rows:
        """Take a batch off the ends of the two lists; ``single`` is begun anew when it is empty."""
        taken: set[tuple[int, int]] = set()
        batch = [
            source.permutation(own)[: self._images_of_each]
            for own in self._apart(several, self._patients_in_batch, taken)
        ]
        missing = self._batch_size - sum(len(own) for own in batch)
        if len(single) < missing:
            single[:0] = _shuffled(self._single, source)
        batch += self._apart(single, missing, taken)
        return np.concatenate(batch)

    def _apart(self, patients: list[Rows], count: int, taken: set[tuple[int, int]]) -> list[Rows]:
        """Take ``count`` patients off the list's end, none beside one that is ``taken``.

        Those that are stay in the list, to come first the next time.
        """
        found: list[Rows] = []
        beside: list[Rows] = []
        while patients and len(found) < count:
            own = patients.pop()
            places = {(int(series), int(at)) for series, at in self._serials[own] if series >= 0}
            if any((series, at + step) in taken for series, at in places for step in (-1, 1)):
                beside.append(own)
                continue
            taken |= places
            found.append(own)
        patients += beside[::-1]
        return found


def _shuffled(patients: Sequence[Rows], source: np.random.Generator) -> list[Rows]:
    return [patients[number] for number in source.permutation(len(patients))]
