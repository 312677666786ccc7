"""Pixels move by the field that is asked for, exactly, and nothing else happens to them."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prichexy_testing.dicoms import phantom
from prichexy_testing.shared_data import pydicom_data
from prichexy_worker import deform, inspection, pixels
from prichexy_worker.contract import Reason
from prichexy_worker.errors import Rejected
from prichexy_worker.pixels import Radiograph

SIDE = 256


def smooth_field(strength: float = 0.01, seed: int = 3, side: int = SIDE):
    """A displacement of slow waves, at most ``strength`` in normalised coordinates."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side
    waves = [np.sin(2 * np.pi * (f * x + g * y + p)) for f, g, p in rng.uniform(-4, 4, (2, 3))]
    return (strength * np.stack(waves)).astype(np.float32)


def lifted(displacement, rows, columns):
    """The field at native resolution in float64: half-pixel geometry, bilinear, edges go on."""
    channels = []
    for channel, count in ((0, columns), (1, rows)):
        height, width = displacement.shape[1:]
        side = width if channel == 0 else height
        field = displacement[channel].astype(np.float64) * (side - 1) / 2 * count / side
        v = np.clip((np.arange(rows) + 0.5) * height / rows - 0.5, 0, height - 1)
        u = np.clip((np.arange(columns) + 0.5) * width / columns - 0.5, 0, width - 1)
        i, j = np.floor(v).astype(int), np.floor(u).astype(int)
        a, b = (v - i)[:, None], (u - j)[None, :]
        i2, j2 = np.minimum(i + 1, height - 1), np.minimum(j + 1, width - 1)
        channels.append(
            (1 - a) * (1 - b) * field[np.ix_(i, j)]
            + (1 - a) * b * field[np.ix_(i, j2)]
            + a * (1 - b) * field[np.ix_(i2, j)]
            + a * b * field[np.ix_(i2, j2)]
        )
    return np.stack(channels)


def sampled(values, field):
    """Bicubic (a = -0.75) sampling in float64, edges go on."""
    rows, columns = values.shape
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float64)
    y, x = y + field[1], x + field[0]
    i, j = np.floor(y).astype(int), np.floor(x).astype(int)
    result = np.zeros(values.shape)
    for k, wy in enumerate(_cubic(y - i)):
        for m, wx in enumerate(_cubic(x - j)):
            row = np.clip(i + k - 1, 0, rows - 1)
            column = np.clip(j + m - 1, 0, columns - 1)
            result += wy * wx * values[row, column]
    return result


def _cubic(t, a=-0.75):
    def near(s):
        return ((a + 2) * s - (a + 3)) * s * s + 1

    def far(s):
        return ((a * s - 5 * a) * s + 8 * a) * s - 4 * a

    return far(t + 1), near(t), near(1 - t), far(2 - t)


def expected(values, displacement):
    result = sampled(values.astype(np.float64), lifted(displacement, *values.shape))
    return np.clip(np.round(result), values.min(), values.max())


def test_zero_displacement_returns_the_pixels_bit_for_bit():
    values = np.random.default_rng(0).integers(0, 1 << 16, (301, 407)).astype(np.uint16)
    source = Radiograph(values, 16, padding=(0, 99))
    result = deform.warp(source, np.zeros((2, SIDE, SIDE), np.float32))
    assert np.array_equal(result.values, values)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
@pytest.mark.parametrize("padded", [False, True])
def test_pixels_that_are_not_displaced_stay_bit_for_bit(dtype, padded):
    info = np.iinfo(dtype)
    values = np.random.default_rng(0).integers(info.min, info.max + 1, (400, 500)).astype(dtype)
    padding = (int(info.min), int(info.min) + 3) if padded else None
    displacement = np.zeros((2, SIDE, SIDE), np.float32)
    displacement[:, 100:140, 90:150] = smooth_field(0.02)[:, 100:140, 90:150]
    source = Radiograph(values, info.bits, padding=padding)
    result = deform.warp(source, displacement)
    still = ~deform.displacement_in_pixels(displacement, 400, 500).any(axis=0)
    assert 0.9 < still.mean() < 1
    assert np.array_equal(result.values[still], values[still])
    assert (result.values[~still] != values[~still]).mean() > 0.5


@pytest.mark.parametrize(
    ("shape", "bits", "signed"),
    [
        *itertools.product([(300, 401), (90, 70), (3, 2000)], [8, 12, 16], [False, True]),
        ((2500, 2048), 14, False),
    ],
)
def test_the_warp_agrees_with_a_float64_reference(shape, bits, signed):
    values = phantom(*shape, bits_stored=bits, signed=signed)
    displacement = smooth_field(0.02)
    result = deform.warp(Radiograph(values, bits), displacement)
    error = np.abs(result.values - expected(values, displacement))
    assert result.values.dtype == values.dtype
    assert error.max() <= 1  # rounding alone
    assert error.mean() < 0.02


def test_sixteen_bits_are_warped_without_quantised_coordinates():
    # 1/32 px, which remap had before version 5, would show as up to 1,000 grey levels here.
    rows, columns = 1200, 1000
    x = np.arange(columns)
    values = np.tile(((np.sin(x / 3) + 1) / 2 * 65535), (rows, 1)).astype(np.uint16)
    displacement = smooth_field(0.004)
    result = deform.warp(Radiograph(values, 16), displacement)
    assert np.abs(result.values - expected(values, displacement)).max() <= 4


def test_a_real_radiograph_keeps_depth_range_and_description():
    source = pixels.decode(inspection.read(pydicom_data("RG1_UNCR.dcm").read_bytes()))
    displacement = smooth_field(0.01)
    result = deform.warp(source, displacement)
    assert dataclasses.replace(result, values=source.values) != result
    assert (result.bits_stored, result.inverted, result.padding) == (15, True, None)
    assert result.values.min() >= source.values.min()
    assert result.values.max() <= source.values.max()
    assert len(np.unique(result.values)) > 4096  # still deep
    assert np.abs(result.values - expected(source.values, displacement)).max() <= 1
    assert not result.values.flags.writeable


def test_one_pixel_to_the_right_shows_what_was_left_of_it():
    values = phantom(SIDE, SIDE)
    displacement = np.zeros((2, SIDE, SIDE), np.float32)
    displacement[0] = -2 / (SIDE - 1)  # the distance of two neighbours
    result = deform.warp(Radiograph(values, 12), displacement).values
    difference = np.abs(result[:, 1:].astype(int) - values[:, :-1])
    assert difference.max() <= 1
    assert np.array_equal(result[:, 0], values[:, 0])  # beyond the border it goes on


def test_channel_zero_moves_along_columns_and_one_along_rows():
    displacement = np.zeros((2, SIDE, SIDE), np.float32)
    displacement[0], displacement[1] = 0.1, 0.2
    field = deform.displacement_in_pixels(displacement, 1000, 500)
    assert field.shape == (2, 1000, 500)
    assert field.dtype == np.float32
    assert np.allclose(field[0], 0.1 * 127.5 * 500 / 256, rtol=1e-6)
    assert np.allclose(field[1], 0.2 * 127.5 * 1000 / 256, rtol=1e-6)


@pytest.mark.parametrize("shape", [(1955, 1841), (256, 256), (100, 300)])
def test_the_field_is_lifted_with_half_pixel_geometry(shape):
    displacement = smooth_field(0.05)
    field = deform.displacement_in_pixels(displacement, *shape)
    assert np.abs(field - lifted(displacement, *shape)).max() < 2e-4
    tensor = torch.nn.functional.interpolate(
        torch.from_numpy(displacement)[None], size=shape, mode="bilinear", align_corners=False
    )[0].numpy()
    scale = np.array([255 / 2 * shape[1] / 256, 255 / 2 * shape[0] / 256])[:, None, None]
    assert np.abs(field - tensor * scale).max() < 2e-4


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    strength=st.floats(0, 0.5),
    signed=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_no_value_leaves_the_range_of_the_source(rows, columns, strength, signed, seed):
    low, high = (-2000, 1800) if signed else (17, 4000)
    values = np.random.default_rng(seed).integers(low, high, (rows, columns))
    values = values.astype(np.int16 if signed else np.uint16)
    result = deform.warp(Radiograph(values, 12), smooth_field(strength, seed, 16)).values
    assert result.shape == values.shape
    assert result.min() >= values.min()
    assert result.max() <= values.max()


@settings(max_examples=60, deadline=None)
@given(
    first=st.integers(0, 4095),
    extent=st.integers(0, 400),
    strength=st.floats(0.001, 0.2),
    seed=st.integers(0, 1000),
)
def test_padding_neither_bleeds_in_nor_out(first, extent, strength, seed):
    padding = (first, min(first + extent, 4095))
    values = phantom(60, 50, seed=seed).copy()
    values[:, :9] = padding[0]
    values[40:50, 20:30] = padding[1]
    source = Radiograph(values, 12, padding=padding)
    displacement = smooth_field(strength, seed, 32)
    result = deform.warp(source, displacement)
    before, after = source.padded(), result.padded()
    # What becomes padding is what a nearest sample of the padding says, and nothing else.
    field = lifted(displacement, 60, 50)
    y, x = np.mgrid[0:60, 0:50]
    exact = np.abs(np.stack([y + field[1], x + field[0]]) % 1 - 0.5).min(axis=0) > 1e-3
    i = np.clip(np.rint(y + field[1]).astype(int), 0, 59)
    j = np.clip(np.rint(x + field[0]).astype(int), 0, 49)
    assert np.array_equal(after[exact], before[i, j][exact])
    # Padding keeps its very values, the image stays within its own.
    assert set(np.unique(result.values[after])) <= set(np.unique(values[before]))
    if (~after).any():
        assert result.values[~after].min() >= values[~before].min()
        assert result.values[~after].max() <= values[~before].max()


def test_beside_padding_the_image_goes_on_as_at_a_border():
    values = np.full((64, 64), 1000, dtype=np.uint16)
    values[:, :20] = 0
    displacement = np.full((2, 16, 16), 0.013, np.float32)
    result = deform.warp(Radiograph(values, 12, padding=(0, 0)), displacement).values
    assert set(np.unique(result)) == {0, 1000}


def test_an_image_that_is_all_padding_is_not_passed_on_as_deformed():
    source = Radiograph(np.zeros((8, 8), np.uint16), 12, padding=(0, 0))
    with pytest.raises(Rejected) as caught:
        deform.warp(source, smooth_field())
    assert caught.value.reason is Reason.UNSUPPORTED_PIXELS


@pytest.mark.parametrize(
    "displacement",
    [
        np.zeros((1, 16, 16), np.float32),
        np.zeros((16, 16), np.float32),
        np.full((2, 16, 16), np.nan, np.float32),
        np.full((2, 16, 16), np.inf, np.float32),
    ],
)
def test_a_field_that_is_no_displacement_is_refused(displacement):
    with pytest.raises(ValueError, match="displacement"):
        deform.warp(Radiograph(phantom(), 12), displacement)


def test_measures_tell_how_far_and_how_much():
    values = phantom(512, 384)
    source = Radiograph(values, 12)
    displacement = np.zeros((2, SIDE, SIDE), np.float32)
    displacement[0], displacement[1] = 0.006, 0.008
    result = deform.warp(source, displacement)
    measures = deform.measure(source, result, displacement)
    length = np.hypot(0.006 * 127.5 * 384 / 256, 0.008 * 127.5 * 512 / 256)
    assert measures["max_displacement_px"] == pytest.approx(length, rel=1e-5)
    assert measures["mean_displacement_px"] == pytest.approx(length, rel=1e-5)
    difference = values.astype(float) - result.values
    assert measures["changed_share"] == pytest.approx((difference != 0).mean())
    psnr = 20 * np.log10(4095) - 10 * np.log10((difference**2).mean())
    assert measures["psnr_db"] == pytest.approx(psnr, rel=1e-5)


def test_measures_of_no_change_are_finite():
    source = Radiograph(phantom(), 12, padding=(0, 9))
    assert deform.measure(source, source, np.zeros((2, 16, 16), np.float32)) == {
        "max_displacement_px": 0,
        "mean_displacement_px": 0,
        "changed_share": 0,
        "psnr_db": deform.IDENTICAL_DB,
    }


def test_padding_does_not_count_as_error():
    before = np.full((10, 10), 500, np.uint16)
    after = before.copy()
    after[0] = 0
    measures = deform.measure(
        Radiograph(before, 12, padding=(0, 0)),
        Radiograph(after, 12, padding=(0, 0)),
        np.zeros((2, 16, 16), np.float32),
    )
    assert measures["psnr_db"] == deform.IDENTICAL_DB
    assert measures["changed_share"] == pytest.approx(0.1)
