"""Adversarial training once more, in plain float64: no module, no optimizer, no step of ours.

Networks are functions of a dictionary of weights. Convolution, batch norm, smoothing, sampling,
losses, Adam and SGD are written from their definitions; only the chain rule is torch's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["Player", "adam", "anonymised", "classified", "sgd", "step", "verified"]

Weights = dict[str, Tensor]
Forward = Callable[..., Tensor]


@dataclass
class Player:
    """A network's weights and running statistics, its rule of change and what that remembers."""

    state: Weights
    change: Callable[[Player, str, Tensor], Tensor]
    memory: dict[str, tuple[Tensor, ...]] = field(default_factory=dict)
    steps: int = 0

    @property
    def learned(self) -> list[str]:
        return [name for name in self.state if "running" not in name and "num_" not in name]

    def learn(self, loss: Tensor) -> None:
        """Change the weights by the gradient of ``loss``, all at once."""
        self.steps += 1
        gradients = torch.autograd.grad(loss, [self.state[name] for name in self.learned])
        for name, gradient in zip(self.learned, gradients, strict=True):
            with torch.no_grad():
                self.state[name] = self.state[name] - self.change(self, name, gradient)
            self.state[name].requires_grad_()


def adam(player: Player, name: str, gradient: Tensor) -> Tensor:
    """Give Adam's change (Kingma and Ba, algorithm 1) with the step 1e-4."""
    m, v = player.memory.get(name, (torch.zeros_like(gradient), torch.zeros_like(gradient)))
    m = 0.9 * m + 0.1 * gradient
    v = 0.999 * v + 0.001 * gradient**2
    player.memory[name] = (m, v)
    mean = m / (1 - 0.9**player.steps)
    square = v / (1 - 0.999**player.steps)
    return 1e-4 * mean / (square**0.5 + 1e-8)


def sgd(player: Player, name: str, gradient: Tensor) -> Tensor:
    """Give gradient descent's change: step 1e-4, momentum 0.9, weight decay 1e-4."""
    gradient = gradient + 1e-4 * player.state[name]
    (velocity,) = player.memory.get(name, (torch.zeros_like(gradient),))
    velocity = 0.9 * velocity + gradient
    player.memory[name] = (velocity,)
    return 1e-4 * velocity


def anonymised(images: Tensor, player: Player, mu: float, border: str, *, training: bool) -> Tensor:
    """Give ``images`` warped by the field of a one-layer generator."""
    values = _convolve(images, player.state["generator.0.weight"], stride=1)
    values = _normalise(values, player, "generator.1", training=training)
    raw = torch.tanh(values)
    size = images.shape[-1]
    line = torch.arange(size, dtype=torch.float64) * 2 / (size - 1) - 1
    identity = torch.stack((line.expand(size, -1), line[:, None].expand(-1, size)))
    places = _smooth(identity - mu * raw) if border == "paper" else identity - _smooth(mu * raw)
    return _sample(images, places)


def verified(first: Tensor, second: Tensor, player: Player, *, training: bool) -> Tensor:
    """Give the logits of a one-layer siamese verifier with a head of differences."""
    a, b = (_features(images, player, training=training) for images in (first, second))
    a, b = (_linear(features, player, "embedding") for features in (a, b))
    difference = (1 / (1 + (-a).exp()) - 1 / (1 + (-b).exp())).abs()
    return _linear(difference, player, "head")[:, 0]


def classified(images: Tensor, player: Player, *, training: bool) -> Tensor:
    """Give the logits of a one-layer classifier."""
    return _linear(_features(images, player, training=training), player, "head")


def step(
    generator: Player,
    verifiers: list[Player],
    classifier: Player,
    batch: tuple[Tensor, Tensor, Tensor, Tensor],
    *,
    mu: float,
    border: str,
    privacy: str = "paper",
) -> dict[str, float]:
    """Play one round as published and give the losses before each change."""
    first, second, same, labels = batch
    made = anonymised(first, generator, mu, border, training=True)
    parts = []
    for verifier in verifiers:
        logits = verified(made, second, verifier, training=False)
        if privacy == "paper":
            parts.append(-(1 - _sigmoid(logits)).log().mean())
        else:
            alike, unlike = logits[same == 1], logits[same == 0]
            far = (alike[:, None] - unlike[None, :]).flatten()
            scale = far.detach().abs().median() / 2
            parts.append((far / scale).tanh().mean() ** 2)
    of_privacy = torch.stack(parts).mean()
    of_classes = _bce(classified(made, classifier, training=False), labels)
    total = of_privacy + of_classes
    generator.learn(total)
    made = made.detach()
    against = []
    for verifier in verifiers:
        loss = _bce(verified(made, second, verifier, training=True), same)
        verifier.learn(loss)
        against.append(loss.item())
    loss = _bce(classified(made, classifier, training=True), labels)
    classifier.learn(loss)
    return {
        "total": total.item(),
        "privacy": of_privacy.item(),
        "classification": of_classes.item(),
        "verifier": sum(against) / len(against),
        "classifier": loss.item(),
    }


def _sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + (-x).exp())


def _bce(logits: Tensor, truth: Tensor) -> Tensor:
    p = _sigmoid(logits)
    return -(truth * p.log() + (1 - truth) * (1 - p).log()).mean()


def _linear(values: Tensor, player: Player, name: str) -> Tensor:
    return values @ player.state[f"{name}.weight"].T + player.state[f"{name}.bias"]


def _features(images: Tensor, player: Player, *, training: bool) -> Tensor:
    values = _convolve(images, player.state["features.0.weight"], stride=2)
    values = _normalise(values, player, "features.1", training=training)
    return values.clamp(min=0).mean(dim=(2, 3))


def _convolve(images: Tensor, weight: Tensor, stride: int) -> Tensor:
    size = images.shape[-1]
    padded = torch.zeros(*images.shape[:2], size + 2, size + 2, dtype=images.dtype)
    padded[:, :, 1:-1, 1:-1] = images
    total = torch.zeros(())
    for dy in range(3):
        for dx in range(3):
            patch = padded[:, :, dy : dy + size : stride, dx : dx + size : stride]
            total = total + torch.einsum("bcyx,oc->boyx", patch, weight[:, :, dy, dx])
    return total


def _normalise(values: Tensor, player: Player, name: str, *, training: bool) -> Tensor:
    state = player.state
    if training:
        count = values.numel() // values.shape[1]
        mean = values.mean(dim=(0, 2, 3))
        variance = ((values - mean[:, None, None]) ** 2).mean(dim=(0, 2, 3))
        unbiased = variance.detach() * count / (count - 1)
        old_mean, old_variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        state[f"{name}.running_mean"] = 0.9 * old_mean + 0.1 * mean.detach()
        state[f"{name}.running_var"] = 0.9 * old_variance + 0.1 * unbiased
        state[f"{name}.num_batches_tracked"] = state[f"{name}.num_batches_tracked"] + 1
    else:
        mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    scaled = (values - mean[:, None, None]) / (variance[:, None, None] + 1e-5) ** 0.5
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    return scaled * weight[:, None, None] + bias[:, None, None]


def _smooth(field: Tensor) -> Tensor:
    bell = [math.exp(-(k**2) / 8) for k in range(-4, 5)]
    size = field.shape[-1]
    field = field.expand(field.shape if field.ndim == 4 else (1, *field.shape))
    padded = torch.zeros(*field.shape[:2], size + 8, size + 8, dtype=field.dtype)
    padded[:, :, 4:-4, 4:-4] = field
    total = torch.zeros_like(field)
    for dy, row in enumerate(bell):
        for dx, column in enumerate(bell):
            total = total + row * column * padded[:, :, dy : dy + size, dx : dx + size]
    return total / sum(bell) ** 2


def _sample(images: Tensor, places: Tensor) -> Tensor:
    size = images.shape[-1]
    pixels = ((places + 1) * (size - 1) / 2).clamp(0, size - 1)
    x, y = pixels[:, 0], pixels[:, 1]
    left, top = x.detach().floor().long(), y.detach().floor().long()
    u, v = x - left, y - top
    right, bottom = (left + 1).clamp(max=size - 1), (top + 1).clamp(max=size - 1)
    which = torch.arange(len(images))[:, None, None]
    plane = images[:, 0]
    upper = (1 - u) * plane[which, top, left] + u * plane[which, top, right]
    lower = (1 - u) * plane[which, bottom, left] + u * plane[which, bottom, right]
    return ((1 - v) * upper + v * lower)[:, None]
