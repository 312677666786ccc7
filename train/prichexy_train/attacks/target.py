"""What is attacked: anonymised images of a pool, and what an attacker may know of the method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prichexy_model.anonymizer import Anonymizer
from prichexy_model.methods import Real
from prichexy_train.anonymised import AnonymisedImages, anonymise
from prichexy_train.attacks.settings import AttackSettings
from prichexy_train.attacks.validating import Scores, Validated, validated
from prichexy_train.data.catalogue import Part
from prichexy_train.data.images import Images
from prichexy_train.data.pairs import Pairs
from prichexy_train.data.pool import Pool
from prichexy_train.data.prepared import PreparedSet
from prichexy_train.data.settings import PairName
from prichexy_train.errors import Misconfigured
from prichexy_train.feed import Feed
from prichexy_train.methods_from import ChosenMethod
from prichexy_train.records import MethodOf

__all__ = [
    "Learning",
    "SomeAnonymised",
    "Target",
    "TestedList",
    "TestedSet",
    "anonymised_images",
    "learning_rows",
    "mean_rows",
    "redrawn_images",
    "validation_rows",
]


#: What is looked at of the training images: "means", those of ImageNet features' means alone.
Learning = Literal["nothing", "means", "all"]


@dataclass(frozen=True, slots=True)
class TestedSet:
    """A set of the pool, whose image 0 is the pool's ``start``."""

    prepared: PreparedSet
    start: int

    @property
    def name(self) -> str:
        """Give the set's name."""
        return self.prepared.name

    def rows(self, part: Part) -> NDArray[np.int64]:
        """Give the images of one part, under the pool's numbering."""
        return self.prepared.split(part) + self.start


@dataclass(frozen=True, slots=True)
class TestedList:
    """A list of pairs of one set."""

    of: TestedSet
    name: PairName

    @property
    def pairs(self) -> Pairs:
        """Give the pairs, under the pool's numbering."""
        return self.of.prepared.pairs(self.name).shifted(self.of.start)


@dataclass(frozen=True, eq=False)
class Target:
    """A method of anonymisation as it stands before its attackers.

    ``anonymised`` holds, under the pool's numbering, what the method made of the images: of part
    test and of the validation pairs at least. ``verifiers`` are runs of strong verifiers, trained
    on real images. ``redrawn`` holds, where the method is random, what it made another time, and
    another, of the images that attackers learn from: whoever owns the method is not bound to one
    draw. ``anonymizer``, where the method is a deformation, is the generator, which an attacker
    has: it ships. ``run`` is the run that trained the method, if any, with its critics.
    """

    pool: Pool
    method: MethodOf
    anonymised: Images
    settings: AttackSettings
    device: torch.device
    verifiers: tuple[Path, ...] = ()
    redrawn: tuple[Images, ...] = ()
    anonymizer: Anonymizer | None = None
    run: Path | None = None
    #: What was computed about the target and may be wanted again.
    memory: dict[str, object] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def sets(self) -> Mapping[str, TestedSet]:
        """Give the sets of the pool by name: attackers learn from all, and are tested on each."""
        lengths = [len(prepared.catalogue) for prepared in self.pool.sets]
        return {
            prepared.name: TestedSet(prepared, sum(lengths[:number]))
            for number, prepared in enumerate(self.pool.sets)
        }

    @cached_property
    def tests(self) -> Mapping[str, TestedList]:
        """Give the lists of pairs to be tested on, each of one set, by a name of their own.

        Pairs of several sets are never one list: scores that are higher in one set than in
        another would pass for recognition, or hide it. Raises Misconfigured where a set has none
        of the lists.
        """
        found: dict[str, TestedList] = {}
        for name, tested in self.sets.items():
            wanted = self.settings.pair_lists
            names = [one for one in wanted if one in tested.prepared.pair_names]
            if not names:
                raise Misconfigured(f"{name}: has no list of pairs called {', '.join(wanted)}")
            for one in names:
                key = one if len(self.sets) == 1 else f"{name}.{one}"
                found[key] = TestedList(tested, one)
        return found

    @cached_property
    def lists(self) -> Mapping[str, Pairs]:
        """Give the pairs of ``tests``, under the pool's numbering."""
        return {key: test.pairs for key, test in self.tests.items()}

    @cached_property
    def validations(self) -> Mapping[str, Pairs]:
        """Give each set's validation pairs, under the pool's numbering, by the set's name.

        Their first image is looked at anonymised and their second real, as those of the tests. A
        set without pairs of both kinds in its list, or without the list, is left out.
        """
        wanted = self.settings.fresh.validation_pairs
        found: dict[str, Pairs] = {}
        for name, of in self.sets.items():
            if wanted in of.prepared.pair_names:
                pairs = of.prepared.pairs(wanted).shifted(of.start)
                if pairs.same.any() and not pairs.same.all():
                    found[name] = pairs
        return found

    @cached_property
    def scored(self) -> Mapping[str, Pairs]:
        """Give ``lists``, and the validation pairs by ``validation_key``: all to be scored."""
        of = {self.validation_key(name): pairs for name, pairs in self.validations.items()}
        return {**self.lists, **of}

    def validation_key(self, of: str) -> str:
        """Give the name that the validation pairs of the set ``of`` have in ``scored``."""
        return "validation" if len(self.sets) == 1 else f"{of}.validation"

    def scored_of(self, of: str) -> Mapping[str, Pairs]:
        """Give those of ``scored`` that are of the set ``of``."""
        keys = [key for key, test in self.tests.items() if test.of.name == of]
        if of in self.validations:
            keys.append(self.validation_key(of))
        return {key: self.scored[key] for key in keys}

    def validated(self, of: str, scores: Mapping[str, Scores]) -> Validated | None:
        """Give what ``scores``, by the names of ``scored``, reach in the set ``of``'s validation.

        None where they are not validated.
        """
        key = self.validation_key(of)
        if key not in scores:
            return None
        pairs = self.scored[key]
        patients = self.pool.patients
        return validated(scores[key], pairs.same, patients[pairs.first], patients[pairs.second])

    @property
    def first(self) -> Feed:
        """Give the images of part test and of the validation pairs, anonymised, on the device."""
        return self._feed("first", self.anonymised)

    @property
    def second(self) -> Feed:
        """Give the images of part test and of the validation pairs, real, on the device."""
        return self._feed("second", self.pool.images)

    def _feed(self, side: str, images: Images) -> Feed:
        feed = self.memory.get(side)
        if not isinstance(feed, Feed):
            rows = np.union1d(self.pool.split("test"), _images(*self.validations.values()))
            feed = self.memory[side] = Feed(images, self.device, rows)
        return feed


class SomeAnonymised:
    """Several folders of anonymised images, as one, under the pool's numbering."""

    def __init__(self, parts: Sequence[AnonymisedImages]) -> None:
        self._parts = tuple(parts)

    def __len__(self) -> int:
        """Give the number of images of the pool."""
        return len(self._parts[0])

    @property
    def size(self) -> int:
        """Give rows and columns."""
        return self._parts[0].size

    def gather(self, indices: NDArray[np.int64]) -> Tensor:
        """Give these images; see ``Images``. Raises IndexError for one that was not anonymised."""
        gathered = torch.empty((len(indices), 1, self.size, self.size))
        left = np.ones(len(indices), dtype=np.bool_)
        for part in self._parts:
            here = np.flatnonzero(left & part.holds(indices))
            gathered[torch.from_numpy(here)] = part.gather(indices[here])
            left[here] = False
        if left.any():
            raise IndexError(f"image {int(indices[np.argmax(left)])} was not anonymised")
        return gathered


def learning_rows(pool: Pool, settings: AttackSettings) -> NDArray[np.int64]:
    """Give the images that attackers learn from, ascending: all of part train, or its pairs'.

    The latter where no attacker learns by contrast: so the paper's attackers need a quarter of
    ChestX-ray14's training images anonymised, not all.
    """
    if "contrastive" in {settings.fresh.objective, settings.tuning.objective}:
        return pool.split("train")
    return _images(pool.pairs(settings.fresh.train_pairs))


def mean_rows(pool: Pool, settings: AttackSettings) -> dict[str, NDArray[np.int64]]:
    """Give, by set, the images that the mean ImageNet features are taken of; none without them.

    Of those that attackers learn from, some, evenly over the set, whose order is often one of
    classes.
    """
    most = 0 if settings.features is None else settings.features.mean_of
    known = learning_rows(pool, settings)
    found: dict[str, NDArray[np.int64]] = {}
    start = 0
    for prepared in pool.sets:
        rows = np.intersect1d(known, prepared.split("train") + start)
        start += len(prepared.catalogue)
        some = np.linspace(0, len(rows) - 1, min(len(rows), most), dtype=np.int64)
        found[prepared.name] = rows[some]
    return found


def validation_rows(pool: Pool, settings: AttackSettings) -> NDArray[np.int64]:
    """Give the images of the validation pairs, ascending, of each set that has such a list."""
    wanted = settings.fresh.validation_pairs
    starts = np.cumsum([0, *(len(prepared.catalogue) for prepared in pool.sets)])
    return _images(
        *(
            prepared.pairs(wanted).shifted(int(start))
            for prepared, start in zip(pool.sets, starts, strict=False)
            if wanted in prepared.pair_names
        )
    )


def anonymised_images(
    pool: Pool,
    chosen: ChosenMethod,
    folder: Path,
    *,
    seed: int,
    device: torch.device,
    batch_size: int,
    attackers: AttackSettings | None = None,
    learning: Learning = "nothing",
    deadline: float | None = None,
) -> Images:
    """Give the images of part test anonymised; below ``folder`` they are made if need be.

    For ``attackers`` also those that they are validated on and, as ``learning`` says, those that
    they learn from. Real images are given as they are. Raises NotInTime past ``deadline``, and
    Misconfigured, as ``anonymise``.
    """
    if isinstance(chosen.method, Real):
        return pool.images
    wanted = {"test": pool.split("test")}
    if attackers is not None:
        wanted["validation"] = np.setdiff1d(validation_rows(pool, attackers), wanted["test"])
        known = np.concatenate(list(wanted.values()))
        if learning == "all":
            wanted["learning"] = np.setdiff1d(learning_rows(pool, attackers), known)
        if learning == "means":
            means = np.concatenate(list(mean_rows(pool, attackers).values()))
            wanted["means"] = np.setdiff1d(means, known)
    return SomeAnonymised(
        [
            anonymise(
                pool,
                rows,
                chosen,
                seed,
                folder / name,
                device=device,
                batch_size=batch_size,
                deadline=deadline,
            )
            for name, rows in wanted.items()
            if len(rows)
        ]
    )


def redrawn_images(
    pool: Pool,
    chosen: ChosenMethod,
    folder: Path,
    *,
    seed: int,
    device: torch.device,
    batch_size: int,
    attackers: AttackSettings,
    deadline: float | None = None,
) -> tuple[Images, ...]:
    """Give the images that ``attackers`` learn from as a random method makes them again.

    Once for each draw of the settings but the first, which is ``anonymised_images``'; nothing
    where the method is not random. Raises as ``anonymised_images`` does.
    """
    if not chosen.method.stochastic:
        return ()
    return tuple(
        anonymise(
            pool,
            learning_rows(pool, attackers),
            chosen,
            seed,
            folder / f"learning-draw-{draw}",
            draw=draw,
            device=device,
            batch_size=batch_size,
            deadline=deadline,
        )
        for draw in range(1, attackers.draws)
    )


def _images(*lists: Pairs) -> NDArray[np.int64]:
    pairs = Pairs.joined(lists)
    return np.unique(np.concatenate((pairs.first, pairs.second)))
