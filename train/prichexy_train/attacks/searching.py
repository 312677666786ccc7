"""Rung 9: searching a gallery of real images for the patient of an anonymised one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from prichexy_train.anonymised import NotInTime
from prichexy_train.attacks.comparison import Comparator, OfVerifier, embed_rows, likeness, score
from prichexy_train.attacks.features import FEATURES, centred_features
from prichexy_train.attacks.fresh import FreshVerifier
from prichexy_train.attacks.frozen import members_of
from prichexy_train.attacks.rung import (
    Attempt,
    NotApplicable,
    Retrieval,
    Rung,
    Workplace,
    strong_verifiers,
)
from prichexy_train.attacks.settings import AttackSettings
from prichexy_train.attacks.target import Learning, Target, TestedSet
from prichexy_train.attacks.tuned import FineTuned
from prichexy_train.attacks.validating import Validated, combined, weights
from prichexy_train.measures.retrieval import Found, retrieve
from prichexy_train.randomness import numpy_generator
from prichexy_train.records import find_record, record_name
from prichexy_train.runs import RunFolder
from prichexy_train.trained import load_verifier

__all__ = ["Search", "SearchWith"]

#: Whose likeness is searched by.
SearchWith = Literal["frozen", "fine-tuned", "fresh-mixed", "imagenet-features", "ensemble"]

#: The rungs whose networks are searched with.
_TRAINS: Final[Mapping[SearchWith, Rung]] = {
    "fresh-mixed": FreshVerifier("mixed"),
    "fine-tuned": FineTuned(),
}
_QUERIES: Final = 64


class Search(Rung):
    """Every anonymised test image of a patient with another one looks for that patient.

    The gallery is all real test images but the query's own original, what is nearly the same
    picture, and patients of the next serial numbers, in an order drawn at random, for the order
    decides between equal likenesses. ``fine-tuned`` and ``fresh-mixed`` are the networks that
    rungs 4 and 2 trained, where these ran before.
    """

    number = 9

    def __init__(self, by: SearchWith) -> None:
        self.by = by
        self.name = f"retrieval-{by}"
        self.role = "baseline" if by == "imagenet-features" else "attack"
        self.rests_on = frozenset({_TRAINS[by].name} if by in _TRAINS else ())
        self._by_features = by in {"imagenet-features", "ensemble"}

    def learns(self, settings: AttackSettings) -> Learning:
        """Say what the mean of ImageNet features needs, where they are searched by."""
        return "means" if self._by_features and settings.features is not None else "nothing"

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
        networks = {
            f"{'frozen' if self.by == 'ensemble' else self.by} {number}": _verifier(target, run)
            for number, run in enumerate(self._runs(target, workplace), start=1)
        }
        found: dict[str, Retrieval] = {}
        shares: dict[str, Mapping[str, float]] = {}
        for name, tested in target.sets.items():
            members: dict[str, Comparator] = {**networks}
            if self._by_features and target.settings.features is not None:
                members[f"{FEATURES} 1"] = centred_features(target, name)
            shares[name], on_validation = _shares(target, name, members)
            retrieval = _searched(target, tested, members, shares[name], workplace)
            found[name] = replace(retrieval, validated=on_validation)
        several = self.by == "ensemble"
        return Attempt(retrievals=found, shares=shares if several else {})

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
            attacker = _TRAINS[self.by]
            names = (
                record_name(attacker.number, attacker.name, workplace.seed, key)
                for key in target.tests
            )
            if not all(find_record(workplace.run, name) for name in names):
                raise NotApplicable(f"{self.by} was not trained with seed {workplace.seed}")
            # The attack came here from another machine, where the network was left behind.
            attacker.attack(target, replace(workplace, rung=attacker.name))
        return (run,)


def _shares(
    target: Target, of: str, members: Mapping[str, Comparator]
) -> tuple[dict[str, float], Validated | None]:
    """Give each member's share in the likeness, with its sign, and what they reach in validation.

    All together, by their shares, before the sign that follows from it.
    """
    key = target.validation_key(of)
    if key not in target.scored:
        return weights(dict.fromkeys(members)), None
    batch_size = target.settings.batch_size
    found = {
        name: score(one, target.first, target.second, target.scored[key], batch_size=batch_size)
        for name, one in members.items()
    }
    shares = dict.fromkeys(found, 1.0)
    if len(found) > 1:
        shares = weights({name: target.validated(of, {key: one}) for name, one in found.items()})
    together = target.validated(of, {key: combined(found, shares)})
    sign = 1 if together is None else together.sign
    return {name: sign * share for name, share in shares.items()}, together


def _searched(
    target: Target,
    tested: TestedSet,
    members: Mapping[str, Comparator],
    shares: Mapping[str, float],
    workplace: Workplace,
) -> Retrieval:
    gallery, queries = _sides(target, tested)
    patients = target.pool.patients
    batch_size = target.settings.batch_size
    embedded = [
        (
            comparator,
            shares[name],
            embed_rows(comparator, target.first, queries, "first", batch_size),
            embed_rows(comparator, target.second, gallery, "second", batch_size),
        )
        for name, comparator in members.items()
        if shares[name]
    ]
    parts: list[Found] = []
    looked_through = 0
    for start in range(0, len(queries), _QUERIES):
        if workplace.late:
            raise NotInTime
        rows = queries[start : start + _QUERIES]
        some = [(one, share, a[start : start + _QUERIES], b) for one, share, a, b in embedded]
        who, whose, out = (
            torch.from_numpy(values).to(target.device)
            for values in (patients[rows], patients[gallery], _left_out(target, rows, gallery))
        )
        looked_through += int((~out).sum())
        parts.append(retrieve(likeness(some), who, whose, out))
    return Retrieval(Found.joined(parts), patients[queries], round(looked_through / len(queries)))


def _left_out(
    target: Target, queries: NDArray[np.int64], gallery: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Say (queries, gallery) what a query is not to find, nor to be blamed for finding.

    What is (nearly) its own picture; and other patients whose serial number is the one before or
    after its patient's: they may be one person.
    """
    pictures, patients = target.pool.pictures, target.pool.patients
    mine, theirs = target.pool.serials[queries][:, None], target.pool.serials[gallery][None]
    series = (mine[..., 0] >= 0) & (mine[..., 0] == theirs[..., 0])
    neighbours = series & (np.abs(mine[..., 1] - theirs[..., 1]) == 1)
    same = patients[queries][:, None] == patients[gallery]
    same_picture = pictures[queries][:, None] == pictures[gallery]
    out: NDArray[np.bool_] = same_picture | (neighbours & ~same)
    return out


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
