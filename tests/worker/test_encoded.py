"""The reader of encoded files: every value where it lies, and nothing it does not understand."""

from __future__ import annotations

from io import BytesIO

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from prichexy_testing.dicoms import code, lut, phantom, radiograph_dataset, write
from prichexy_worker.encoded import PIXEL_DATA, NotSearchable, elements

FILE = write(radiograph_dataset(nested=True, private=True, region=("51185008", "SCT", "Chest")))


def values(content: bytes) -> list[tuple[tuple[int, ...], bytes]]:
    return [(element.path, content[element.start : element.end]) for element in elements(content)]


def as_pydicom_reads(dataset: Dataset, path: tuple[int, ...] = ()) -> list[tuple[int, ...]]:
    found = []
    for element in dataset:
        here = (*path, int(element.tag))
        if element.VR == "SQ":
            for item in element.value:
                found += as_pydicom_reads(item, here)
        else:
            found.append(here)
    return found


@pytest.mark.parametrize("undefined_lengths", [False, True])
def test_it_gives_every_element_that_pydicom_gives(undefined_lengths: bool) -> None:
    dataset = radiograph_dataset(
        nested=True, private=True, voi_lut=lut(phantom(4, 4)[0], first=0, bits=12)
    )
    for element in dataset.iterall():
        if element.VR == "SQ":
            element.is_undefined_length = undefined_lengths
            for item in element.value:
                item.is_undefined_length_sequence_item = undefined_lengths
    content = write(dataset)
    read = pydicom.dcmread(BytesIO(content))
    expected = as_pydicom_reads(read.file_meta) + as_pydicom_reads(read)
    assert [path for path, _ in values(content)] == expected


def test_a_value_is_what_stands_between_start_and_end() -> None:
    found = dict(values(FILE))
    assert found[(0x00100020,)].rstrip(b" ") == b"CANARY-PATIENT-4711"
    assert found[(0x00400275, 0x00080050)] == b"CANARYACC0815 "


def test_encapsulated_pixel_data_is_one_value() -> None:
    dataset = radiograph_dataset()
    dataset.compress(RLELossless)
    last = list(elements(write(dataset)))[-1]
    assert last.tag == PIXEL_DATA
    assert last.encapsulated
    assert last.end - last.start > 64


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_other_encodings_are_refused(syntax: str) -> None:
    dataset = radiograph_dataset(transfer_syntax=syntax)
    with pytest.raises(NotSearchable, match="transfer syntax"):
        list(elements(write(dataset)))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "prefix"),
        (FILE[128:], "prefix"),
        (FILE[:-1], "longer than the file"),
        (FILE + b"\0", "ends within"),
        (FILE + b"PATIENT\0NAME", "without a VR"),
        (FILE + b"\x08\x00\x05\x00CS\xff\xffabc", "longer than the file"),
        (FILE + b"\x09\x00\x10\x10UN\0\0\xff\xff\xff\xff", "undefined length"),
    ],
)
def test_what_is_not_whole_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(NotSearchable, match=why):
        list(elements(content))


def test_sequences_nested_without_end_are_refused() -> None:
    item = code("1", "99X", "x")
    for _ in range(80):
        outer = Dataset()
        outer.ConceptCodeSequence = [item]
        item = outer
    with pytest.raises(NotSearchable, match="too deep"):
        list(elements(write(radiograph_dataset(RequestAttributesSequence=[item]))))


@settings(max_examples=200, deadline=None)
@given(st.integers(132, len(FILE) - 1), st.binary(min_size=1, max_size=8))
def test_a_damaged_file_is_read_to_its_end_or_refused(position: int, damage: bytes) -> None:
    content = FILE[:position] + damage + FILE[position + len(damage) :]
    try:
        found = list(elements(content))
    except NotSearchable:
        return
    assert found[-1].end == len(content)
