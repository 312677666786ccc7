"""Erasing text: the whole of it, nothing of it left, and nothing else touched."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prichexy_testing.dicoms import phantom
from prichexy_worker.pixels import Radiograph
from prichexy_worker.text import TextRegion, area_of
from prichexy_worker.text.erasing import LENGTHENED, WIDENED, fill
from prichexy_worker.text.finder import Corners

Area = npt.NDArray[np.bool_]


def erase(radiograph: Radiograph, regions: list[TextRegion]) -> Radiograph:
    return fill(radiograph, area_of(radiograph.values.shape, regions))


def radiograph(
    bits: int = 12,
    *,
    signed: bool = False,
    inverted: bool = False,
    padding: tuple[int, int] | None = None,
    seed: int = 7,
) -> Radiograph:
    values = phantom(96, 120, bits_stored=bits, signed=signed, seed=seed)
    return Radiograph(values, bits, inverted, padding)


def turned(x: float, y: float, width: float, height: float, degrees: float) -> Corners:
    """Give a rectangle around a centre, its longer side turned by ``degrees``."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return tuple(
        (x + u * cosine - v * sine, y + u * sine + v * cosine)
        for u, v in (
            (-width / 2, -height / 2),
            (width / 2, -height / 2),
            (width / 2, height / 2),
            (-width / 2, height / 2),
        )
    )


def region(*quads: Corners, marker: bool = False) -> TextRegion:
    points = np.array(quads).reshape(-1, 2)
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    return TextRegion(int(left), int(top), int(right), int(bottom), 0.9, marker, quads)


def box(left: int, top: int, right: int, bottom: int) -> TextRegion:
    return TextRegion(left, top, right, bottom, 0.9, marker=False)


@pytest.mark.parametrize("degrees", [0, 5, 30, 45, 90, 135, 180, 270])
def test_a_text_is_erased_lengthened_along_its_direction_and_a_little_wider(degrees: int) -> None:
    x, y, length, height = 300.0, 250.0, 120.0, 20.0
    area = area_of((500, 600), [region(turned(x, y, length, height, degrees))])
    rows, columns = np.mgrid[0:500, 0:600]
    turn = math.radians(degrees)
    along = abs((columns - x) * math.cos(turn) + (rows - y) * math.sin(turn))
    across = abs((rows - y) * math.cos(turn) - (columns - x) * math.sin(turn))
    half_length = length / 2 + LENGTHENED * height + 2
    half_height = height / 2 + WIDENED * height + 2
    assert area[(along < half_length - 1) & (across < half_height - 1)].all()
    assert not area[(along > half_length + 1) | (across > half_height + 1)].any()


def test_a_letter_is_erased_with_what_may_stand_beside_above_and_below_it() -> None:
    area = area_of((200, 200), [box(90, 90, 110, 110)])
    rows, columns = np.flatnonzero(area.any(axis=1)), np.flatnonzero(area.any(axis=0))
    expected = 20 + 2 * (20 * LENGTHENED / 2 + 2)
    assert rows.size == pytest.approx(expected, abs=2)
    assert columns.size == pytest.approx(expected, abs=2)


def test_every_outline_of_a_region_is_erased() -> None:
    one, two = turned(100, 40, 60, 10, 0), turned(140, 90, 60, 10, 90)
    both = area_of((200, 300), [region(one, two)])
    assert (both == (area_of((200, 300), [region(one)]) | area_of((200, 300), [region(two)]))).all()


def test_a_marker_is_not_erased_unless_a_text_reaches_it() -> None:
    source = radiograph()
    marker = region(turned(100, 20, 20, 10, 0), marker=True)
    assert erase(source, [marker]) is source
    near = region(turned(75, 20, 40, 10, 0))
    assert area_of((96, 120), [marker, near])[15:25, 90:105].all()


def test_an_outline_beyond_the_edge_is_cut_off() -> None:
    area = area_of((50, 60), [region(turned(0, 0, 40, 10, 20))])
    assert area[0, 0]
    assert not area[-1, -1]


@settings(max_examples=60, deadline=None)
@given(
    bits=st.integers(8, 16),
    signed=st.booleans(),
    inverted=st.booleans(),
    centre=st.tuples(st.integers(0, 119), st.integers(0, 95)),
    size=st.tuples(st.integers(6, 60), st.integers(4, 16)),
    degrees=st.integers(0, 359),
    seed=st.integers(0, 2**16),
)
def test_nothing_of_the_inside_survives_and_nothing_outside_is_touched(
    bits: int,
    signed: bool,
    inverted: bool,
    centre: tuple[int, int],
    size: tuple[int, int],
    degrees: int,
    seed: int,
) -> None:
    source = radiograph(bits, signed=signed, inverted=inverted)
    found = [region(turned(*centre, *size, degrees))]
    inside = area_of(source.values.shape, found)
    other = source.values.copy()
    ends = np.iinfo(source.values.dtype)
    other[inside] = np.random.default_rng(seed).integers(
        ends.min, ends.max, int(inside.sum()), endpoint=True
    )
    first = erase(source, found)
    second = erase(Radiograph(other, bits, inverted), found)
    np.testing.assert_array_equal(first.values, second.values)
    np.testing.assert_array_equal(first.values[~inside], source.values[~inside])
    assert first.values.dtype == source.values.dtype
    assert (first.bits_stored, first.inverted) == (bits, inverted)
    assert source.values.min() <= first.values.min()
    assert first.values.max() <= source.values.max()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**16), padding=st.sampled_from([(0, 0), (1000, 1100), (4095, 4095)]))
def test_letters_in_the_padding_leave_no_trace_either(seed: int, padding: tuple[int, int]) -> None:
    values = phantom(96, 120, bits_stored=12, seed=3).copy()
    values[:, :50] = padding[0]
    area = np.zeros(values.shape, np.bool_)
    area[20:40, 10:90] = True
    random = np.random.default_rng(seed)
    written = values.copy()
    written[area] = random.choice([padding[0], padding[1], 2048, 7], int(area.sum()))
    plain = fill(Radiograph(values, 12, padding=padding), area)
    erased = fill(Radiograph(written, 12, padding=padding), area)
    np.testing.assert_array_equal(plain.values, erased.values)
    padded = erased.padded()
    assert padded is not None
    assert padded[20:40, 10:40].all()
    assert not padded[20:40, 60:90][values[20:40, 60:90] < 0].any()
    # What is filled beside the padding is image: none of it turned into padding by interpolation.
    assert not padded[24:36, 60:86].any()
    assert erased.padding == padding


def test_an_area_amid_padding_becomes_padding() -> None:
    values = np.full((60, 60), 9, np.uint16)
    values[25:30, 20:40] = 4000
    area = np.zeros(values.shape, np.bool_)
    area[22:33, 15:45] = True
    assert (fill(Radiograph(values, 12, padding=(9, 9)), area).values == 9).all()


def test_a_whole_image_becomes_nothing() -> None:
    source = radiograph()
    assert not fill(source, np.ones(source.values.shape, np.bool_)).values.any()


def test_filling_goes_on_from_side_to_side() -> None:
    values = np.tile(np.linspace(100, 900, 81).astype(np.int16), (40, 1))
    area = np.zeros(values.shape, np.bool_)
    area[10:30, 30:50] = True
    filled = fill(Radiograph(values, 12), area).values
    assert abs(filled.astype(int) - values).max() < 90


def test_nothing_to_erase_gives_the_same_radiograph_and_a_result_cannot_be_written_to() -> None:
    source = radiograph()
    assert erase(source, []) is source
    with pytest.raises(ValueError, match="read-only"):
        erase(source, [box(10, 10, 40, 20)]).values[0, 0] = 1
