"""What ``explain`` tells of an object, and that it is what then happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from prichexy_testing.dicoms import CANARIES, lut
from prichexy_testing.headers import KEY, PROVENANCE, cr, dx, reread, secondary_capture
from prichexy_worker import header
from prichexy_worker.contract import Reason
from prichexy_worker.errors import Rejected
from prichexy_worker.header.explain import Explanation, explain
from prichexy_worker.header.options import Option
from prichexy_worker.header.profile import BASIC, Profile
from prichexy_worker.pseudonyms import Pseudonyms


def explained(dataset: Dataset, profile: Profile = BASIC) -> dict[str, Explanation]:
    found = explain(reread(dataset), profile.pseudonyms(Pseudonyms(KEY)), profile)
    return {one.place: one for one in found}


@pytest.mark.parametrize(
    ("place", "keyword", "fate", "row"),
    [
        ("(0010,0010)", "PatientName", "replaced", "Z"),
        ("(0008,0018)", "SOPInstanceUID", "replaced", "U"),
        ("(0008,0020)", "StudyDate", "emptied", "Z"),
        ("(0008,1030)", "StudyDescription", "removed", "X"),
        ("(0028,0010)", "Rows", "kept", ""),
        ("(7FE0,0010)", "PixelData", "changed", ""),
        ("(0012,0062)", "PatientIdentityRemoved", "written", ""),
    ],
)
def test_each_attribute_has_its_fate_and_its_row(
    place: str, keyword: str, fate: str, row: str
) -> None:
    one = explained(cr())[place]
    assert (one.keyword, one.fate, one.table) == (keyword, fate, row)
    assert one.why


def test_an_option_is_named_in_the_row_that_it_decides() -> None:
    one = explained(cr(), Profile.made_of("dates", [Option.MODIFIED_DATES]))["(0008,0020)"]
    assert (one.fate, one.table) == ("moved", "Z, modified-dates: C")
    assert one.before == "20070919" != one.after


def test_what_stands_in_a_sequence_is_explained_too() -> None:
    item = Dataset()
    item.PatientName = "CANARY^NESTED"
    source = cr(RequestAttributesSequence=Sequence([item]))
    found = explained(source)
    assert found["(0040,0275)"].fate == "removed"
    assert found["(0040,0275)/(0010,0010)"].fate == "removed"


MOST = Profile.made_of("most", set(Option) - {Option.UIDS})


@pytest.mark.parametrize("build", [cr, dx, secondary_capture])
@pytest.mark.parametrize("profile", [BASIC, MOST])
def test_what_is_said_at_any_depth_is_what_happens(
    build: Callable[..., Dataset], profile: Profile
) -> None:
    source = build(PatientAge="045Y", SeriesNumber=4711, PatientID="4711")
    pseudonyms = profile.pseudonyms(Pseudonyms(KEY))
    result = header.deidentify(reread(source), pseudonyms, PROVENANCE, profile)
    there = set(places_of(result, ""))
    for place, one in explained(source, profile).items():
        if one.keyword != "PixelData":
            assert (place in there) == (one.fate != "removed"), (place, one.fate)


@pytest.mark.parametrize("keyword", ["VOILUTSequence", "ModalityLUTSequence"])
def test_lookup_tables_are_explained_whatever_their_data_are_written_as(keyword: str) -> None:
    item = lut(np.arange(4096), first=0, bits=12)
    found = explained(cr(**{keyword: Sequence([item])}))
    (data,) = (one for one in found.values() if one.keyword == "LUTData")
    assert (data.vr, data.fate, data.before) == ("OW", "kept", "")


def places_of(dataset: Dataset, above: str) -> Iterator[str]:
    for element in dataset:
        place = f"{above}({element.tag >> 16:04X},{element.tag & 0xFFFF:04X})"
        yield place
        for item in element.value if element.VR == "SQ" else ():
            yield from places_of(item, f"{place}/")


def test_marks_and_emptied_counters_are_said_to_be_such() -> None:
    found = explained(dx(SeriesNumber=4711, PatientID="4711"))
    assert found["(0008,0008)"].fate == "written"
    assert found["(0008,0008)"].after.startswith("DERIVED")
    assert found["(0028,0301)"].fate == "written"
    assert found["(0020,0011)"].fate == "emptied"


@pytest.mark.parametrize("profile", [BASIC, MOST])
def test_what_is_said_to_be_removed_is_not_there_and_what_is_kept_is(profile: Profile) -> None:
    source = cr(PatientAge="045Y", StudyDescription="THORAX of somebody")
    pseudonyms = profile.pseudonyms(Pseudonyms(KEY))
    result = header.deidentify(reread(source), pseudonyms, PROVENANCE, profile)
    tags = {f"({one.tag >> 16:04X},{one.tag & 0xFFFF:04X})" for one in result}
    for place, one in explained(source, profile).items():
        if "/" not in place and one.keyword != "PixelData":
            assert (place in tags) == (one.fate != "removed"), one.keyword


def test_reasons_show_no_value_of_the_source() -> None:
    for one in explained(cr()).values():
        assert not any(value in one.why + one.table for value in CANARIES.values())


def test_an_object_that_its_header_would_turn_away_says_so() -> None:
    with pytest.raises(Rejected) as caught:
        explained(cr(sop_class="1.2.840.10008.5.1.4.1.1.2"))
    assert caught.value.reason is Reason.UNSUPPORTED_SOP_CLASS
