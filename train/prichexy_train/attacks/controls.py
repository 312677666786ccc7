"""Controls, which say whether it is patients that an attacker recognises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from prichexy_train.attacks.comparison import Comparator, OfVerifier, Side
from prichexy_train.attacks.features import scored
from prichexy_train.attacks.fresh import pretrained_digest
from prichexy_train.attacks.rung import (
    Attempt,
    NotApplicable,
    OfStrongVerifier,
    Rung,
    Workplace,
    strong_verifiers,
)
from prichexy_train.attacks.settings import AttackSettings
from prichexy_train.attacks.shortcuts import Part, without
from prichexy_train.attacks.target import Learning, Target
from prichexy_train.attacks.training import (
    attack_with,
    seeded,
    shuffled,
    train_attacker,
    training_data,
)
from prichexy_train.stages.verifier import build_verifier
from prichexy_train.trained import load_verifier

__all__ = ["PartlyHidden", "ShuffledIdentities"]


class ShuffledIdentities(Rung):
    """The fresh attacker of rung 2, taught with patients who were exchanged at random.

    An AUC of 0.5 is expected of a network that had learned nothing. One that began with ImageNet
    weights keeps what they know: images that look alike are alike to it, too.
    """

    number = 0
    name = "shuffled-identities"
    role = "control"

    def learns(self, settings: AttackSettings) -> Learning:
        """Say that it is all, where there is a training of it."""
        return "all" if settings.control_seeds else "nothing"

    def seeds(self, target: Target) -> Sequence[int]:
        """Give as many as the settings say. Raises NotApplicable where that is none."""
        if not target.settings.control_seeds:
            raise NotApplicable("the settings ask for no training of it: control_seeds is 0")
        return range(1, target.settings.control_seeds + 1)

    def attack(self, target: Target, workplace: Workplace) -> Attempt:
        """Train, then score with the true answers; see ``Rung``."""
        settings = seeded(target.settings.fresh, target, workplace)
        verifier, details = train_attacker(
            target,
            settings,
            shuffled(training_data(target, settings, "mixed"), settings.training.seed),
            workplace,
            begin=lambda: build_verifier(settings.network, settings.training.seed),
            read=pretrained_digest(settings),
        )
        return attack_with(target, verifier, details)


class PartlyHidden(OfStrongVerifier):
    """A strong verifier that does not see one part of the images.

    ``border``, where markers and collimators are: were it much worse without, it would recognise
    a department's habits. ``centre``: how far does the border alone go?
    """

    number = 0
    role = "control"

    def __init__(self, hidden: Part) -> None:
        self.hidden: Part = hidden
        self.name = "without-border" if hidden == "border" else "border-alone"

    def attack(self, target: Target, workplace: Workplace) -> Attempt:
        """Paint the part over, then score; see ``Rung``."""
        run = strong_verifiers(target)[workplace.seed - 1]
        inner = OfVerifier(load_verifier(run).to(target.device))
        width = target.settings.border
        return Attempt(
            scored(target, _Blinkered(inner, self.hidden, width)),
            details={"verifier": run.name, "border": width},
        )


@dataclass(frozen=True)
class _Blinkered:
    """A comparator that is shown a part of each image."""

    inner: Comparator
    hidden: Part
    width: float

    def embed(self, images: Tensor, side: Side) -> Tensor:
        return self.inner.embed(without(images, self.hidden, self.width), side)

    def compare(self, a: Tensor, b: Tensor) -> Tensor:
        return self.inner.compare(a, b)

    def across(self, a: Tensor, b: Tensor) -> Tensor:
        return self.inner.across(a, b)
