"""One step of adversarial training, as published, as functions of networks and a batch.

For a pair (x1, x2) only x1 is anonymised. The generator learns from critics that hold still;
then each critic learns from the image that the generator has just made, which it cannot change
any more. No function here reads a value back from the device, so a GPU is never waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

from prichexy_model.losses import (
    paper_privacy,
    rank_privacy,
    verification_bce,
)
from prichexy_train.optimizers import descend
from prichexy_train.parallel import gather_rows
from prichexy_train.settings import Section
from prichexy_train.stages.critics import frozen
from prichexy_train.stages.known_labels import label_loss

__all__ = [
    "Batch",
    "Objective",
    "Optimizers",
    "Players",
    "Privacy",
    "adversarial_step",
]

#: "paper": mean of -log(1 - σ(logit)) over all pairs. A shift of every logit by one number drives
#: it to zero and leaves the attacker's ranking, and so the AUC, untouched.
#: "rank": how often a positive pair's logit is above a negative one's, which is what an AUC counts.
Privacy = Literal["paper", "rank"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Pairs of images: ``first`` and ``second`` (B, 1, S, S) in [0, 1], on the networks' device.

    ``same`` (B,) is 1 where both show one patient, else 0; ``labels`` (B, L) are those of
    ``first``, 0 or 1. ``known`` (B, L) says which of them are known; None: all.
    """

    first: Tensor
    second: Tensor
    same: Tensor
    labels: Tensor
    known: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Players:
    """The networks of the game.

    ``anonymizer`` gives images for images; each of ``verifiers``, one or more, gives logits (B,)
    for two batches of images; ``classifier`` gives logits (B, L).
    """

    anonymizer: nn.Module
    verifiers: Sequence[nn.Module]
    classifier: nn.Module

    @property
    def critics(self) -> tuple[nn.Module, ...]:
        """Give the verifiers and the classifier."""
        return (*self.verifiers, self.classifier)


@dataclass(frozen=True, slots=True)
class Optimizers:
    """What changes the weights of each player, in the order of ``Players``."""

    anonymizer: Optimizer
    verifiers: Sequence[Optimizer]
    classifier: Optimizer

    @property
    def all(self) -> tuple[Optimizer, ...]:
        """Give them all, in that order."""
        return (self.anonymizer, *self.verifiers, self.classifier)


class Objective(Section):
    """What the generator is after: the table ``[objective]``; the paper's unless told otherwise."""

    privacy: Privacy = "paper"
    #: What the two losses weigh: mu bounds the damage to an image, these the damage to diagnoses.
    privacy_weight: Annotated[float, Field(ge=0)] = 1.0
    classification_weight: Annotated[float, Field(ge=0)] = 1.0

    def privacy_loss(self, logits: Tensor, same: Tensor) -> Tensor:
        """Give the loss of one verifier's ``logits`` (B,)."""
        if self.privacy == "paper":
            return paper_privacy(logits)
        # Over the pairs of all processes: a share of them ranks fewer pairs with each other.
        return rank_privacy(gather_rows(logits), gather_rows(same))

    def losses(
        self,
        verified: Sequence[Tensor],
        classified: Tensor,
        same: Tensor,
        labels: Tensor,
        known: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Give ``total``, which the generator minimises, and its parts.

        ``privacy`` is the mean over the verifiers, whose logits (B,) are ``verified``;
        ``classification`` belongs to the classifier's logits ``classified`` (B, L), over the
        ``labels`` that are ``known``. Scalars in single precision at least.
        """
        privacy = torch.stack([self.privacy_loss(logits, same) for logits in verified]).mean()
        classification = label_loss(classified, labels, known)
        total = self.privacy_weight * privacy + self.classification_weight * classification
        return {"total": total, "privacy": privacy, "classification": classification}


def _as_it_is(images: Tensor, purpose: str) -> Tensor:  # noqa: ARG001
    return images


def adversarial_step(
    players: Players,
    optimizers: Optimizers,
    batch: Batch,
    objective: Objective,
    precision: Callable[[], AbstractContextManager[object]],
    clip: float | None = None,
    vary: Callable[[Tensor, str], Tensor] = _as_it_is,
) -> dict[str, Tensor]:
    """Change every player's weights once, in the paper's order, and give the losses before.

    The generator, its critics in eval mode and without a gradient for their weights; then each
    verifier, then the classifier, in train mode, on the same anonymised images, detached.
    ``precision`` gives the context in which networks run; losses are computed outside it.
    ``clip`` limits the norm of each network's gradient; ``vary`` changes the images that a critic
    learns from, and is told for what. With several processes ``batch`` is this one's share. The
    losses (``total``, ``privacy``, ``classification``, ``verifier``, ``classifier``) are detached
    scalars on the device.
    """
    players.anonymizer.train()
    with precision():
        anonymised = players.anonymizer(batch.first)
    with frozen(*players.critics):
        with precision():
            verified = [verifier(anonymised, batch.second) for verifier in players.verifiers]
            classified = players.classifier(anonymised)
        losses = objective.losses(verified, classified, batch.same, batch.labels, batch.known)
        descend(losses["total"], players.anonymizer, optimizers.anonymizer, clip)
    anonymised = anonymised.detach()

    against: list[Tensor] = []
    for verifier, optimizer in zip(players.verifiers, optimizers.verifiers, strict=True):
        verifier.train()
        first, second = vary(anonymised, "first"), vary(batch.second, "second")
        with precision():
            logits = verifier(first, second)
        loss = verification_bce(logits, batch.same)
        descend(loss, verifier, optimizer, clip)
        against.append(loss.detach())

    players.classifier.train()
    varied = vary(anonymised, "classes")
    with precision():
        logits = players.classifier(varied)
    loss = label_loss(logits, batch.labels, batch.known)
    descend(loss, players.classifier, optimizers.classifier, clip)

    losses = {name: value.detach() for name, value in losses.items()}
    return losses | {"verifier": torch.stack(against).mean(), "classifier": loss.detach()}
