"""Rung 9: searching a gallery of real images for the patient of an anonymised one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from prichexy_train.anonymised import NotInTime
from prichexy_train.attacks.comparison import Comparator, OfVerifier, embed_rows, likeness
from prichexy_train.attacks.features import centred_features
from prichexy_train.attacks.frozen import members_of
from prichexy_train.attacks.rung import (
    Attempt,
    NotApplicable,
    Retrieval,
    Rung,
    Workplace,
    strong_verifiers,
)
from prichexy_train.attacks.target import Target, TestedSet
from prichexy_train.measures.retrieval import Found, retrieve
from prichexy_train.randomness import numpy_generator
from prichexy_train.runs import RunFolder
from prichexy_train.trained import load_verifier

__all__ = ["Search", "SearchWith"]

#: Whose likeness is searched by.
SearchWith = Literal["frozen", "fine-tuned", "fresh-mixed", "imagenet-features", "ensemble"]

_QUERIES: Final = 64


class Search(Rung):
    """Every anonymised test image of a patient with another one looks for that patient.

    The gallery is all real test images but the query's own original and what is nearly the same
    picture, in an order drawn at random, for the order decides between equal likenesses.
    ``fine-tuned`` and ``fresh-mixed`` are the networks that rungs 4 and 2 trained, where these
    ran before.
    """

    number = 9

    def __init__(self, by: SearchWith) -> None:
        self.by = by
        self.name = f"retrieval-{by}"
        self.role = "baseline" if by == "imagenet-features" else "attack"
        # For the mean ImageNet features of training images.
        self.trains = by in {"imagenet-features", "ensemble"}

    def seeds(self, target: Target) -> Sequence[int]:
        """Give the attempts whose networks there are, or are to be. Raises NotApplicable."""
        settings = target.settings
        if self.by == "frozen":
            return range(1, len(strong_verifiers(target)) + 1)
        if self.by == "imagenet-features":
            if settings.features is None:
                raise NotApplicable("the settings name no ImageNet network")
            return (1,)
        if self.by == "ensemble":
            members_of(target)
            return (1,)
        if self.by == "fine-tuned":
            strong_verifiers(target)
        return range(1, settings.seeds + 1)

    def attack(self, target: Target, workplace: Workplace) -> Attempt:
        """Search in each set; see ``Rung``."""
        networks = [_verifier(target, run) for run in self._runs(target, workplace)]
        found: dict[str, Retrieval] = {}
        for name, tested in target.sets.items():
            members: list[Comparator] = [*networks]
            if self.trains and target.settings.features is not None:
                members.append(centred_features(target, name))
            found[name] = _searched(target, tested, members, workplace)
        return Attempt(retrievals=found)

    def _runs(self, target: Target, workplace: Workplace) -> Sequence[Path]:
        """Give the runs of the networks that are searched with."""
        if self.by == "imagenet-features":
            return ()
        if self.by == "ensemble":
            return members_of(target)
        if self.by == "frozen":
            return strong_verifiers(target)[workplace.seed - 1 :][:1]
        run = workplace.beside(self.by, workplace.seed)
        if not RunFolder(run).finished:
            raise NotApplicable(f"{self.by} was not trained with seed {workplace.seed}")
        return (run,)


def _searched(
    target: Target, tested: TestedSet, members: Sequence[Comparator], workplace: Workplace
) -> Retrieval:
    gallery, queries = _sides(target, tested)
    patients, pictures = target.pool.patients, target.pool.pictures
    batch_size = target.settings.batch_size
    embedded = [
        (
            comparator,
            embed_rows(comparator, target.first, queries, "first", batch_size),
            embed_rows(comparator, target.second, gallery, "second", batch_size),
        )
        for comparator in members
    ]
    parts: list[Found] = []
    for start in range(0, len(queries), _QUERIES):
        if workplace.late:
            raise NotInTime
        rows = queries[start : start + _QUERIES]
        some = [(one, a[start : start + _QUERIES], b) for one, a, b in embedded]
        who, whose, same = (
            torch.from_numpy(values).to(target.device)
            for values in (
                patients[rows],
                patients[gallery],
                pictures[rows][:, None] == pictures[gallery],
            )
        )
        parts.append(retrieve(likeness(some), who, whose, same))
    return Retrieval(Found.joined(parts), patients[queries], len(gallery) - 1)


def _verifier(target: Target, run: Path) -> OfVerifier:
    return OfVerifier(load_verifier(run).to(target.device))


def _sides(target: Target, tested: TestedSet) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give a set's gallery, in random order, and the queries, in the pool's."""
    source = numpy_generator(target.settings.seed, "gallery", tested.name)
    gallery = source.permutation(tested.rows("test"))
    patients = target.pool.patients[gallery]
    # A patient's pictures, each once: there must be another one to find.
    pictures = np.unique(np.stack([patients, target.pool.pictures[gallery]]), axis=1)
    codes, counts = np.unique(pictures[0], return_counts=True)
    queries = np.sort(gallery[np.isin(patients, codes[counts > 1])])
    if not len(queries):
        raise NotApplicable(f"no test patient of {tested.name} has two different images")
    most = target.settings.retrieval.queries
    if most is not None and most < len(queries):
        queries = np.sort(source.choice(queries, size=most, replace=False))
    return gallery, queries
