"""The generator is the paper's U-Net, made of MONAI's blocks."""

from __future__ import annotations

import monai.networks.blocks as monai_blocks
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from prichexy_model.flow import displacement
from prichexy_model.generator import FEATURES, PARAMETERS, STRIDE, build_generator
from prichexy_model.initial import initial_weights
from prichexy_model.preprocessing import resize
from prichexy_testing import model_reference


def images(batch: int, size: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(batch, 1, size, size, generator=torch.Generator().manual_seed(seed))


def test_it_has_exactly_the_published_number_of_parameters() -> None:
    assert sum(parameter.numel() for parameter in build_generator().parameters()) == 7_762_498
    assert PARAMETERS == 7_762_498


def test_its_levels_have_the_published_widths() -> None:
    generator = build_generator()
    widths = [
        module.num_features for module in generator.modules() if isinstance(module, nn.BatchNorm2d)
    ]
    down = [width for width in FEATURES for _ in range(2)]
    assert widths == down + [width for width in FEATURES[-2::-1] for _ in range(2)]


def test_every_convolution_stands_in_a_block_of_monai() -> None:
    generator = build_generator()
    blocks = [
        module
        for module in generator.modules()
        if isinstance(module, monai_blocks.Convolution | monai_blocks.UpSample)
    ]
    inside = {id(inner) for block in blocks for inner in block.modules()}
    convolutions = [
        module
        for module in generator.modules()
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
    ]
    assert len(convolutions) == 9 * 2 + 4 + 1
    assert all(id(convolution) in inside for convolution in convolutions)


def test_only_the_transposed_and_the_last_convolution_have_a_bias() -> None:
    generator = build_generator()
    for name, module in generator.named_modules():
        if isinstance(module, nn.Conv2d) and name != "head.conv":
            assert module.bias is None, name
        if isinstance(module, nn.ConvTranspose2d):
            assert module.bias is not None, name


@pytest.mark.parametrize("trained", [False, True], ids=["plain batch norms", "odd batch norms"])
def test_it_computes_what_the_definition_says(trained: bool) -> None:
    generator = build_generator().double().eval()
    generator.load_state_dict(initial_weights())
    if trained:
        draw = torch.Generator().manual_seed(3)
        for module in generator.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                    assert tensor is not None
                    tensor.data.uniform_(0.5, 1.5, generator=draw)
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.bias is not None:
                module.bias.data.uniform_(-0.1, 0.1, generator=draw)
    image = images(1, 32).double()
    weights = {name: value.numpy().astype(float) for name, value in generator.state_dict().items()}
    with torch.inference_mode():
        result = generator(image)[0].numpy()
    expected = model_reference.generator(weights, image[0, 0].numpy())
    assert expected.std() > 1e-3
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-9)


def test_the_field_has_two_channels_of_the_images_size_between_minus_one_and_one() -> None:
    with torch.inference_mode():
        field = build_generator().eval()(images(2, 64))
    assert field.shape == (2, 2, 64, 64)
    assert field.abs().max() < 1


def test_with_a_field_size_it_sees_the_shrunk_image_and_its_field_is_linear_in_between() -> None:
    weights = initial_weights()
    whole, light = build_generator().eval(), build_generator(32).eval()
    for generator in (whole, light):
        generator.load_state_dict(weights)
    batch = images(2, 96)
    with torch.inference_mode():
        field, seen = light(batch), whole(resize(batch, 32))
    assert field.shape == (2, 2, 96, 96)
    # Pixel 1 of three lies where the small field's pixel does, pixels between on straight lines.
    torch.testing.assert_close(field[..., 1::3, 1::3], seen)
    along = field[..., 1::3, :]
    torch.testing.assert_close(along[..., 2:-1:3] * 3, 2 * seen[..., :-1] + seen[..., 1:])


def test_half_the_size_keeps_most_of_what_the_smoothing_leaves_of_any_field() -> None:
    """Noise is the hardest: 95 % of its variance is there after the way over half the size."""
    raw = torch.rand(1, 2, 64, 64, generator=torch.Generator().manual_seed(5)) * 2 - 1
    wanted = displacement(raw, 0.01)
    halved = functional.avg_pool2d(raw, 2)
    lifted = functional.interpolate(halved, scale_factor=2, mode="bilinear")
    inside = (..., slice(8, -8), slice(8, -8))
    off = (displacement(lifted, 0.01) - wanted)[inside]
    assert float(off.square().sum() / wanted[inside].square().sum()) < 0.06


@pytest.mark.parametrize("size", [0, -16, 40])
def test_a_field_size_that_four_poolings_do_not_divide_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"multiple of {STRIDE}"):
        build_generator(size)


def test_in_eval_mode_an_image_does_not_see_the_others_of_its_batch() -> None:
    generator = build_generator().eval()
    generator.load_state_dict(initial_weights())
    batch = images(3, 64)
    with torch.inference_mode():
        together = generator(batch)
        alone = torch.cat([generator(image[None]) for image in batch])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_a_gradient_reaches_every_parameter() -> None:
    generator = build_generator()
    generator(images(2, 32)).square().sum().backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("size", [(250, 256), (256, 8), (1, 1)])
def test_a_size_that_four_poolings_do_not_divide_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"multiples of {STRIDE}"):
        build_generator()(torch.zeros(1, 1, *size))
