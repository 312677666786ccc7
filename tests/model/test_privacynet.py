"""Privacy-Net is the published baseline: its size, its arithmetic, its blocks from MONAI."""

from __future__ import annotations

import monai.networks.blocks as monai_blocks
import numpy as np
import pytest
import torch
from torch import nn

from prichexy_model.privacynet import PARAMETERS, STRIDE, PrivacyNet
from prichexy_testing import network_reference


def images(batch: int, size: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.rand(batch, 1, size, size, generator=torch.Generator().manual_seed(seed))


def odd() -> PrivacyNet:
    """Give one in eval mode whose batch norms are not the identity."""
    network = PrivacyNet()
    weights = network_reference.Drawn(seed=2)
    network_reference.privacy_net(weights, np.zeros((8, 8)))
    state = {name: torch.from_numpy(array) for name, array in weights.arrays.items()}
    missing, unexpected = network.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    return network.eval()


def test_it_has_exactly_the_published_number_of_parameters() -> None:
    assert sum(parameter.numel() for parameter in PrivacyNet().parameters()) == 682_755
    assert PARAMETERS == 682_755


def test_every_convolution_stands_in_a_block_of_monai() -> None:
    network = PrivacyNet()
    blocks = [m for m in network.modules() if isinstance(m, monai_blocks.Convolution)]
    inside = {id(inner) for block in blocks for inner in block.modules()}
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(convolutions) == 7 * 2 + 3 + 1
    assert all(id(convolution) in inside for convolution in convolutions)


@pytest.mark.parametrize("size", [8, 24, 32])
def test_it_computes_what_the_definition_says(size: int) -> None:
    network = odd().double()
    image = images(1, size).double()
    weights = network_reference.Given(
        {name: value.numpy() for name, value in network.state_dict().items()}
    )
    with torch.inference_mode():
        result = network(image)[0, 0].numpy()
    expected = network_reference.privacy_net(weights, image[0, 0].numpy())
    assert expected.std() > 1e-2
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-12)
    unused = network.state_dict().keys() - weights.used
    assert all(name.endswith("num_batches_tracked") for name in unused)


def test_in_eval_mode_an_image_does_not_see_the_others_of_its_batch() -> None:
    network, batch = odd(), images(3)
    with torch.inference_mode():
        alone = torch.cat([network(image[None]) for image in batch])
        torch.testing.assert_close(network(batch), alone, rtol=0, atol=1e-5)


def test_its_image_is_in_range_and_in_single_precision_under_autocast_too() -> None:
    network = odd().to(memory_format=torch.channels_last)
    batch = images(2)
    with torch.inference_mode():
        expected = network(batch)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result = network(batch)
    assert result.shape == batch.shape
    assert result.dtype == torch.float32
    assert result.is_contiguous()
    assert result.min() >= 0
    assert result.max() <= 1
    assert (result - expected).abs().mean() < 0.02


def test_a_gradient_reaches_every_parameter() -> None:
    network = PrivacyNet()
    network(images(2)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("size", [(20, 32), (32, 4), (1, 1)])
def test_a_size_that_three_poolings_do_not_divide_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"multiples of {STRIDE}"):
        PrivacyNet()(torch.zeros(1, 1, *size))
