"""Random changes of images: drawn once, applied without chance, within their bounds."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from prichexy_train.augment import Augmentation, Parameters, apply, draw

EVERYTHING = Augmentation(
    flip=0.5,
    rotation=10,
    translation=0.1,
    scale=0.2,
    gamma=0.3,
    contrast=0.2,
    brightness=0.1,
    noise=0.1,
    blur=2,
    erasing=0.5,
)


def source(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images() -> Tensor:
    """Smooth images with a bright spot off the middle."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 48), torch.linspace(-1, 1, 48), indexing="ij")
    spot = torch.exp(-((x - 0.4) ** 2 + (y + 0.2) ** 2) / 0.05)
    return (0.2 + 0.6 * spot).expand(16, 1, 48, 48).clone()


def test_nothing_is_drawn_and_nothing_changed_by_default(images: Tensor) -> None:
    generator = source()
    before = generator.get_state()

    parameters = draw(Augmentation(), len(images), generator)

    assert torch.equal(generator.get_state(), before)
    assert parameters == Parameters()
    assert torch.equal(apply(images, parameters), images)


def test_what_is_drawn_follows_from_the_generator_alone(images: Tensor) -> None:
    first = apply(images, draw(EVERYTHING, 16, source()))
    torch.manual_seed(99)

    assert torch.equal(apply(images, draw(EVERYTHING, 16, source())), first)
    assert not torch.equal(apply(images, draw(EVERYTHING, 16, source(2))), first)


def test_every_image_is_changed_in_its_own_way_within_the_range(images: Tensor) -> None:
    changed = apply(images, draw(EVERYTHING, 16, source()))

    assert changed.shape == images.shape
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert len({tuple(image.flatten().tolist()) for image in changed}) == 16


def test_a_share_of_the_parameters_changes_its_images_as_the_whole_does(images: Tensor) -> None:
    images = images * torch.linspace(0.5, 1, 16)[:, None, None, None]
    parameters = draw(EVERYTHING, 16, source())
    whole = apply(images, parameters)

    for rank in range(2):
        share = apply(images[rank::2], parameters.every(2, rank))
        torch.testing.assert_close(share, whole[rank::2], atol=1e-6, rtol=0)


def test_a_flip_mirrors_left_and_right(images: Tensor) -> None:
    changed = apply(images, draw(Augmentation(flip=1), 16, source()))

    torch.testing.assert_close(changed, images.flip(-1), atol=1e-5, rtol=0)


def test_half_of_the_images_are_flipped_at_one_half(images: Tensor) -> None:
    matrix = draw(Augmentation(flip=0.5), 2000, source()).matrix

    assert matrix is not None
    assert (matrix[:, 0, 0] < 0).float().mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("settings", "moved"),
    [
        (Augmentation(translation=0.1), 0.2),
        (Augmentation(scale=0.2), 0.1),
        (Augmentation(rotation=10), 0.09),
    ],
)
def test_the_spot_moves_no_further_than_told(
    images: Tensor, settings: Augmentation, moved: float
) -> None:
    changed = apply(images, draw(settings, 16, source()))

    places = changed.flatten(1).argmax(1)
    x, y = places % 48 / 23.5 - 1, places // 48 / 23.5 - 1
    distance = torch.maximum((x - 0.4).abs(), (y + 0.2).abs())
    assert distance.max() <= moved + 0.05
    assert distance.max() >= moved / 3


def test_grey_values_stay_within_their_bounds() -> None:
    grey = torch.full((200, 1, 4, 4), 0.25)

    def changed(settings: Augmentation) -> Tensor:
        return apply(grey, draw(settings, 200, source()))[:, 0, 0, 0]

    brightness = changed(Augmentation(brightness=0.1)) - 0.25
    assert brightness.abs().max() <= 0.1 + 1e-6
    assert brightness.abs().max() > 0.09
    contrast = (changed(Augmentation(contrast=0.2)) - 0.5) / -0.25
    assert contrast.log().abs().max() <= 0.2 + 1e-5
    gamma = changed(Augmentation(gamma=0.3)).log() / torch.tensor(0.25).log()
    assert gamma.log().abs().max() <= 0.3 + 1e-5
    assert gamma.log().abs().max() > 0.25


def test_noise_is_normal_independent_and_as_strong_as_drawn() -> None:
    grey = torch.full((8, 1, 128, 128), 0.5)
    parameters = dataclasses.replace(
        draw(Augmentation(noise=0.05), 8, source()), noise=torch.full((8,), 0.05)
    )

    noise = (apply(grey, parameters) - 0.5).flatten(1) / 0.05

    assert noise.mean(1).abs().max() < 0.03
    assert (noise.std(1) - 1).abs().max() < 0.03
    together = torch.corrcoef(noise) - torch.eye(8)
    assert together.abs().max() < 0.04
    neighbours = (noise[:, 1:] * noise[:, :-1]).mean(1)
    assert neighbours.abs().max() < 0.04
    kurtosis = (noise**4).mean(1)
    assert (kurtosis - 3).abs().max() < 0.5


def test_half_of_the_images_stay_without_noise_and_blur() -> None:
    parameters = draw(Augmentation(noise=0.1, blur=2), 1000, source())

    for values in (parameters.noise, parameters.blur):
        assert values is not None
        assert (values == 0).float().mean() == pytest.approx(0.5, abs=0.06)
        assert values.max() > 0


def test_a_blur_is_a_gaussian_and_none_at_zero() -> None:
    point = torch.zeros(2, 1, 33, 33)
    point[:, :, 16, 16] = 1

    changed = apply(point, Parameters(blur=torch.tensor([0.0, 1.5])))

    torch.testing.assert_close(changed[0], point[0], atol=1e-6, rtol=0)
    assert changed[1].sum() == pytest.approx(1, abs=1e-4)
    spread = (changed[1, 0].sum(0) * (torch.arange(33) - 16) ** 2).sum()
    assert spread.sqrt() == pytest.approx(1.5, rel=0.05)


def test_an_erased_rectangle_is_even_and_no_larger_than_told() -> None:
    noise = torch.rand(200, 1, 50, 50, generator=source())

    changed = apply(noise, draw(Augmentation(erasing=0.5), 200, source()))

    area = (changed != noise).float().mean((1, 2, 3))
    assert ((area == 0).float().mean()) == pytest.approx(0.5, abs=0.1)
    assert area.max() <= 0.33**2
    erased = int(area.argmax())
    assert changed[erased][changed[erased] != noise[erased]].unique().numel() == 1


def test_gradients_pass_through_every_change(images: Tensor) -> None:
    images.requires_grad_()

    apply(images, draw(EVERYTHING, 16, source())).sum().backward()

    assert images.grad is not None
    assert images.grad.isfinite().all()
    assert images.grad.abs().sum() > 0
