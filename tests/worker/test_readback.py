"""What an export target holds is compared with what it was sent, to the last pixel."""

from __future__ import annotations

import io

import numpy as np
import pydicom
import pytest
from pydicom.uid import ImplicitVRLittleEndian, RLELossless

from prichexy_testing.dicoms import phantom, radiograph_dataset, write
from prichexy_worker.readback import differences

SENT = write(radiograph_dataset(rows=16, columns=16, nested=True))


def altered(**attributes: object) -> bytes:
    return write(radiograph_dataset(rows=16, columns=16, nested=True, **attributes))  # type: ignore[arg-type]


def test_the_same_bytes_do_not_differ() -> None:
    assert differences(SENT, bytes(SENT)) == ()


def test_nothing_at_all_is_missing() -> None:
    assert differences(SENT, None) == ("missing",)


@pytest.mark.parametrize("held", [b"", b"no DICOM", SENT[:140], SENT[:200]])
def test_what_cannot_be_read_is_said_to_be_so_or_differs(held: bytes) -> None:
    assert differences(SENT, held) != ()


def test_an_altered_value_is_named_by_its_tag_only() -> None:
    assert differences(SENT, altered(ViewPosition="AP")) == ("(0018,5101)",)


def test_an_attribute_less_and_an_attribute_more_differ() -> None:
    assert differences(SENT, altered(ViewPosition=None)) == ("(0018,5101)",)
    assert differences(SENT, altered(Laterality="L")) == ("(0020,0060)",)


def test_a_single_pixel_differs() -> None:
    values = phantom(16, 16)
    one = write(radiograph_dataset(values=values))
    values = values.copy()
    values[7, 7] ^= 1
    assert differences(one, write(radiograph_dataset(values=values))) == ("(7FE0,0010)",)


def test_a_value_deep_in_a_sequence_differs() -> None:
    dataset = pydicom.dcmread(io.BytesIO(SENT))
    dataset.RequestAttributesSequence[0].RequestedProcedureID = "ANOTHER"
    assert differences(SENT, write(dataset)) == ("(0040,0275)",)


def test_a_target_may_write_its_own_file_meta_information() -> None:
    dataset = pydicom.dcmread(io.BytesIO(SENT))
    dataset.file_meta.ImplementationVersionName = "THE TARGET"
    held = write(dataset)
    assert held != SENT
    assert differences(SENT, held) == ()


def test_a_target_may_store_in_another_lossless_syntax() -> None:
    implicit = pydicom.dcmread(io.BytesIO(SENT))
    implicit.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, implicit, implicit_vr=True, little_endian=True)
    assert differences(SENT, buffer.getvalue()) == ()
    packed = pydicom.dcmread(io.BytesIO(SENT))
    packed.compress(RLELossless, generate_instance_uid=False)
    assert differences(SENT, write(packed)) == ()


def test_another_syntax_does_not_excuse_another_pixel() -> None:
    packed = pydicom.dcmread(io.BytesIO(SENT))
    values = packed.pixel_array.copy()
    values[3, 3] = 0 if values[3, 3] else 1
    packed.PixelData = np.ascontiguousarray(values).tobytes()
    packed.compress(RLELossless, generate_instance_uid=False)
    assert differences(SENT, write(packed)) == ("(7FE0,0010)",)
