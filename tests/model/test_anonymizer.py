"""The anonymizer: tensors in, tensors out, on the device they were given."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from prichexy_model.anonymizer import INPUT_SIZE, Anonymizer
from prichexy_model.bundle import load_anonymizer
from prichexy_model.flow import displacement, warp
from prichexy_model.generator import build_generator
from prichexy_model.initial import initial_weights

PIXELS = 127.5


class Constant(nn.Module):
    """A generator that proposes the same everywhere."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.full_like(images, self.value).expand(-1, 2, -1, -1)


@pytest.fixture(scope="module")
def anonymizer() -> Anonymizer:
    generator = build_generator()
    generator.load_state_dict(initial_weights())
    return Anonymizer(generator).eval()


def test_by_default_it_is_the_papers_strongest_with_the_corrected_border() -> None:
    default = Anonymizer(Constant(0))
    assert (default.mu, default.border, default.size) == (0.01, "corrected", 256)
    assert INPUT_SIZE == 256


@pytest.mark.parametrize("border", ["corrected", "paper"])
def test_it_warps_by_the_displacement_that_it_tells(
    anonymizer: Anonymizer, noise: torch.Tensor, border: str
) -> None:
    other = Anonymizer(anonymizer.generator, mu=0.005, border=border).eval()  # type: ignore[arg-type]
    with torch.inference_mode():
        told = other.displacement(noise)
        expected = displacement(other.generator(noise), 0.005, border)  # type: ignore[arg-type]
        assert told.shape == (2, 2, 256, 256)
        assert torch.equal(told, expected)
        assert torch.equal(other(noise), warp(noise, told))


def test_a_generator_that_proposes_nothing_leaves_the_image_alone(noise: torch.Tensor) -> None:
    quiet = Anonymizer(Constant(0.0))
    assert torch.count_nonzero(quiet.displacement(noise)) == 0
    assert (quiet(noise) - noise).abs().max() < 1e-4


def test_a_result_stays_in_the_range_and_the_shape_of_the_image(
    anonymizer: Anonymizer, noise: torch.Tensor
) -> None:
    with torch.inference_mode():
        result = anonymizer(noise)
    assert result.shape == noise.shape
    assert result.dtype == torch.float32
    assert result.min() >= 0
    assert result.max() <= 1


def test_it_runs_with_inference_mode_and_gives_the_same_twice(
    anonymizer: Anonymizer, noise: torch.Tensor
) -> None:
    with torch.inference_mode():
        first, second = anonymizer(noise), anonymizer(noise)
    assert first.is_inference()
    assert torch.equal(first, second)


def test_channels_last_gives_the_same_to_a_ten_thousandth_of_a_pixel(
    anonymizer: Anonymizer, noise: torch.Tensor
) -> None:
    generator = build_generator()
    generator.load_state_dict(anonymizer.generator.state_dict())
    other = Anonymizer(generator).to(memory_format=torch.channels_last).eval()
    with torch.inference_mode():
        expected = anonymizer.displacement(noise)
        result = other.displacement(noise.contiguous(memory_format=torch.channels_last))
    assert result.is_contiguous()
    assert (result - expected).abs().max() * PIXELS < 1e-4


def test_in_bfloat16_it_is_off_by_less_than_a_fiftieth_of_a_pixel(
    anonymizer: Anonymizer, noise: torch.Tensor
) -> None:
    with torch.inference_mode():
        expected = anonymizer.displacement(noise)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result = anonymizer.displacement(noise)
    assert result.dtype == torch.float32
    assert 0 < (result - expected).abs().max() * PIXELS < 0.02


def test_it_keeps_gradients_for_training(noise: torch.Tensor) -> None:
    training = Anonymizer(build_generator(), size=32)
    training(noise[:, :, :32, :32]).square().sum().backward()
    gradients = [parameter.grad for parameter in training.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_the_initial_weights_move_a_real_radiograph_visibly_and_within_the_bound(
    untrained_bundle: Path, radiograph: torch.Tensor
) -> None:
    model, bundle = load_anonymizer(untrained_bundle)
    with torch.inference_mode():
        field = model.displacement(radiograph) * PIXELS
    length = field[0].square().sum(0).sqrt()
    assert 0.3 < length.mean() < 1.0
    assert field.abs().max() <= PIXELS * bundle.mu
    assert field[0].flatten(1).std(dim=1).min() > 0.03


@pytest.mark.parametrize(
    "shape", [(1, 1, 128, 128), (1, 3, 256, 256), (1, 256, 256), (256, 256), (1, 1, 256, 255)]
)
def test_an_image_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="256, 256"):
        Anonymizer(Constant(0)).displacement(torch.zeros(shape))


@pytest.mark.parametrize("mu", [-0.01, 1.0, float("nan"), float("inf")])
def test_a_mu_that_makes_no_sense_is_refused(mu: float) -> None:
    with pytest.raises(ValueError, match="mu"):
        Anonymizer(Constant(0), mu=mu)


def test_an_unknown_border_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="corrected, paper"):
        Anonymizer(Constant(0), border="zeros")  # type: ignore[arg-type]


@pytest.mark.gpu
def test_a_gpu_gives_the_same_to_a_hundredth_of_a_pixel(noise: torch.Tensor) -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    generator = build_generator()
    generator.load_state_dict(initial_weights())
    model = Anonymizer(generator).eval()
    with torch.inference_mode():
        expected = model.displacement(noise)
        result = model.cuda().displacement(noise.cuda())
        assert result.is_cuda
        assert (result.cpu() - expected).abs().max() * PIXELS < 0.01
