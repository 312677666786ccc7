"""What a generator is trained against: networks that judge, held still while it learns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import torch
from pydantic import BeforeValidator, Field
from torch import nn

from prichexy_train.settings import Section

__all__ = ["CLASSIFIER", "CriticSettings", "critic_name", "critic_optimizers", "frozen", "is_due"]

#: The classifier's name in ``best.pt``.
CLASSIFIER: Final = "classifier"

Rate = Annotated[float, Field(gt=0)]


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, str | Path) else value


class CriticSettings(Section):
    """The networks to train against: the table ``[critics]``.

    They start from the best weights of finished runs and learn on, with the paper's optimizers.
    """

    changeable = frozenset({"verifiers", "classifier"})

    #: Run folders of ``prichexy-train verifier``. Several, of different backbones or seeds, keep
    #: the generator from learning what fools one network and no other. One may stand alone.
    verifiers: Annotated[tuple[Path, ...], Field(min_length=1), BeforeValidator(_several)]
    #: The run folder of ``prichexy-train classifier``.
    classifier: Path
    #: Set each verifier back to its first weights once in so many epochs, one after the other; 0:
    #: never. A critic that has learned along with the generator has forgotten what it knew of real
    #: images; a fresh attacker has not.
    restart_every: Annotated[int, Field(ge=0)] = 0
    #: Of Adam, for the verifiers.
    verifier_rate: Rate = 1e-4
    #: Of gradient descent, for the classifier.
    classifier_rate: Rate = 1e-4
    classifier_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    classifier_decay: Annotated[float, Field(ge=0)] = 1e-4


def critic_optimizers(
    verifiers: Sequence[nn.Module], classifier: nn.Module, settings: CriticSettings
) -> tuple[list[torch.optim.Optimizer], torch.optim.Optimizer]:
    """Give an optimizer for each verifier, and the classifier's."""
    return (
        [torch.optim.Adam(one.parameters(), lr=settings.verifier_rate) for one in verifiers],
        torch.optim.SGD(
            classifier.parameters(),
            lr=settings.classifier_rate,
            momentum=settings.classifier_momentum,
            weight_decay=settings.classifier_decay,
        ),
    )


def critic_name(number: int) -> str:
    """Give the name in ``best.pt`` of the verifier ``number``, counted from 0."""
    return "verifier" if number == 0 else f"verifier-{number + 1}"


def is_due(critic: int, critics: int, epoch: int, every: int) -> bool:
    """Say whether the verifier ``critic`` of ``critics`` starts anew after ``epoch``.

    Epochs count from 1, critics from 0. Each restarts once in ``every`` epochs, in turns, so that
    they are never all new at once; 0 means never.
    """
    return every > 0 and (epoch - critic * every // critics) % every == 0


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Hold ``networks`` in eval mode, their weights without gradient, while the block runs.

    Gradients still pass through to what the networks are given. Autograd then computes no
    weight's gradient at all, a third of the arithmetic of forward and backward. Afterwards every
    module has its mode, and every weight its ``requires_grad``, from before. Backward belongs
    into the block or after it, never into another that trains the same weights.
    """
    modules = [(module, module.training) for network in networks for module in network.modules()]
    weights = [(weight, weight.requires_grad) for net in networks for weight in net.parameters()]
    try:
        for network in networks:
            network.eval()
        for weight, _ in weights:
            weight.requires_grad_(False)
        yield
    finally:
        for module, training in modules:
            module.training = training
        for weight, required in weights:
            weight.requires_grad_(required)
