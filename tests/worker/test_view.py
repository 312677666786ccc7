"""A view is what a radiologist sees; the generator's input is that view, smaller."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.multival import MultiValue
from pydicom.pixels import apply_modality_lut, apply_voi_lut, apply_windowing

from prichexy_testing.dicoms import lut, phantom, radiograph_dataset, write
from prichexy_testing.shared_data import CHEST, need, pydicom_data
from prichexy_worker import inspection
from prichexy_worker.pixels import decode
from prichexy_worker.view import displayed, searched, shrink


def view_of(**parameters):
    dataset = inspection.read(write(radiograph_dataset(**parameters)))
    return displayed(decode(dataset), dataset)


RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)
SIGNED_RAMP = np.arange(-2048, 2048, dtype=np.int16).reshape(64, 64)


@pytest.mark.parametrize("window", [(2048, 4096), (1000, 300), (3000.5, 700.25)])
@pytest.mark.parametrize("rescale", [None, (1, 0), (0.5, -100), (2, -1024)])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_windows_look_as_pydicom_draws_them(signed, rescale, window, function):
    parameters = {
        "values": SIGNED_RAMP if signed else RAMP,
        "signed": signed,
        "rescale": rescale,
        "window": window,
        "VOILUTFunction": function,
    }
    dataset = inspection.read(write(radiograph_dataset(**parameters)))
    drawn = apply_windowing(apply_modality_lut(dataset.pixel_array, dataset), dataset)
    slope, intercept = rescale or (1, 0)
    low, high = (-2048, 2047) if signed else (0, 4095)
    drawn = (drawn - (low * slope + intercept)) / ((high - low) * slope)
    dark, bright = np.percentile(drawn, [5, 95])
    view = displayed(decode(dataset), dataset)
    if bright - dark < 0.1:  # such a window shows nothing of this ramp: percentiles stand in
        assert np.ptp(view) == 1
    else:
        assert np.abs(view - drawn).max() < 1e-5


def test_a_view_is_float32_from_black_to_white_in_the_image_shape():
    view = view_of(rows=50, columns=30, window=(2048, 4096))
    assert view.dtype == np.float32
    assert view.shape == (50, 30)
    assert view.min() >= 0
    assert view.max() <= 1


def test_monochrome1_is_inverted_so_that_bone_is_bright():
    normal = view_of(values=RAMP, window=(2000, 3000))
    inverted = view_of(values=RAMP, window=(2000, 3000), photometric="MONOCHROME1")
    assert np.abs(inverted - (1 - normal)).max() < 1e-6


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_does_not_take_part_in_percentiles(photometric):
    values = phantom(80, 80, bits_stored=10).copy() // 4 + np.uint16(300)
    clean = view_of(values=values, bits_stored=12, photometric=photometric)
    padded = values.copy()
    padded[:, :20] = 4095
    view = view_of(values=padded, bits_stored=12, photometric=photometric, padding=4095)
    assert (view[:, :20] == 0).all()
    assert np.abs(view[:, 20:] - clean[:, 20:]).max() < 0.1
    assert np.ptp(view[:, 20:]) > 0.9


@pytest.mark.parametrize(
    "window", [None, (0, 0), (2000, -5), (2000, 0.5), (90000, 10), (-90000, 10), (2000, 1e9)]
)
def test_a_window_that_shows_nothing_is_passed_over(window):
    view = view_of(values=RAMP, window=window)
    assert view.min() == 0
    assert view.max() == 1
    assert abs(float(np.median(view)) - 0.5) < 0.01


def test_the_first_of_several_windows_is_used():
    first = view_of(values=RAMP, window=(1000, 800))
    several = view_of(
        values=RAMP,
        WindowCenter=MultiValue(float, [1000, 3000]),
        WindowWidth=MultiValue(float, [800, 100]),
    )
    assert np.array_equal(several, first)


def test_a_voi_lut_is_looked_up_as_pydicom_does():
    table = (np.sqrt(np.arange(1000) / 999) * 1023).astype(np.uint16)
    parameters = {"values": RAMP, "voi_lut": lut(table, first=500, bits=10), "window": (1, 2)}
    dataset = inspection.read(write(radiograph_dataset(**parameters)))
    drawn = apply_voi_lut(dataset.pixel_array, dataset) / 1023
    assert np.abs(displayed(decode(dataset), dataset) - drawn).max() < 1e-6


def test_a_modality_lut_comes_before_the_window():
    table = np.arange(4096, dtype=np.uint16)[::-1] * 2
    view = view_of(values=RAMP, modality_lut=lut(table, first=0, bits=13), window=(4096, 8192))
    assert np.abs(view - (1 - RAMP / 4095)).max() < 1e-3


def test_a_voi_lut_for_signed_values_starts_below_zero():
    table = np.linspace(0, 4095, 4096).astype(np.uint16)
    voi = lut(table, first=-2048, bits=12, signed=True)
    view = view_of(values=SIGNED_RAMP, signed=True, voi_lut=voi)
    assert np.abs(view - np.linspace(0, 1, 4096).reshape(64, 64)).max() < 1e-6


def test_a_lut_whose_negative_start_was_written_as_unsigned_starts_below_zero():
    table = np.linspace(0, 4095, 4096).astype(np.uint16)
    voi = lut(table, first=65536 - 2048, bits=12)
    view = view_of(values=SIGNED_RAMP, signed=True, voi_lut=voi)
    assert np.abs(view - np.linspace(0, 1, 4096).reshape(64, 64)).max() < 1e-6


@pytest.mark.parametrize("damage", ["no data", "no descriptor", "short descriptor", "no bits"])
def test_a_lut_that_makes_no_sense_is_passed_over(damage):
    item = lut(np.arange(4096, dtype=np.uint16), first=0, bits=12)
    if damage == "no data":
        del item.LUTData
    elif damage == "no descriptor":
        del item.LUTDescriptor
    elif damage == "short descriptor":
        item.LUTDescriptor = [4096]
    else:
        item.LUTDescriptor = [4096, 0, 0]
    expected = view_of(values=RAMP, window=(1500, 2000))
    assert np.array_equal(view_of(values=RAMP, window=(1500, 2000), voi_lut=item), expected)


def test_a_view_of_one_grey_is_not_divided_by_zero():
    view = view_of(values=np.full((20, 20), 7, np.uint16))
    assert np.isfinite(view).all()


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"])
def test_a_lut_of_a_big_endian_object_is_read_in_its_byte_order(syntax):
    table = np.arange(4096, dtype=np.uint16)
    item = lut(table, first=0, bits=12)
    if syntax.endswith(".2.2"):
        item.LUTData = table.astype(">u2").tobytes()
    view = view_of(values=RAMP, voi_lut=item, transfer_syntax=syntax)
    assert np.abs(view - RAMP / 4095).max() < 1e-6


@pytest.mark.parametrize(
    "shape", [(2500, 2048), (1955, 1841), (300, 256), (256, 256), (100, 90), (255, 900), (600, 31)]
)
def test_shrinking_equals_torchs_antialiased_bilinear_resize(shape):
    view = np.random.default_rng(5).random(shape, dtype=np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(view)[None, None],
        size=(256, 256),
        mode="bilinear",
        align_corners=False,
        antialias=True,
    )[0, 0].numpy()
    small = shrink(view)
    assert small.dtype == np.float32
    assert np.abs(small - expected).max() < 2e-6


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 700), columns=st.integers(1, 700), grey=st.floats(0, 1, width=32))
def test_shrinking_any_aspect_ratio_keeps_an_even_grey(rows, columns, grey):
    small = shrink(np.full((rows, columns), grey, np.float32))
    assert small.shape == (256, 256)
    assert np.abs(small - grey).max() < 1e-6


def test_real_radiographs_show_bright_bone_on_a_dark_ground():
    for path in (pydicom_data("RG1_UNCR.dcm"), need(CHEST / "barre_CR-MONO1-10-chest.dcm")):
        dataset = inspection.read(path.read_bytes())
        small = shrink(displayed(decode(dataset), dataset))
        spine = small[100:200, 118:138].mean()
        lungs = min(small[80:140, 60:90].mean(), small[80:140, 165:195].mean())
        assert spine > lungs + 0.15, path.name


def views_searched(**parameters):
    dataset = inspection.read(write(radiograph_dataset(**parameters)))
    return searched(decode(dataset), dataset)


def lettered(low, high, ground, ink):
    """A picture between ``low`` and ``high`` with a corner of ``ground`` and bars of ``ink``."""
    values = (low + phantom(200, 160, bits_stored=12) / 4095.0 * (high - low)).astype(np.uint16)
    values[:40, :60] = ground
    values[10:30, 10:50:4] = ink
    return values


def shows_the_letters(view):
    corner = view[:40, :60]
    return abs(float(corner[20, 10]) - float(corner[5, 10])) > 0.2


def test_what_the_window_shows_whole_is_searched_in_one_view():
    parameters = {"values": phantom(), "window": (2048, 4096)}
    (view,) = views_searched(**parameters)
    assert np.array_equal(view, view_of(**parameters))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("ground", "ink"), [(0, 600), (600, 0), (4095, 3400), (3400, 4095)])
def test_letters_beyond_the_window_are_in_the_second_view(photometric, ground, ink):
    values = lettered(1000, 3000, ground, ink)
    parameters = {"values": values, "window": (2000, 1600), "photometric": photometric}
    first, second = views_searched(**parameters)
    assert not shows_the_letters(first)
    assert shows_the_letters(second)
    assert second.dtype == np.float32
    assert 0 <= second.min() <= second.max() <= 1


def test_an_outlier_does_not_hide_letters_beyond_the_window():
    values = np.full((200, 160), 30_000, np.uint16)
    values[50:, :] = (phantom(150, 160) * 3 + 26_000).astype(np.uint16)
    values[:40, :60], values[10:30, 10:50:4], values[45, 45] = 60, 0, 20_000
    views = views_searched(values=values, bits_stored=16, window=(33_000, 16_000))
    assert shows_the_letters(views[1])


def test_letters_that_a_voi_lut_flattens_are_in_the_second_view():
    table = np.clip(np.arange(4096) - 1000, 0, 2000).astype(np.uint16)
    first, second = views_searched(
        values=lettered(1200, 2800, 100, 300), voi_lut=lut(table, first=0, bits=11)
    )
    assert not shows_the_letters(first)
    assert shows_the_letters(second)


@pytest.mark.parametrize("window", [None, (2048, 4096)])
def test_letters_in_what_the_header_calls_padding_are_searched(window):
    values = lettered(1000, 4095, 100, 700)
    parameters = {"values": values, "window": window, "padding": (0, 900)}
    assert not shows_the_letters(view_of(**parameters))
    views = views_searched(**parameters)
    assert max(np.ptp(view[:40, :60]) for view in views) > 0.1


def test_an_image_of_one_grey_is_searched_in_one_view():
    assert len(views_searched(values=np.full((20, 20), 7, np.uint16))) == 1
