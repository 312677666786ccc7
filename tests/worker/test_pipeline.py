"""One instance through all steps: whole, safe, and the same each time."""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prichexy_testing.dicoms import canary_values, phantom, radiograph_dataset, write
from prichexy_testing.finders import Finds, region
from prichexy_testing.generators import Unjudged
from prichexy_testing.shared_data import REPO, pydicom_data
from prichexy_worker import pixels
from prichexy_worker.contract import Looked, ModelInfo, Reason
from prichexy_worker.errors import Rejected
from prichexy_worker.pipeline import Anonymized, Stopwatch, Tools, anonymize
from prichexy_worker.pseudonyms import Pseudonyms
from prichexy_worker.settings import Syntax
from prichexy_worker.text import Mask

Floats = npt.NDArray[np.float32]
STEPS = ["inspect", "decode", "text", "deform", "judge", "deidentify", "encode", "check"]


class Shift(Unjudged):
    """A generator that moves everything by the same part of the picture, rightwards and down."""

    model = ModelInfo("shift", "1", "ab" * 32, "untrained", "Moves everything.")

    def __init__(self, amount: float, size: int = 256) -> None:
        self.amount = amount
        self.input_size = size

    def displacement(self, view: Floats) -> Floats:
        assert view.shape == (self.input_size, self.input_size)
        assert view.dtype == np.float32
        return np.full((2, *view.shape), self.amount, np.float32)


def tools(
    amount: float = 0.0,
    finder: Finds | None = None,
    syntax: Syntax = "explicit-little-endian",
) -> Tools:
    return Tools(Shift(amount), Pseudonyms(bytes(range(32))), finder or Finds(), syntax)


def read(result: Anonymized) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(result.content))


CONTENT = write(radiograph_dataset(nested=True, private=True))


def test_the_result_names_itself_as_it_does_inside() -> None:
    result = anonymize(CONTENT, tools())
    inside = read(result)
    assert inside.PatientID == result.patient_id
    assert inside.StudyInstanceUID == result.study_uid
    assert inside.SeriesInstanceUID == result.series_uid
    assert inside.SOPInstanceUID == inside.file_meta.MediaStorageSOPInstanceUID == result.sop_uid


def test_no_identifying_value_of_the_source_is_in_the_bytes_or_in_what_is_told_of_them() -> None:
    result = anonymize(CONTENT, tools(0.1))
    told = repr(result)
    for value in canary_values():
        assert value.encode() not in result.content
        assert value not in told


def test_twice_gives_identical_bytes() -> None:
    first, second = (anonymize(CONTENT, tools(0.05)) for _ in range(2))
    assert first.content == second.content


def test_a_generator_of_another_size_sees_its_own_and_deforms_alike() -> None:
    small = Tools(Shift(0.05, size=64), Pseudonyms(bytes(range(32))), Finds())
    large = Tools(Shift(0.05, size=1024), Pseudonyms(bytes(range(32))), Finds())
    first, second = (anonymize(CONTENT, one).measures for one in (small, large))
    # A part of the picture is that part of it, whatever the size at which it was decided.
    assert first["max_displacement_px"] == pytest.approx(second["max_displacement_px"], rel=0.02)


def test_another_key_gives_another_identity() -> None:
    other = Tools(Shift(0), Pseudonyms(bytes(32)), Finds())
    first, second = anonymize(CONTENT, tools()), anonymize(CONTENT, other)
    assert first.sop_uid != second.sop_uid
    assert first.patient_id != second.patient_id


@settings(max_examples=20, deadline=None)
@given(
    bits=st.integers(8, 16),
    signed=st.booleans(),
    photometric=st.sampled_from(["MONOCHROME1", "MONOCHROME2"]),
    rows=st.integers(8, 40),
    columns=st.integers(8, 40),
    syntax=st.sampled_from(["explicit-little-endian", "rle-lossless", "jpeg-ls-lossless"]),
)
def test_zero_displacement_leaves_the_pixels_bit_for_bit(
    bits: int, signed: bool, photometric: str, rows: int, columns: int, syntax: Syntax
) -> None:
    values = phantom(rows, columns, bits_stored=bits, signed=signed)
    content = write(
        radiograph_dataset(values=values, bits_stored=bits, signed=signed, photometric=photometric)
    )
    decoded = pixels.decode(read(anonymize(content, tools(0.0, syntax=syntax))))
    np.testing.assert_array_equal(decoded.values, values)
    assert decoded.bits_stored == bits
    assert decoded.inverted == (photometric == "MONOCHROME1")


def test_a_displacement_moves_the_pixels_and_is_measured() -> None:
    values = phantom(96, 80)
    result = anonymize(write(radiograph_dataset(values=values)), tools(0.1))
    moved = pixels.decode(read(result)).values
    assert moved.shape == values.shape
    assert (moved != values).mean() > 0.5
    assert result.measures["max_displacement_px"] == pytest.approx(
        np.hypot(0.1 * 80 / 2, 0.1 * 96 / 2), rel=0.05
    )


def test_each_step_is_timed_and_together_they_are_all() -> None:
    ticks = itertools.count()
    result = anonymize(CONTENT, tools(), clock=lambda: float(next(ticks)))
    assert list(result.durations) == STEPS
    assert set(result.durations.values()) == {1.0}


def test_a_step_that_fails_is_timed_and_a_step_taken_twice_adds_up() -> None:
    ticks: Iterator[float] = iter([0.0, 1.0, 5.0, 7.0])
    watch = Stopwatch(lambda: next(ticks))
    with watch.step("fetch"):
        pass
    with pytest.raises(KeyError), watch.step("fetch"):
        raise KeyError
    assert watch.seconds == {"fetch": 3.0}


def test_text_in_the_image_is_erased_before_it_is_deformed_and_a_side_marker_is_not() -> None:
    before = pixels.decode(pydicom.dcmread(io.BytesIO(CONTENT))).values
    kept = anonymize(CONTENT, tools(finder=Finds(region(marker=True))))
    np.testing.assert_array_equal(pixels.decode(read(kept)).values, before)
    assert kept.measures["text_markers_kept"] == 1
    assert kept.measures["text_erased_share"] == 0
    result = anonymize(CONTENT, tools(finder=Finds(region(marker=False), only_in=1)))
    after = pixels.decode(read(result)).values
    assert (after != before)[1:5, 1:9].any()
    assert result.measures["text_regions_erased"] == 1
    assert result.measures["text_erased_share"] >= (after != before).mean() > 0
    # What was erased is no deformation.
    assert result.measures["changed_share"] == 0


def test_pixels_are_said_to_be_clean_after_the_search() -> None:
    searched = read(anonymize(CONTENT, tools(finder=Finds(region(marker=False), only_in=1))))
    codes = [item.CodeValue for item in searched.DeidentificationMethodCodeSequence]
    assert codes == ["113100", "113101"]
    assert searched.BurnedInAnnotation == "NO"


def test_text_that_does_not_vanish_is_turned_away() -> None:
    with pytest.raises(Rejected) as caught:
        anonymize(CONTENT, tools(finder=Finds(region(marker=True), region(marker=False))))
    assert caught.value.reason is Reason.BURNED_IN_TEXT
    assert caught.value.pictures


def test_a_header_that_speaks_of_text_is_believed_only_when_some_was_erased() -> None:
    content = write(radiograph_dataset(BurnedInAnnotation="YES"))
    result = anonymize(content, tools(finder=Finds(region(marker=False), only_in=1)))
    assert read(result).BurnedInAnnotation == "NO"
    with pytest.raises(Rejected) as caught:
        anonymize(content, tools(finder=Finds()))
    assert caught.value.reason is Reason.BURNED_IN_TEXT


def test_masks_are_filled_whatever_the_search_finds() -> None:
    mask = Mask(boxes=((0, 0, 20, 10),), station="CANARYST*")
    masked = replace(tools(), masks=(mask,))
    before = pixels.decode(pydicom.dcmread(io.BytesIO(CONTENT))).values
    result = read(anonymize(CONTENT, masked))
    changed = pixels.decode(result).values != before
    assert changed[:10, :20].mean() > 0.5
    assert not changed[10:].any()
    assert not changed[:, 20:].any()


def test_an_image_in_which_something_was_filled_is_derived_and_says_so() -> None:
    mask = Mask(boxes=((0, 0, 20, 10),), station="CANARYST*")
    same, filled = (read(anonymize(CONTENT, replace(tools(), masks=m))) for m in ((), (mask,)))
    assert same.ImageType[0] == "ORIGINAL"
    assert "filled" not in same.DerivationDescription
    assert filled.ImageType[0] == "DERIVED"
    assert "were filled" in filled.DerivationDescription


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", Reason.UNREADABLE),
        (b"no DICOM at all, but longer than a preamble" * 9, Reason.UNREADABLE),
        (write(radiograph_dataset(body_part="HAND")), Reason.NOT_A_CHEST_RADIOGRAPH),
        (write(radiograph_dataset(BurnedInAnnotation="YES")), Reason.BURNED_IN_TEXT),
        (write(radiograph_dataset(PixelData=None)), Reason.NO_PIXEL_DATA),
        (write(radiograph_dataset(NumberOfFrames=2)), Reason.MULTI_FRAME),
    ],
)
def test_what_cannot_be_made_safe_is_turned_away(content: bytes, reason: Reason) -> None:
    with pytest.raises(Rejected) as caught:
        anonymize(content, tools())
    assert caught.value.reason is reason
    assert not any(value in str(caught.value) for value in canary_values())


def test_a_header_that_lets_a_value_through_is_caught_before_it_leaves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from prichexy_worker import header

    real = header.deidentify

    def leaky(*arguments: object) -> pydicom.Dataset:
        result = real(*arguments)  # type: ignore[arg-type]
        result.ImageComments = "seen by CANARYREFERRER^DOCTOR"
        return result

    monkeypatch.setattr(header, "deidentify", leaky)
    with pytest.raises(Rejected) as caught:
        anonymize(CONTENT, tools())
    assert caught.value.reason is Reason.IDENTITY_SURVIVED
    assert "CANARY" not in str(caught.value)


def test_a_real_radiograph_goes_through_the_real_generator_twice_alike() -> None:
    from prichexy_worker.engine import Engine

    bundle = Path(REPO / "model" / "untrained")
    engine = Engine.load(bundle, device="cpu", threads=1)
    content = pydicom_data("RG1_UNCR.dcm").read_bytes()
    real = Tools(engine, Pseudonyms(bytes(range(32))), Finds())
    first, second = (anonymize(content, real) for _ in range(2))
    assert first.content == second.content
    before, after = pydicom.dcmread(io.BytesIO(content)), read(first)
    assert (after.Rows, after.Columns, after.BitsStored) == (1955, 1841, 15)
    assert after.PhotometricInterpretation == before.PhotometricInterpretation
    assert str(before.PatientName) not in str(after)
    assert first.measures["max_displacement_px"] > 1


def test_a_patient_whose_name_we_use_as_a_word_is_not_held_back() -> None:
    content = write(radiograph_dataset(PatientName="BASIC^PROFILE"))
    assert b"BASIC^PROFILE" not in anonymize(content, tools()).content


def test_an_image_that_is_called_padding_is_not_released_as_it_is() -> None:
    content = write(radiograph_dataset(padding=(0, 4095)))
    with pytest.raises(Rejected) as caught:
        anonymize(content, tools(0.1))
    assert caught.value.reason is Reason.UNSUPPORTED_PIXELS


def test_text_beyond_the_window_is_looked_for_in_a_second_view() -> None:
    narrow = write(radiograph_dataset(window=(2048, 1000)))
    finder = Finds(region(marker=False), only_in=2)
    assert anonymize(narrow, tools(finder=finder)).measures["text_regions_erased"] == 1
    wide = write(radiograph_dataset(window=(2048, 4096)))
    finder = Finds()
    assert anonymize(wide, tools(finder=finder)).content
    assert len(finder.views) == 2, "one of the original, one of the result"


def test_what_the_header_calls_padding_is_shown_to_the_search_for_text() -> None:
    finder = Finds()
    values = phantom(96, 80).copy()
    values[:20, :20] = np.arange(400).reshape(20, 20)
    with_padding = radiograph_dataset(values=values, padding=(0, 400), window=(2048, 4096))
    anonymize(write(with_padding), tools(finder=finder))
    assert np.ptp(finder.views[0][:20, :20]) > 0.05


@pytest.mark.parametrize(("amount", "said"), [(0.0, False), (0.1, True)])
def test_deformed_is_said_only_of_pixels_that_changed(amount: float, said: bool) -> None:
    result = anonymize(CONTENT, tools(amount))
    assert (result.measures["changed_share"] > 0) is said
    inside = read(result)
    assert ("not deformed" in inside.DerivationDescription) is not said
    assert ("DerivationCodeSequence" in inside) is said
    assert any("deformed" in text for text in inside.DeidentificationMethod) is said


@pytest.mark.parametrize("syntax", ["rle-lossless", "jpeg-ls-lossless"])
def test_compressed_results_are_searched_before_they_are_compressed(syntax: Syntax) -> None:
    values = np.zeros((64, 64), np.uint8)
    hidden = np.frombuffer(b"CANARY-PATIENT-4711", np.uint8)
    values[20, 5 : 5 + hidden.size] = hidden
    content = write(radiograph_dataset(values=values, bits_stored=8))
    with pytest.raises(Rejected) as caught:
        anonymize(content, tools(syntax=syntax))
    assert caught.value.reason is Reason.IDENTITY_SURVIVED


def test_a_patient_id_among_the_numbers_is_not_released() -> None:
    named = radiograph_dataset(PatientID="47110", SeriesNumber=47110)
    assert read(anonymize(write(named), tools())).SeriesNumber is None
    named = radiograph_dataset(PatientBirthDate="19700101", window=(1970.0101, 4000))
    with pytest.raises(Rejected) as caught:
        anonymize(write(named), tools())
    assert caught.value.reason is Reason.IDENTITY_SURVIVED


DIGEST = hashlib.sha256(CONTENT).hexdigest()


def doubted(tools: Tools, content: bytes = CONTENT) -> Rejected:
    with pytest.raises(Rejected) as caught:
        anonymize(content, tools)
    assert caught.value.reason is Reason.BURNED_IN_TEXT
    return caught.value


@pytest.mark.parametrize(
    ("finder", "amount"),
    [
        (Finds(region(marker=False)), 0.0),
        (Finds(region(marker=False), only_in=3), 0.05),
    ],
    ids=["before the pixels move", "in the result"],
)
def test_what_is_in_doubt_comes_with_the_whole_image_as_it_came_in(
    finder: Finds, amount: float
) -> None:
    refusal = doubted(tools(amount, finder))
    [doubt] = refusal.doubts
    image = pydicom.dcmread(io.BytesIO(CONTENT))
    assert (doubt.digest, doubt.rows, doubt.columns) == (DIGEST, image.Rows, image.Columns)
    assert doubt.picture.startswith(b"\x89PNG")
    [box] = doubt.boxes
    assert box[0] <= 1
    assert box[2] >= 9 + amount * image.Columns / 2 - 1
    assert doubt.picture not in repr(refusal).encode()


def test_an_image_that_a_person_decided_over_is_released_and_no_other() -> None:
    found = Finds(region(marker=False))
    [doubt] = doubted(tools(0.02, found)).doubts
    looked = {DIGEST: Looked(DIGEST, ((0, 0, 30, 30),), doubt.boxes)}
    released = anonymize(CONTENT, replace(tools(0.02, found), looked=looked))
    assert read(released).BurnedInAnnotation == "NO"
    assert released.measures["text_erased_share"] > 0
    other = write(radiograph_dataset(nested=True, private=True, InstanceNumber="9"))
    [later] = doubted(replace(tools(0.02, found), looked=looked), other).doubts
    assert later.digest == hashlib.sha256(other).hexdigest()


def test_what_no_look_can_mend_comes_with_no_image_to_decide_over() -> None:
    content = write(radiograph_dataset(body_part="HIP"))
    looked = {hashlib.sha256(content).hexdigest(): Looked("d" * 64)}
    with pytest.raises(Rejected) as caught:
        anonymize(content, replace(tools(), looked=looked))
    assert caught.value.reason is Reason.NOT_A_CHEST_RADIOGRAPH
    assert caught.value.doubts == ()


def test_a_result_says_with_how_much_strength_it_was_deformed() -> None:
    as_it_is, stronger = tools(0.02), replace(tools(0.03), strength=1.5)
    told = [read(anonymize(CONTENT, each)).DerivationDescription for each in (as_it_is, stronger)]
    assert ["at 1.5 times its strength" in one for one in told] == [False, True]
    assert "strength" not in told[0]
