"""What ``prichexy-train attack`` is told: which attackers, how they train, how often."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from prichexy_train.augment import Augmentation
from prichexy_train.data.settings import PairName
from prichexy_train.settings import Device, ImageNetWeights, Section, Training
from prichexy_train.stages.verifier import Contrast, VerifierNetwork, VerifierSettings

__all__ = [
    "AttackSettings",
    "FeatureSettings",
    "FineTuning",
    "RegistrationSettings",
    "RetrievalSettings",
    "RungNumber",
    "TrainedOn",
    "UndoingSettings",
]

RungNumber = Annotated[int, Field(ge=0, le=9)]
#: "anonymised": both images of a pair; "mixed": the first anonymised, the second real, as tested.
TrainedOn = Literal["anonymised", "mixed"]


class FineTuning(Section):
    """How a strong verifier learns on: the table ``[tuning]``. The network is its own."""

    objective: Literal["pairs", "contrastive"] = "pairs"
    trained_on: TrainedOn = "mixed"
    monitor: Literal["loss", "auc"] = "loss"
    contrast: Contrast = Contrast()
    augmentation: Augmentation = Augmentation()
    training: Training = Training(batch_size=32, patience=5, learning_rate=1e-5)


class FeatureSettings(Section):
    """An ImageNet network that has seen no radiograph: the table ``[features]``."""

    changeable = frozenset({"pretrained"})

    backbone: str = "efficientnet-lite0"
    #: Random ones see little.
    pretrained: ImageNetWeights = None
    #: Rows and columns that images are resized to.
    size: Annotated[int, Field(ge=16)] = 224
    #: Of how many training images of a set, at the most, the mean features are taken.
    mean_of: Annotated[int, Field(ge=1)] = 1000


class UndoingSettings(Section):
    """Estimating the deformation with the public generator: the table ``[undoing]``."""

    #: Times the generator is asked about the estimate so far.
    rounds: Annotated[int, Field(ge=1)] = 4
    #: Of the fixed-point iteration that inverts a displacement.
    steps: Annotated[int, Field(ge=1)] = 20


class RegistrationSettings(Section):
    """Registering the first image to the second: the table ``[registration]``."""

    #: Control points along each axis.
    cells: Annotated[int, Field(ge=2)] = 8
    #: Rows and columns at which the images are compared.
    size: Annotated[int, Field(ge=16)] = 64
    steps: Annotated[int, Field(ge=1)] = 40
    #: About how far a step moves a control point, in normalised coordinates.
    rate: Annotated[float, Field(gt=0)] = 0.01
    #: Weight of the squared differences of neighbouring control points.
    stiffness: Annotated[float, Field(ge=0)] = 0.1


class RetrievalSettings(Section):
    """Searching the gallery: the table ``[retrieval]``."""

    #: The most queries, drawn from the test images of patients with several; left out: all.
    queries: Annotated[int, Field(ge=1)] | None = None


class AttackSettings(Section):
    """The whole configuration file of ``prichexy-train attack``."""

    changeable = frozenset({"device", "rungs", "seeds", "control_seeds", "shortcuts", "batch_size"})
    later = frozenset({"shortcuts"})

    #: Rungs of the ladder; 0 stands for baselines and controls.
    rungs: tuple[RungNumber, ...] = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
    #: Trainings of each attacker.
    seeds: Annotated[int, Field(ge=1)] = 5
    #: Trainings of the control with shuffled identities, which costs as much as an attacker; 0
    #: leaves it out, and it alone.
    control_seeds: Annotated[int, Field(ge=0)] = 2
    #: Ask what the strong verifiers look at, too: real images only, and nothing is trained for it.
    shortcuts: bool = False
    #: All randomness of a run follows from it and the number of the training.
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    #: Of a method that draws at random: how often the images that attackers learn from are drawn.
    #: Epochs take turns. Each draw needs the disk space of all training images that are used.
    draws: Annotated[int, Field(ge=1)] = 4
    #: Lists of pairs that every attacker is tested on; those that the data lack are left out.
    pair_lists: Annotated[tuple[PairName, ...], Field(min_length=1)] = ("test", "test_matched")
    #: Where what needs no training computes.
    device: Device = "auto"
    #: Images at a time, where nothing is trained.
    batch_size: Annotated[int, Field(ge=1)] = 64

    #: The attacker who is trained from nothing (rungs 1, 2) and the control.
    fresh: VerifierSettings = VerifierSettings(training=Training(batch_size=32, patience=5))
    #: The strong verifier that learns on (rung 4).
    tuning: FineTuning = FineTuning()
    #: The other network (rung 6); the rest is as ``fresh`` says. Left out: no rung 6.
    other: VerifierNetwork | None = None
    other_trained_on: TrainedOn = "mixed"
    #: Left out: no such baseline, and none in the ensemble.
    features: FeatureSettings | None = None
    undoing: UndoingSettings = UndoingSettings()
    registration: RegistrationSettings = RegistrationSettings()
    retrieval: RetrievalSettings = RetrievalSettings()
    #: The part of the image's side that counts as its border, where markers are.
    border: Annotated[float, Field(gt=0, lt=0.5)] = 0.1

    @model_validator(mode="after")
    def _is_another(self) -> Self:
        if self.other is not None and self.other.backbone == self.fresh.network.backbone:
            raise ValueError("other.backbone: is the backbone of fresh.network, no other")
        return self
