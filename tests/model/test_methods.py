"""Every method under one interface: an image's result is its own and its generator's."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from prichexy_model.anonymizer import Anonymizer
from prichexy_model.dppix import dp_pix
from prichexy_model.flow import warp
from prichexy_model.generator import build_generator
from prichexy_model.initial import initial_weights
from prichexy_model.methods import (
    Deformation,
    Deforming,
    DPPix,
    Method,
    PrivacyNetMethod,
    RandomWarp,
    Real,
)
from prichexy_model.privacynet import PrivacyNet
from prichexy_model.random_field import random_displacement

SIZE = 32


def anonymizer(**settings: Any) -> Anonymizer:
    generator = build_generator()
    generator.load_state_dict(initial_weights())
    return Anonymizer(generator, size=SIZE, **settings).eval()


METHODS: list[Method] = [
    Real(),
    Deformation(anonymizer(mu=0.1)),
    PrivacyNetMethod(PrivacyNet().eval()),
    DPPix(cell=4, epsilon=5),
    RandomWarp(mu=0.1, coarseness=8),
]


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def images(batch: int) -> torch.Tensor:
    return torch.rand(batch, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def name_of(value: object) -> str:
    return str(getattr(value, "name", value))


@pytest.mark.parametrize("method", METHODS, ids=name_of)
def test_shape_and_range_stay_those_of_the_images(method: Method) -> None:
    with torch.inference_mode():
        result = method(images(3), generators(1, 2, 3))
    assert result.shape == (3, 1, SIZE, SIZE)
    assert result.dtype == torch.float32
    assert result.min() >= 0
    assert result.max() <= 1


@pytest.mark.parametrize("method", METHODS, ids=name_of)
def test_a_result_depends_on_the_image_and_its_own_seed_alone(method: Method) -> None:
    batch = images(3)
    with torch.inference_mode():
        together = method(batch, generators(1, 2, 3))
        for i, seed in enumerate((1, 2, 3)):
            alone = method(batch[i : i + 1], generators(seed))
            torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", METHODS, ids=name_of)
def test_only_random_methods_draw_and_only_they_differ_from_seed_to_seed(method: Method) -> None:
    random = isinstance(method, DPPix | RandomWarp)
    (generator,) = generators(1)
    before = generator.get_state()
    with torch.inference_mode():
        first = method(images(1), [generator])
        second = method(images(1), generators(2))
    assert torch.equal(generator.get_state(), before) is not random
    assert torch.equal(first, second) is not random
    assert method.stochastic is random


def test_a_deformation_tells_the_field_that_it_moves_pixels_by() -> None:
    moving = [method for method in METHODS if isinstance(method, Deforming)]
    assert {type(method) for method in moving} == {Deformation, RandomWarp}
    for method in moving:
        with torch.inference_mode():
            field = method.displacement(images(2), generators(1, 2))
            expected = method(images(2), generators(1, 2))
        assert field.shape == (2, 2, SIZE, SIZE)
        assert torch.equal(warp(images(2), field), expected)


@pytest.mark.parametrize("method", METHODS, ids=name_of)
def test_torchs_own_generator_is_left_alone(method: Method) -> None:
    before = torch.get_rng_state()
    method(images(1), generators(1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("method", METHODS, ids=name_of)
def test_another_number_of_generators_is_refused(method: Method) -> None:
    with pytest.raises(ValueError, match="one generator for each image"):
        method(images(2), generators(1))


@pytest.mark.parametrize(
    ("method", "name"),
    [
        (Real(), "real"),
        (Deformation(anonymizer()), "prichexy-net:mu=0.01"),
        (Deformation(anonymizer(mu=0.005, border="paper")), "prichexy-net:mu=0.005,border=paper"),
        (PrivacyNetMethod(PrivacyNet()), "privacy-net"),
        (DPPix(8), "dp-pix:b=8"),
        (DPPix(2, epsilon=0.5), "dp-pix:b=2,eps=0.5"),
        (RandomWarp(0.01), "random:mu=0.01"),
        (RandomWarp(0.1, "paper", 32), "random:mu=0.1,border=paper,coarseness=32"),
    ],
    ids=name_of,
)
def test_a_name_tells_the_settings(method: Method, name: str) -> None:
    assert method.name == name


def test_they_do_what_their_modules_do() -> None:
    batch = images(1)
    model = anonymizer(mu=0.1)
    field = random_displacement(1, SIZE, 0.1, *generators(4), border="paper", coarseness=8)
    with torch.inference_mode():
        assert Real()(batch, generators(4)) is batch
        assert torch.equal(Deformation(model)(batch, generators(4)), model(batch))
        assert torch.equal(
            RandomWarp(0.1, "paper", 8)(batch, generators(4)),
            warp(batch, field),
        )
        assert torch.equal(
            DPPix(4)(batch, generators(4)),
            dp_pix(batch, 4, 0.1, generators(4)),
        )


@pytest.mark.parametrize("network", [anonymizer(), PrivacyNet()])
def test_a_network_in_train_mode_is_refused(network: Any) -> None:
    network.train()
    method = PrivacyNetMethod(network)
    if isinstance(network, Anonymizer):
        method = Deformation(network)  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"call its eval\(\) first"):
        method(images(1), generators(1))


def test_gradients_pass_through_what_can_be_trained() -> None:
    batch = images(1).requires_grad_()
    for method in METHODS:
        if isinstance(method, Deformation | PrivacyNetMethod):
            (gradient,) = torch.autograd.grad(method(batch, generators(1)).sum(), batch)
            assert gradient.abs().sum() > 0
