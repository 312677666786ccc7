"""For any object: no value survives, nothing is altered, and equal input gives equal output."""

from __future__ import annotations

import struct
from io import BytesIO

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import config, dcmread
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from prichexy_testing.dicoms import code, write
from prichexy_testing.headers import cr, deidentified, dx, secondary_capture, serialised
from prichexy_worker.errors import Rejected
from prichexy_worker.header.allowlist import Codes, Items, LookupTables, Rule, allow_lists
from prichexy_worker.header.table import table

PROFILE = settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
#: What the planted values have in common; no result may hold any of it.
MARKS = (b"CANARY", b"19330417", b"074713", b"1.2.826.0.1.3680043.10.777", b"047Y", b"0815.0815")
BY_VR: dict[str, object] = {
    "AS": "047Y",
    "AT": 0x0815_0815,
    "DA": "19330417",
    "DT": "19330417074713",
    "TM": "074713.419",
    "UI": "1.2.826.0.1.3680043.10.777.8",
    "IS": "19330417",
    "DS": "19330417.5",
    "CS": "CANARY_7",
    "PN": "CANARY^GIVEN",
    "UR": "http://CANARY.example",
    "AE": "CANARYAE",
    "SH": "CANARY SH",
}
BYTES = {"OB", "OW", "OD", "OF", "OL", "OV", "UN", "OB or OW", "US or SS or OW", "US or OW"}
NUMBERS = {"US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "US or SS"}

#: Not planted: what says how to read the file, which class it is, and which object; and what gets
#: an object rejected where it may not be kept.
FIXED = {0x00080005, 0x00080016, 0x00080018, 0x0020000D, 0x0020000E, 0x00280103}
FIXED |= {0x00281052, 0x00281053, 0x00283000}


def _in_the_table() -> list[int]:
    return [int(key[1:5] + key[6:10], 16) for key in table() if "x" not in key]


def _listed() -> list[int]:
    return sorted({rule.tag for rules in allow_lists().values() for rule in rules})


def _elsewhere() -> list[int]:
    """Give attributes of all groups that a radiograph may have, on no list and not in the table."""
    keywords = (
        "InstitutionalDepartmentTypeCodeSequence ManufacturerModelName SoftwareVersions FilterType "
        "CollimatorGridName PlateType PhosphorType DetectorDescription DetectorMode "
        "AcquisitionDeviceProcessingCode WindowCenterWidthExplanation LUTExplanation LUTLabel "
        "ImageDisplayFormat FilmOrientation RequestedProcedureCodeSequence ProcedureCodeSequence "
        "PerformedProtocolCodeSequence CodeMeaning CodeValue LongCodeValue URNCodeValue "
        "ContributingEquipmentSequence SpatialLocationsPreserved TextValue LargestImagePixelValue "
        "OtherPatientIDs OtherPatientNames ModifiedAttributesSequence ConceptNameCodeSequence "
        "ContentTemplateSequence SharedFunctionalGroupsSequence RedPaletteColorLookupTableData"
    )
    return [tag for tag in map(tag_for_keyword, keywords.split()) if tag is not None]


def _code_sequences() -> dict[int, list[tuple[str, str]]]:
    """Give the codes that the lists take, by sequence."""
    rules = [rule for one in allow_lists().values() for rule in one]
    return {r.tag: sorted(r.keep.vocabulary) for r in rules if isinstance(r.keep, Codes)}


ODD = [0x00090010, 0x00091001, 0x60000022, 0x60003000, 0x601E4000, 0x50003000, 0x00087FF0]
tags = st.one_of(
    *(
        st.sampled_from([tag for tag in pool if tag >> 16 > 2 and tag not in FIXED])
        for pool in (_listed(), list(_code_sequences()), _in_the_table(), _elsewhere(), ODD)
    )
)


def _vr(tag: int) -> str:
    return dictionary_VR(tag) if keyword_for_tag(tag) else "UN"


def _hidden_sequence(tag: int) -> bytes:
    """Give an item with a text, as an element of VR UN holds it."""
    inner = struct.pack("<HHI", tag >> 16, tag & 0xFFFF, 8) + b"CANARY_7"
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner


def _unknown(tag: int, value: bytes) -> RawDataElement:
    """Give an element of VR UN; pydicom would turn it into the VR of its dictionary."""
    return RawDataElement(Tag(tag), "UN", len(value), value, 0, False, True)


@st.composite
def _elements(draw: st.DrawFn, depth: int) -> DataElement | RawDataElement:
    tag = draw(tags)
    vr = _vr(tag)
    if " or " not in vr and draw(st.integers(0, 9)) == 0:
        return _unknown(tag, _hidden_sequence(0x00080104))
    if vr == "SQ":
        items = draw(st.lists(_items(tag, depth + 1), max_size=2)) if depth < 5 else []
        return DataElement(tag, "SQ", Sequence(items))
    if vr in BYTES:
        if vr == "UN":
            return _unknown(tag, b"CANARY_7")
        return DataElement(tag, "OB" if "OB" in vr else "OW", b"CANARY_7")
    if vr in NUMBERS:
        return DataElement(tag, vr.split(" or ")[0], draw(st.integers(0, 9)))
    value = BY_VR.get(vr, "CANARY TEXT")
    if draw(st.booleans()) and isinstance(value, str) and vr not in ("LT", "ST", "UT", "UR"):
        value = [value, value]
    return DataElement(tag, vr, value, validation_mode=config.IGNORE)


@st.composite
def _datasets(draw: st.DrawFn, depth: int = 0) -> Dataset:
    dataset = Dataset()
    for element in draw(st.lists(_elements(depth), max_size=6 if depth else 12)):
        dataset[element.tag] = element
    return dataset


@st.composite
def _items(draw: st.DrawFn, sequence: int, depth: int) -> Dataset:
    """Give an item; often one that the lists take, but for what is planted in it."""
    item = draw(_datasets(depth))
    codes = _code_sequences().get(sequence)
    if codes and draw(st.booleans()):
        item.update(code(*draw(st.sampled_from(codes)), "CANARY MEANING"))
    elif draw(st.booleans()):
        item.add(DataElement(0x00081150, "UI", "1.2.840.10008.5.1.4.1.1.1"))
        item.add(DataElement(0x00081155, "UI", BY_VR["UI"]))
    return item


@st.composite
def radiographs(draw: st.DrawFn) -> Dataset:
    """Give a radiograph with planted values, in memory or as first seen in its file."""
    build = draw(st.sampled_from([cr, dx, secondary_capture]))
    syntax = draw(st.sampled_from([ExplicitVRLittleEndian, ImplicitVRLittleEndian]))
    dataset = build(transfer_syntax=syntax, nested=True, private=True)
    dataset.update(draw(_datasets()))
    if draw(st.booleans()):
        with config.disable_value_validation():
            return dcmread(BytesIO(write(dataset)))
    return dataset


@PROFILE
@given(radiographs())
def test_no_source_value_survives_at_any_depth(source: Dataset) -> None:
    content = serialised(deidentified(source))
    assert [mark for mark in MARKS if mark in content] == []


def held(dataset: Dataset) -> dict[int, DataElement | RawDataElement | None]:
    """Give the elements as the dataset holds them: looking must convert none."""
    return {tag: dataset.get_item(tag, keep_deferred=True) for tag in dataset.keys()}  # noqa: SIM118


@PROFILE
@given(radiographs())
def test_the_given_dataset_is_never_altered(source: Dataset) -> None:
    before = held(source)
    text = {tag: repr(element) for tag, element in before.items()}
    meta, preamble = source.file_meta.to_json(), source.preamble
    deidentified(source)
    after = held(source)
    assert after.keys() == before.keys()
    assert all(after[tag] is before[tag] for tag in before), "an element was replaced or converted"
    assert {tag: repr(element) for tag, element in after.items()} == text
    assert (source.file_meta.to_json(), source.preamble) == (meta, preamble)


@PROFILE
@given(radiographs())
def test_the_same_key_gives_the_same_bytes_and_another_one_other_pseudonyms(
    source: Dataset,
) -> None:
    first, second = deidentified(source), deidentified(source)
    other = deidentified(source, key=b"k" * 32)
    assert serialised(first) == serialised(second)
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID"):
        assert first[keyword].value != other[keyword].value


@PROFILE
@given(radiographs())
def test_a_result_de_identifies_to_a_result(source: Dataset) -> None:
    once = deidentified(source)
    twice = deidentified(once)
    assert {tag for tag in once.keys() if tag >> 16 > 2} == set(twice.keys())  # noqa: SIM118
    assert twice.PatientID != once.PatientID


#: What a result says of itself (header/marks.py, header/lossy.py), whole sequences among it.
MARKED = {0x00080005, 0x00080008, 0x00082111, 0x00089215, 0x0018A001, 0x00120062, 0x00120063}
MARKED |= {0x00120064, 0x00280301, 0x00280303, 0x00282110, 0x00282112, 0x00282114}
OF_A_CODE = {0x00080100, 0x00080102, 0x00080104}
OF_A_TABLE = {0x00283002, 0x00283004, 0x00283006}


def strangers(result: Dataset, rules: tuple[Rule, ...], also: set[int]) -> list[str]:
    """Give the tags, at any depth, that no rule names where they stand."""
    by_tag = {rule.tag: rule for rule in rules}
    found = [str(tag) for tag in result.keys() if tag not in by_tag.keys() | also]  # noqa: SIM118
    for tag, rule in by_tag.items():
        for item in result[tag].value if tag in result and rule.vr == "SQ" else ():
            match rule.keep:
                case Items(inner, _):
                    found += strangers(item, inner, set())
                case Codes(_, modifiers):
                    found += strangers(item, modifiers, OF_A_CODE)
                case LookupTables():
                    found += strangers(item, (), OF_A_TABLE)
                case _:
                    found += strangers(item, (), set())
    return found


@PROFILE
@given(radiographs())
def test_a_result_holds_nothing_but_what_a_list_names_in_its_place(source: Dataset) -> None:
    result = deidentified(source)
    rules = allow_lists()[str(source.SOPClassUID)]
    # Derivation Code Sequence gets an item of our own beside what the list keeps.
    own = [item for item in result.get("DerivationCodeSequence", ()) if "CodeMeaning" in item]
    assert len(own) == len(result.get("DerivationCodeSequence", ()))
    assert strangers(result, rules, MARKED) == []


@PROFILE
@given(
    radiographs(),
    st.lists(
        st.sampled_from(["SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "of another"]),
        min_size=1,
        max_size=6,
    ),
)
def test_equal_uids_stay_equal_and_different_ones_different(
    source: Dataset, references: list[str]
) -> None:
    items = []
    for name in references:
        item = Dataset()
        item.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
        item.ReferencedSOPInstanceUID = "1.2.3.4.5" if name == "of another" else source[name].value
        items.append(item)
    source.SourceImageSequence = Sequence(items)
    result = deidentified(source)
    written = [item.ReferencedSOPInstanceUID for item in result.SourceImageSequence]
    named = dict(zip(references, written, strict=True))
    assert [named[name] for name in references] == written
    before = {name: i.ReferencedSOPInstanceUID for name, i in zip(references, items, strict=True)}
    assert len(set(named.values())) == len(set(before.values()))
    for name in named.keys() - {"of another"}:
        assert named[name] == result[name].value


VRS = ["CS", "DS", "IS", "LO", "UI", "US", "SS", "OW", "SQ", "UN", "FD", "PN", "DA", None]
RAW = st.tuples(
    st.sampled_from([*_listed(), 0x00080005, 0x00100021]),
    st.sampled_from(VRS),
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from(
            [b"1e400", b"-0", b"nan", b"1_0", b"\xd9\xa3", b"\\\\\\", b"1\\2", b"CHEST"]
        ),
        st.text("0123456789.+-eE\\ ", max_size=24).map(str.encode),
    ),
)


@PROFILE
@given(st.lists(RAW, max_size=20), st.booleans())
def test_whatever_bytes_an_object_holds_it_gets_a_valid_header_or_is_rejected(
    planted: list[tuple[int, str | None, bytes]], little_endian: bool
) -> None:
    source = dx()
    for tag, vr, value in planted:
        raw = RawDataElement(Tag(tag), vr, len(value), value, 0, vr is None, little_endian)
        source[Tag(tag)] = raw
    try:
        result = deidentified(source)
    except Rejected:
        return
    assert dcmread(BytesIO(serialised(result))).PatientIdentityRemoved == "YES"
