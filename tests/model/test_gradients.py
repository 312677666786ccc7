"""The networks' gradients agree with finite differences in float64, alone and in one chain.

Those of the operator, the losses and the resizing stand beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from prichexy_model.anonymizer import Anonymizer
from prichexy_model.classifier import AbnormalityClassifier
from prichexy_model.flow import Border
from prichexy_model.generator import build_generator
from prichexy_model.initial import initial_weights
from prichexy_model.losses import (
    classification_bce,
    paper_privacy,
    rank_privacy,
    rank_scale,
    verification_bce,
)
from prichexy_model.privacynet import PrivacyNet
from prichexy_model.verifier import HEADS, Head, SiameseVerifier

SAME = torch.tensor([True, False, True, False])


@pytest.fixture(autouse=True)
def _same_weights_every_time() -> None:
    torch.manual_seed(5)


def images(batch: int, size: int, seed: int = 0) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.rand(batch, 1, size, size, generator=source, dtype=torch.float64)


def slopes_agree(loss: Callable[[], Tensor], values: Sequence[Tensor], step: float) -> bool:
    """Tell whether ``loss`` changes along a random direction as its gradient says.

    ``step`` is the way gone forth and back, in all values together: so short that no ReLU flips.
    """
    source = torch.Generator().manual_seed(11)
    directions = [
        torch.randn(value.shape, generator=source, dtype=torch.float64) for value in values
    ]
    length = sum(direction.square().sum().item() for direction in directions) ** 0.5
    gradients = torch.autograd.grad(loss(), values)
    told = sum((g * d).sum().item() for g, d in zip(gradients, directions, strict=True)) / length
    start = [value.detach().clone() for value in values]
    ends = []
    for sign in (1, -1):
        with torch.no_grad():
            for value, origin, direction in zip(values, start, directions, strict=True):
                value.copy_(origin + sign * step / length * direction)
            ends.append(loss().item())
    seen = (ends[0] - ends[1]) / (2 * step)
    return abs(seen) > 1e-6 and seen == pytest.approx(told, rel=1e-4)


@pytest.mark.parametrize("head", HEADS)
def test_the_siamese_verifiers_gradients_to_both_images(head: Head) -> None:
    verifier = SiameseVerifier("tiny", head, embedding=8, size=16).double()
    pair = images(4, 8).requires_grad_(), images(4, 8, seed=1).requires_grad_()
    assert slopes_agree(lambda: verification_bce(verifier(*pair), SAME), pair, 1e-5)
    verifier.eval()
    one = tuple(image[:1].detach().requires_grad_() for image in pair)
    assert torch.autograd.gradcheck(verifier, one)


@pytest.mark.parametrize("head", HEADS)
def test_the_siamese_verifiers_gradients_to_its_parameters(head: Head) -> None:
    verifier = SiameseVerifier("tiny", head, embedding=8, size=16).double()
    parameters = list(verifier.parameters())
    loss = lambda: verification_bce(verifier(images(4, 16), images(4, 16, seed=1)), SAME)  # noqa: E731
    assert slopes_agree(loss, parameters, 1e-5)


def test_privacy_nets_gradients_to_image_and_parameters() -> None:
    network = PrivacyNet().double()
    batch = images(2, 16)
    assert slopes_agree(lambda: network(batch).square().mean(), list(network.parameters()), 1e-5)
    network.eval()
    one = images(1, 8).requires_grad_()
    assert torch.autograd.gradcheck(network, (one,))


@pytest.mark.parametrize(("border", "privacy"), [("paper", "paper"), ("corrected", "rank")])
def test_the_generators_gradient_through_operator_critics_and_losses(
    border: Border, privacy: str
) -> None:
    generator = build_generator()
    generator.load_state_dict(initial_weights())
    anonymizer = Anonymizer(generator, mu=0.05, border=border, size=16).double()
    verifier = SiameseVerifier("tiny", embedding=8, size=16).double()
    classifier = AbnormalityClassifier("tiny", ["a", "b"], size=14).double()
    x1, x2 = images(4, 16), images(4, 16, seed=1)
    for critic in (verifier, classifier):
        _settle(critic, x1)
    labels = torch.tensor([[0, 1], [1, 0], [0, 0], [1, 1]])

    # Held, as no gradient runs through it.
    scale = rank_scale(verifier(anonymizer(x1), x2), SAME)

    def loss() -> Tensor:
        made = anonymizer(x1)
        logits = verifier(made, x2)
        hidden = paper_privacy(logits) if privacy == "paper" else rank_privacy(logits, SAME, scale)
        return hidden + classification_bce(classifier(made), labels)

    assert slopes_agree(loss, list(generator.parameters()), 1e-6)


def _settle(critic: nn.Module, batch: Tensor) -> None:
    """Let a critic's batch norms see something, then freeze it as the generator's step does."""
    with torch.no_grad():
        for _ in range(20):
            critic(batch, batch) if isinstance(critic, SiameseVerifier) else critic(batch)
    critic.requires_grad_(requires_grad=False).eval()
