"""An experiment: one file that names all trainings, methods and measurements of a table.

The file is read into steps, each of which a subcommand could take as well. See
train/configs/experiments.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from prichexy_train.data.prepared import PREPARED
from prichexy_train.errors import Misconfigured
from prichexy_train.settings import Section, flat

__all__ = [
    "Curve",
    "Evaluation",
    "Experiment",
    "MethodEntry",
    "Places",
    "SetEntry",
    "Stage",
    "Step",
    "TrainEntry",
    "Variant",
    "steps_of",
]

Stage = Literal[
    "prepare",
    "verifier",
    "classifier",
    "pretrain",
    "anonymizer",
    "attack",
    "utility",
    "trial",
    "report",
]
Trained = Literal["verifier", "classifier", "pretrain", "anonymizer"]

#: Of steps, methods and sets: parts of a folder's name.
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,60}$")]
#: Settings that take the place of the configuration file's, as nested tables.
Change = dict[str, Any]

#: Of a learning curve: a part of the training patients.
Share = Annotated[float, Field(gt=0, le=1)]

_RUN: Final = "run:"
#: What the names of a learning curve's trainings and run folders begin with.
_CURVE: Final = "curve-"


class SetEntry(Section):
    """A set of radiographs: the table ``[sets.NAME]``; NAME is the set's own."""

    #: Of ``prepare``, beside the experiment's file.
    config: Path
    change: Change = Field(default_factory=dict)


class TrainEntry(Section):
    """A training: the table ``[train.NAME]``. Its run folder is called NAME."""

    stage: Trained
    config: Path
    change: Change = Field(default_factory=dict)
    #: Settings that name the runs of other trainings, such as ``"critics.classifier"``.
    uses: dict[str, Name | tuple[Name, ...]] = Field(default_factory=dict)
    #: The sets it learns from, as one pool; left out: all.
    data: tuple[Name, ...] | None = None


class MethodEntry(Section):
    """A method of the table: ``[method.NAME]``."""

    #: As ``attack --method`` takes it; ``run:NAME`` names one of the trainings.
    method: str
    #: Settings of the attack on this method alone, such as fewer rungs or seeds.
    change: Change = Field(default_factory=dict)


class Evaluation(Section):
    """How methods are measured: the tables ``[attack]`` and ``[utility]``."""

    config: Path
    change: Change = Field(default_factory=dict)
    #: For the attack: trainings of strong verifiers. Several are an ensemble.
    verifiers: tuple[Name, ...] = ()
    #: For utility: the training of the classifier.
    classifier: Name | None = None
    #: For utility: another classifier where this set alone is tested.
    classifier_of: dict[Name, Name] = Field(default_factory=dict)


class Variant(Section):
    """One change of a learning curve's verifier: the table ``[curve.variants.NAME]``."""

    change: Change = Field(default_factory=dict)
    #: The sets it learns from; left out: those of the curve's verifier.
    data: tuple[Name, ...] | None = None


class Curve(Section):
    """A verifier's learning curve over data and time: the table ``[curve]``.

    Each share and each variant is a training of its own, tested on the real pairs of the attacks.
    The training with all patients is what variants are compared with.
    """

    #: Whose configuration the curve has: a training of a verifier. It is not one of the points.
    of: Name
    change: Change = Field(default_factory=dict)
    #: Of the training patients, ascending; a smaller share's are among a larger one's.
    shares: tuple[Share, ...] = (0.125, 0.25, 0.5, 1.0)
    variants: dict[Name, Variant] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _ends_with_all_patients(self) -> Self:
        if list(self.shares) != sorted(set(self.shares)) or self.shares[-1:] != (1.0,):
            raise ValueError("shares: are not ascending parts of the patients up to 1.0")
        if twice := {f"{share:g}" for share in self.shares} & self.variants.keys():
            raise ValueError(f"variants: {min(twice)} is a share's name")
        return self


class Experiment(Section):
    """A whole file of train/configs/experiments."""

    name: Name
    title: str
    sets: Annotated[dict[Name, SetEntry], Field(min_length=1)]
    #: What is tested by itself: pools of sets; left out: each set alone.
    tested: tuple[tuple[Name, ...], ...] = ()
    #: Sets whose images may be shown in the report. Off unless their licence allows it.
    examples: tuple[Name, ...] = ()
    #: Keep anonymised images when a method has been measured: gigabytes for each on a large set.
    keep_anonymised: bool = False
    train: dict[Name, TrainEntry]
    method: Annotated[dict[Name, MethodEntry], Field(min_length=1)]
    attack: Evaluation
    utility: Evaluation
    curve: Curve | None = None

    @model_validator(mode="after")
    def _names_what_there_is(self) -> Self:
        wanted: list[tuple[str, str]] = [("examples", name) for name in self.examples]
        wanted += [("tested", name) for pool in self.tested for name in pool]
        for key, entry in self.train.items():
            wanted += [(f"train.{key}.data", name) for name in entry.data or ()]
        if self.curve is not None:
            for key, variant in self.curve.variants.items():
                wanted += [(f"curve.variants.{key}.data", name) for name in variant.data or ()]
        for place, name in wanted:
            if name not in self.sets:
                raise ValueError(f"{place}: there is no set {name}")
        for place, name in self._trainings_named():
            if name not in self.train:
                raise ValueError(f"{place}: there is no training {name}")
        if self.utility.classifier is None:
            raise ValueError("utility.classifier: is needed")
        if self.curve is not None:
            if self.train[self.curve.of].stage != "verifier":
                raise ValueError(f"curve.of: {self.curve.of} is no training of a verifier")
            if taken := [name for name in self.train if name.startswith(_CURVE)]:
                raise ValueError(f"train.{taken[0]}: {_CURVE}… are the trainings of the curve")
        return self

    def _trainings_named(self) -> Iterator[tuple[str, str]]:
        for key, entry in self.train.items():
            for used in entry.uses.values():
                yield from ((f"train.{key}.uses", name) for name in _several(used))
        for key, method in self.method.items():
            if method.method.startswith(_RUN):
                yield f"method.{key}.method", method.method.removeprefix(_RUN)
        yield from (("attack.verifiers", name) for name in self.attack.verifiers)
        if self.curve is not None:
            yield "curve.of", self.curve.of
        classifiers = [self.utility.classifier, *self.utility.classifier_of.values()]
        yield from (("utility.classifier", name) for name in classifiers if name is not None)


@dataclass(frozen=True)
class Places:
    """Where an experiment reads and writes.

    ``data`` holds a folder a set, or is the one prepared set itself; ``sources`` the radiographs
    to prepare, by set.
    """

    config: Path
    data: Path
    runs: Path
    report: Path
    sources: Mapping[str, Path]

    def prepared(self, name: str, *, alone: bool) -> Path:
        """Give the folder of a prepared set; ``alone``: whether the experiment has one only."""
        itself = alone and (self.data / PREPARED).is_file()
        return self.data if itself else self.data / name


@dataclass(frozen=True)
class Step:
    """One thing to be done, with all that its subcommand would be told.

    ``folder`` is where it writes: its run folder, the prepared set, the report. ``needs`` are the
    names of steps that must be finished before. The last fields are of ``attack``, ``utility``,
    ``trial`` and ``prepare`` only.
    """

    name: str
    stage: Stage
    folder: Path
    needs: tuple[str, ...] = ()
    config: Path | None = None
    changes: tuple[str, ...] = ()
    data: tuple[Path, ...] = ()
    method: str = ""
    verifiers: tuple[Path, ...] = ()
    classifier: Path | None = None
    anonymised: Path | None = None
    source: Path | None = None


def steps_of(experiment: Experiment, places: Places) -> tuple[Step, ...]:
    """Give the steps in an order in which each comes after those that it needs.

    The table's rows follow each other as in the file, each with its trainings just before it: who
    stops early has whole rows, those that the file names first.

    Raises Misconfigured when trainings need each other in a circle, and when a source is given
    for a set that there is not.
    """
    if unknown := sorted(places.sources.keys() - experiment.sets.keys()):
        raise Misconfigured(f"--source {unknown[0]}=…: the experiment has no such set")
    plan = _Plan(experiment, places)
    curve = (*plan.curve_trainings(), *plan.trials())
    return (*plan.preparations(), *plan.rows(), *curve, plan.report())


class _Plan:
    """The steps of one experiment in one place."""

    def __init__(self, experiment: Experiment, places: Places) -> None:
        self._of = experiment
        self._places = places
        self._base = places.config.parent
        self._tested = experiment.tested or tuple((name,) for name in experiment.sets)

    def preparations(self) -> Iterator[Step]:
        for name, entry in self._of.sets.items():
            yield Step(
                name=_prepare(name),
                stage="prepare",
                folder=self._prepared(name),
                config=self._base / entry.config,
                changes=_changes(entry.change),
                source=self._places.sources.get(name),
            )

    def trainings(self) -> Iterator[Step]:
        for name in _in_order({key: _used(entry) for key, entry in self._of.train.items()}):
            entry = self._of.train[name]
            sets = entry.data or tuple(self._of.sets)
            runs = {key: self._folders(_several(used)) for key, used in entry.uses.items()}
            named = {
                key: runs[key][0] if isinstance(used, str) else runs[key]
                for key, used in entry.uses.items()
            }
            yield Step(
                name=name,
                stage=entry.stage,
                folder=self._places.runs / name,
                needs=(*map(_prepare, sets), *_used(entry)),
                config=self._base / entry.config,
                changes=(*_changes(entry.change), *_changes(named)),
                data=tuple(map(self._prepared, sets)),
            )

    def measurements(self) -> Iterator[Step]:
        for name, entry in self._of.method.items():
            trained = entry.method.removeprefix(_RUN) if entry.method.startswith(_RUN) else None
            text = entry.method if trained is None else f"{_RUN}{self._places.runs / trained}"
            before = () if trained is None else (trained,)
            for sets in self._tested:
                what = self._tested_on(name, sets)
                data = tuple(map(self._prepared, sets))
                needs = (*map(_prepare, sets), *before)
                images = self._places.runs / "anonymised" / what
                attack, utility = self._of.attack, self._of.utility
                yield Step(
                    name=f"attack-{what}",
                    stage="attack",
                    folder=self._places.runs / f"attack-{what}",
                    needs=(*needs, *attack.verifiers),
                    config=self._base / attack.config,
                    changes=(*_changes(attack.change), *_changes(entry.change)),
                    data=data,
                    method=text,
                    verifiers=self._folders(attack.verifiers),
                    anonymised=images,
                )
                classifier = self._classifier(sets)
                yield Step(
                    name=f"utility-{what}",
                    stage="utility",
                    folder=self._places.runs / f"utility-{what}",
                    needs=(*needs, classifier),
                    config=self._base / utility.config,
                    changes=_changes(utility.change),
                    data=data,
                    method=text,
                    classifier=self._places.runs / classifier,
                    anonymised=images,
                )

    def rows(self) -> Iterator[Step]:
        """Give the measurements, each after the trainings that it needs; then all others."""
        left = {step.name: step for step in self.trainings()}

        def needed(step: Step) -> Iterator[Step]:
            for name in step.needs:
                if name in left:
                    training = left.pop(name)
                    yield from needed(training)
                    yield training

        for step in self.measurements():
            yield from needed(step)
            yield step
        yield from left.values()

    def curve_trainings(self) -> Iterator[Step]:
        """Give a training for each share of the patients and each variant of a learning curve."""
        curve = self._of.curve
        if curve is None:
            return
        entry = self._of.train[curve.of]
        points: dict[str, tuple[Change, tuple[str, ...] | None]] = {
            f"{share:g}": ({"share_of_patients": share} if share < 1 else {}, None)
            for share in curve.shares
        }
        points |= {name: (one.change, one.data) for name, one in curve.variants.items()}
        for name, (change, data) in points.items():
            sets = data or entry.data or tuple(self._of.sets)
            yield Step(
                name=f"{_CURVE}{name}",
                stage="verifier",
                folder=self._places.runs / f"{_CURVE}{name}",
                needs=tuple(map(_prepare, sets)),
                config=self._base / entry.config,
                changes=(*_changes(entry.change), *_changes(curve.change), *_changes(change)),
                data=tuple(map(self._prepared, sets)),
            )

    def trials(self) -> Iterator[Step]:
        """Give the tests of a learning curve's trainings, each on the pairs of the attacks."""
        attack = self._of.attack
        for training in self.curve_trainings():
            for sets in self._tested:
                what = self._tested_on(training.name, sets)
                yield Step(
                    name=f"trial-{what}",
                    stage="trial",
                    folder=self._places.runs / f"trial-{what}",
                    needs=(*map(_prepare, sets), training.name),
                    config=self._base / attack.config,
                    changes=_changes(attack.change),
                    data=tuple(map(self._prepared, sets)),
                    method="real",
                    verifiers=(training.folder,),
                )

    def report(self) -> Step:
        measured = tuple(step.name for step in (*self.measurements(), *self.trials()))
        sets = tuple(map(self._prepared, self._of.sets))
        return Step("report", "report", self._places.report, needs=measured, data=sets)

    def _tested_on(self, name: str, sets: Sequence[str]) -> str:
        return name if len(self._tested) == 1 else f"{name}-on-{'-'.join(sets)}"

    def _classifier(self, sets: Sequence[str]) -> str:
        utility = self._of.utility
        special = utility.classifier_of.get(sets[0]) if len(sets) == 1 else None
        return special or str(utility.classifier)

    def _prepared(self, name: str) -> Path:
        return self._places.prepared(name, alone=len(self._of.sets) == 1)

    def _folders(self, names: Sequence[str]) -> tuple[Path, ...]:
        return tuple(self._places.runs / name for name in names)


def _prepare(name: str) -> str:
    return f"prepare-{name}"


def _several(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _used(entry: TrainEntry) -> tuple[str, ...]:
    return tuple(name for used in entry.uses.values() for name in _several(used))


def _in_order(uses: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Give the names in the file's order, but each after those that it uses."""
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> Iterator[str]:
        if name in above:
            circle = " uses ".join((*above[above.index(name) :], name))
            raise Misconfigured(f"train: {circle}: none of them can be the first")
        if name in done:
            return
        for used in uses[name]:
            yield from visit(used, (*above, name))
        done.add(name)
        yield name

    for name in uses:
        yield from visit(name, ())


def _changes(change: Mapping[str, Any]) -> tuple[str, ...]:
    """Give nested settings in the form that ``--set`` takes."""
    return tuple(f"{key}={_literal(value)}" for key, value in flat(change).items())


def _literal(value: Any) -> str:
    # JSON's texts, numbers, booleans and lists are TOML's; what TOML wants escaped beyond JSON
    # no path or setting holds.
    return re.sub("\x7f", r"\\u007f", json.dumps(value, ensure_ascii=False, default=str))
