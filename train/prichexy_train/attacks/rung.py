"""What every rung of the ladder is: an attacker who gives scores for pairs."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from prichexy_train.attacks.settings import AttackSettings
from prichexy_train.attacks.target import Learning, Target
from prichexy_train.attacks.validating import Scores, Validated
from prichexy_train.measures.retrieval import Found
from prichexy_train.records import Role

__all__ = [
    "Attempt",
    "Interrupted",
    "NotApplicable",
    "OfStrongVerifier",
    "Retrieval",
    "Rung",
    "Scores",
    "Workplace",
    "strong_verifiers",
]


class NotApplicable(Exception):
    """An attack cannot be made here; the text says what it lacks. No failure."""


class Interrupted(Exception):
    """A signal asked to stop; what was done is kept."""


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What was found in a gallery: a value a query in ``found``, and each query's patient.

    ``validated`` says what the likeness that was searched by reached on validation pairs.
    """

    found: Found
    patients: NDArray[np.int64]
    gallery: int
    validated: Validated | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of an attack.

    ``scores`` by the names of ``Target.lists``, or, of an attacker who validates, of
    ``Target.scored``, in the order of the list and as they are: they are turned round where
    validation says so when they are recorded. Of a search, ``retrievals`` by set. ``details``
    stand in the record, and of an ensemble the set's ``shares``: each member's, by name.
    """

    scores: Mapping[str, Scores] = field(default_factory=dict)
    retrievals: Mapping[str, Retrieval] = field(default_factory=dict)
    shares: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    details: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where an attack may write and until when it may work.

    ``folder`` is the attempt's own, ``shared`` is for what several attempts can use, ``run`` is
    the run's, with all records. ``deadline`` is a value of ``clock``.
    """

    run: Path
    rung: str
    seed: int
    deadline: float | None = None
    clock: Callable[[], float] = time.monotonic

    @property
    def folder(self) -> Path:
        """Give the attempt's own folder."""
        return self.beside(self.rung, self.seed)

    def beside(self, rung: str, seed: int) -> Path:
        """Give the folder of another attempt."""
        return self.run / "attempts" / rung / f"seed-{seed}"

    @property
    def shared(self) -> Path:
        """Give the folder for what several attempts can use."""
        return self.run / "attempts"

    @property
    def lock(self) -> Path:
        """Give the file whose lock is held by the one process that makes the attempt."""
        return self.folder.with_suffix(".lock")

    @property
    def late(self) -> bool:
        """Whether the time is over."""
        return self.deadline is not None and self.clock() >= self.deadline


class Rung(ABC):
    """One attack on a method of anonymisation."""

    #: Its place in the ladder; 0 for baselines and controls.
    number: int
    #: What it is called in records and file names.
    name: str
    #: What its figures may be used for.
    role: Role = "attack"
    #: Whether it is made anew at each call, for it rests on the other records.
    anew: bool = False
    #: Names of the rungs whose attempts it uses, or whose files in the shared folder: it is not
    #: tried while another process is at one of them. Its own, where its attempts use one another's.
    rests_on: frozenset[str] = frozenset()

    def learns(self, settings: AttackSettings) -> Learning:  # noqa: ARG002
        """Say which training images, with these settings, it looks at."""
        return "nothing"

    def seeds(self, target: Target) -> Sequence[int]:  # noqa: ARG002
        """Give the numbers of the attempts that differ: one, where nothing is random.

        Raises NotApplicable.
        """
        return (1,)

    @abstractmethod
    def attack(self, target: Target, workplace: Workplace) -> Attempt:
        """Attack and give the scores.

        The attacker sees anonymised images as the first ones of all test pairs and real ones as
        the second; their answers he does not see. Those of validation pairs he sees.
        What is written into the workplace lets the same call go on after NotInTime or a kill.
        Raises NotInTime past the deadline, Interrupted after a signal, NotApplicable.
        """


class OfStrongVerifier(Rung):
    """An attack with a strong verifier, which was trained on real images.

    Each one that is given is one attempt: what differs is how it was trained.
    """

    def seeds(self, target: Target) -> Sequence[int]:
        """Give one number a strong verifier. Raises NotApplicable without one."""
        return range(1, len(strong_verifiers(target)) + 1)


def strong_verifiers(target: Target) -> Sequence[Path]:
    """Give the runs of the strong verifiers. Raises NotApplicable where there is none."""
    if not target.verifiers:
        raise NotApplicable("no strong verifier is given")
    return target.verifiers
