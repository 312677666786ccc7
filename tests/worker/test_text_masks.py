"""Fixed masks: on which images they lie, where, and what a wrong entry is told."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset

from prichexy_worker.errors import Misconfigured
from prichexy_worker.text import Mask, masks_of
from prichexy_worker.text.masks import Box, masked_area

SHAPE = (100, 80)


def header(**attributes: object) -> Dataset:
    dataset = Dataset()
    dataset.Manufacturer, dataset.ManufacturerModelName = "Example Medical", "Ray 9"
    dataset.StationName = "ROOM3"
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.mark.parametrize(
    "conditions",
    [
        {"manufacturer": "Example*"},
        {"manufacturer": "example medical"},
        {"model": "Ray ?"},
        {"station": "ROOM[1-4]"},
        {"rows": 100, "columns": 80},
        {"manufacturer": "Example*", "model": "Ray 9", "station": "ROOM3", "rows": 100},
    ],
)
def test_a_mask_lies_on_images_that_meet_all_its_conditions(conditions: dict[str, object]) -> None:
    (mask,) = masks_of([{"boxes": [[0, 0, 10, 10]], **conditions}])
    assert mask.applies(header(), SHAPE)


@pytest.mark.parametrize(
    "conditions",
    [
        {"manufacturer": "Other*"},
        {"manufacturer": "Example"},
        {"station": "ROOM[5-9]"},
        {"rows": 80, "columns": 100},
        {"manufacturer": "Example*", "columns": 81},
    ],
)
def test_a_mask_lies_on_no_other_image(conditions: dict[str, object]) -> None:
    masks = masks_of([{"boxes": [[0, 0, 10, 10]], **conditions}])
    assert not masked_area(masks, header(), SHAPE).any()


def test_a_header_without_the_attribute_meets_no_pattern_but_one_for_everything() -> None:
    bare = Dataset()
    assert not Mask(((0, 0, 1, 1),), station="ROOM?").applies(bare, SHAPE)
    assert Mask(((0, 0, 1, 1),), station="*").applies(bare, SHAPE)


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ((5, 10, 20, 30), (10, 30), (5, 20)),
        ((-20, 0, 0, 15), (0, 15), (60, 80)),
        ((0, -30, 40, -10), (70, 90), (0, 40)),
        ((-200, 90, 10, 500), (90, 100), (0, 10)),
        ((70, 95, 300, 0), (95, 100), (70, 80)),
    ],
)
def test_boxes_count_from_either_edge_and_end_at_the_image(
    box: Box, rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    expected = np.zeros(SHAPE, np.bool_)
    expected[slice(*rows), slice(*columns)] = True
    np.testing.assert_array_equal(masked_area([Mask((box,), rows=100)], header(), SHAPE), expected)


def test_a_box_beyond_the_image_covers_nothing() -> None:
    mask = Mask(((90, 0, 95, 10), (0, 0, -90, 10)), rows=100)
    assert not masked_area([mask], header(), SHAPE).any()


def test_several_masks_and_boxes_add_up() -> None:
    masks = masks_of(
        [
            {"rows": 100, "boxes": [[0, 0, 10, 10], [0, -10, 10, 0]]},
            {"station": "ROOM*", "boxes": [[-10, 0, 0, 10]]},
        ]
    )
    assert np.count_nonzero(masked_area(masks, header(), SHAPE)) == 300


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"rows": 5}, "mask 2: boxes"),
        ({"rows": 5, "boxes": []}, "mask 2: boxes"),
        ({"rows": 5, "boxes": "all"}, "mask 2: boxes"),
        ({"boxes": [[0, 0, 1, 1]]}, "mask 2 has no condition"),
        ({"rows": 5, "boxes": [[0, 0, 1]]}, "mask 2: boxes, number 1 must be four"),
        ({"rows": 5, "boxes": [[0, 0, 1, 1], [0, 0, 1.5, 1]]}, "mask 2: boxes, number 2"),
        ({"rows": 5, "boxes": [[0, 0, True, 1]]}, "mask 2: boxes, number 1"),
        ({"rows": 5, "boxes": [[9, 0, 3, 1]]}, "number 1 is empty: left and right"),
        ({"rows": 5, "boxes": [[0, -3, 3, -3]]}, "number 1 is empty: top and bottom"),
        ({"rows": "5", "boxes": [[0, 0, 1, 1]]}, "mask 2: rows"),
        ({"columns": 0, "boxes": [[0, 0, 1, 1]]}, "mask 2: columns"),
        ({"rows": True, "boxes": [[0, 0, 1, 1]]}, "mask 2: rows"),
        ({"station": "", "boxes": [[0, 0, 1, 1]]}, "mask 2: station"),
        ({"manufacturer": 7, "boxes": [[0, 0, 1, 1]]}, "mask 2: manufacturer"),
        ({"colour": "red", "boxes": [[0, 0, 1, 1]]}, "mask 2: 'colour' is not known"),
        ("all", "mask 2 must be a table"),
    ],
)
def test_a_wrong_entry_is_named_with_its_key(entry: dict[str, object], told: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        masks_of([{"rows": 9, "boxes": [[0, 0, 1, 1]]}, entry])
    assert told in str(refused.value)


def test_no_entries_are_no_masks() -> None:
    assert masks_of([]) == ()
