"""The options of PS3.15 E.3: what each keeps, what it claims, and what still never leaves."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import config
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from prichexy_testing.dicoms import code
from prichexy_testing.headers import KEY, PROVENANCE, cr, dx, reread, secondary_capture, serialised
from prichexy_worker import header
from prichexy_worker.contract import Reason
from prichexy_worker.errors import Misconfigured, Rejected
from prichexy_worker.header import sweep as sweeping
from prichexy_worker.header import table
from prichexy_worker.header.allowlist import Items, Rule, allow_lists
from prichexy_worker.header.dates import moved_earlier
from prichexy_worker.header.options import Option
from prichexy_worker.header.profile import BASIC, Profile
from prichexy_worker.pseudonyms import Pseudonyms
from prichexy_worker.release import surviving_identifiers

#: All options but one: UIDs, which may tell a date, and moved dates do not go together.
MOST = Profile.made_of("most", set(Option) - {Option.UIDS})


def under(profile: Profile, dataset: Dataset) -> Dataset:
    pseudonyms = profile.pseudonyms(Pseudonyms(KEY))
    return header.deidentify(reread(dataset), pseudonyms, PROVENANCE, profile)


def put(dataset: Dataset, keyword: str, value: str) -> None:
    """Set a value that may not fit its VR."""
    vr = dictionary_VR(keyword)
    dataset.add(DataElement(keyword, vr, value, validation_mode=config.IGNORE))


def option(*options: Option) -> Profile:
    return Profile.made_of("project", options)


def survivors(profile: Profile, dataset: Dataset) -> tuple[str, ...]:
    """Give what the last gate finds, told what the profile lets pass."""
    source = reread(dataset)
    result = under(profile, dataset)
    return surviving_identifiers(
        source,
        serialised(result),
        own_texts=header.own_texts(PROVENANCE, profile),
        allowed=header.allowed(source, result, profile),
    )


def codes_of(result: Dataset) -> list[str]:
    return [item.CodeValue for item in result.DeidentificationMethodCodeSequence]


def days_earlier() -> int:
    source = cr()
    return Pseudonyms(KEY).days_earlier(source.PatientID, source.IssuerOfPatientID)


def test_without_an_option_none_of_their_attributes_is_kept() -> None:
    result = under(BASIC, cr(PatientSex="F", PatientAge="045Y"))
    assert result.PatientSex == result.StudyDate == ""
    assert "PatientAge" not in result
    assert "StationName" not in result
    assert result.LongitudinalTemporalInformationModified == "REMOVED"


@pytest.mark.parametrize("one", Option)
def test_a_result_claims_the_options_that_were_chosen_and_no_other(one: Option) -> None:
    claimed = set(codes_of(under(option(one), cr())))
    assert one.code in claimed
    assert claimed.isdisjoint({other.code for other in Option} - {one.code})
    assert claimed.isdisjoint({other.code for other in Option if other is not one})


def test_dates_are_moved_by_the_patients_own_days_and_times_are_not_kept() -> None:
    profile = option(Option.MODIFIED_DATES)
    result = under(profile, cr(StudyDate="20070919", AcquisitionDate="20070921"))
    study, acquired = (
        dt.datetime.strptime(day, "%Y%m%d").replace(tzinfo=dt.UTC)
        for day in (result.StudyDate, result.AcquisitionDate)
    )
    assert (acquired - study).days == 2
    assert study.strftime("%Y%m%d") == moved_earlier("20070919", days_earlier())
    assert result.StudyTime == ""
    assert "SeriesTime" not in result
    assert result.LongitudinalTemporalInformationModified == "MODIFIED"
    assert survivors(profile, cr()) == ()


def test_a_moved_date_is_said_to_be_there_whichever_attribute_holds_it() -> None:
    profile = Profile.made_of("one", [Option.MODIFIED_DATES], {"StudyDate": "emptied"})
    others = dict.fromkeys(("SeriesDate", "AcquisitionDate", "ContentDate"))
    source = cr(**others, AcquisitionDateTime="20070919074713")
    result = under(profile, source)
    assert not result.StudyDate
    assert result.AcquisitionDateTime
    assert result.LongitudinalTemporalInformationModified == "MODIFIED"
    assert "113107" in [one.CodeValue for one in result.DeidentificationMethodCodeSequence]


def test_a_date_that_is_none_is_empty_or_left_out() -> None:
    source = cr()
    put(source, "StudyDate", "JOHN DOE")
    put(source, "SeriesDate", "2007")
    result = under(option(Option.MODIFIED_DATES), source)
    assert result.StudyDate == ""
    assert "SeriesDate" not in result
    assert result.LongitudinalTemporalInformationModified == "REMOVED"
    assert Option.MODIFIED_DATES.code not in codes_of(result), "nothing of it was done"


@given(
    st.dates(dt.date(1900, 1, 1), dt.date(2100, 1, 1)),
    st.integers(1, 3653),
    st.sampled_from(["", "12", "1215", "121530.123", "+0100", "121530+0100"]),
)
def test_a_moved_date_is_the_same_days_away_whatever_follows_it(
    day: dt.date, days: int, rest: str
) -> None:
    moved = moved_earlier(day.strftime("%Y%m%d") + rest, days)
    assert moved == (day - dt.timedelta(days=days)).strftime("%Y%m%d")


@pytest.mark.parametrize(
    "text", ["", "2007", "200709", "20070931", "00010101", "20070919-20070920", "x", "2007.0919"]
)
def test_what_is_no_whole_day_is_not_moved(text: str) -> None:
    assert moved_earlier(text, 400) is None


def test_the_acr_nema_form_of_a_date_is_a_date() -> None:
    assert moved_earlier("2007.09.19", 1) == "20070918"


@pytest.mark.parametrize(
    ("keyword", "value", "kept"),
    [
        ("PatientSex", "F", "F"),
        ("PatientSex", "JOHN", ""),
        ("PatientAge", "045Y", "045Y"),
        ("PatientAge", "093Y", "090Y"),
        ("PatientAge", "011M", "011M"),
        ("PatientAge", "4711", None),
        ("PatientSize", "1.72", 1.72),
        ("PatientSize", "4711", None),
        ("PatientWeight", "81.5", 81.5),
        ("SmokingStatus", "YES", "YES"),
    ],
)
def test_characteristics_of_the_patient_are_kept_where_they_are_such(
    keyword: str, value: str, kept: object
) -> None:
    profile = option(Option.PATIENT_CHARACTERISTICS)
    source = cr()
    put(source, keyword, value)
    result = under(profile, source)
    assert result.get(keyword) == kept
    assert survivors(profile, source) == ()


def test_the_device_and_the_institution_are_kept_as_they_are() -> None:
    profile = option(Option.DEVICE_IDENTITY, Option.INSTITUTION)
    source = cr(InstitutionName="Hôpital Saint-Éloi", Manufacturer="ACME")
    source.SpecificCharacterSet = "ISO_IR 100"
    result = under(profile, source)
    assert result.StationName == source.StationName
    assert result.DeviceSerialNumber == source.DeviceSerialNumber
    assert result.Manufacturer == "ACME"
    assert result.InstitutionName == "Hôpital Saint-Éloi"
    assert result.SpecificCharacterSet == "ISO_IR 192"
    assert survivors(profile, source) == ()


def test_a_name_that_stands_in_a_kept_text_is_still_found() -> None:
    profile = option(Option.DEVICE_IDENTITY, Option.INSTITUTION)
    source = cr(InstitutionName="Ward of CANARYFAMILY")
    assert "0010,0010" in survivors(profile, source)


def test_an_identifier_that_a_kept_attribute_shares_is_still_found() -> None:
    profile = option(Option.DEVICE_IDENTITY)
    source = cr(StationName="4711-4712-X", PatientID="4711-4712-X")
    assert survivors(profile, source) == ("0010,0020",)


def test_text_that_is_none_is_not_kept() -> None:
    result = under(option(Option.INSTITUTION), cr(InstitutionName="a\x07b" + "c" * 20))
    assert "InstitutionName" not in result


def test_a_description_keeps_the_words_of_the_vocabulary_only() -> None:
    profile = option(Option.CLEAN_DESCRIPTORS)
    source = cr(StudyDescription="Thorax p.a. (PA) of John Doe, X-ray 19330417")
    result = under(profile, source)
    assert result.StudyDescription == "THORAX PA XRAY"
    assert survivors(profile, source) == ()


def test_a_description_that_is_clean_already_is_no_survivor() -> None:
    profile = option(Option.CLEAN_DESCRIPTORS)
    source = cr(StudyDescription="THORAX PA LATERAL", SeriesDescription="THORAX PA LATERAL")
    assert under(profile, source).StudyDescription == "THORAX PA LATERAL"
    assert survivors(profile, source) == ()


def test_a_description_without_a_known_word_is_not_there() -> None:
    result = under(option(Option.CLEAN_DESCRIPTORS), cr(SeriesDescription="John Doe"))
    assert "SeriesDescription" not in result


def test_the_context_of_the_acquisition_is_kept_by_its_known_codes() -> None:
    known, unknown = Dataset(), Dataset()
    for item, concept in ((known, "Patient State"), (unknown, "JOHN DOE")):
        item.ValueType = "CODE"
        item.ConceptNameCodeSequence = Sequence([code("109054", "DCM", concept)])
        item.ConceptCodeSequence = Sequence([code("109024", "DCM", "JOHN DOE")])
    unknown.ConceptCodeSequence = Sequence([code("JOHNDOE", "99X", "JOHN DOE")])
    source = dx(AcquisitionContextSequence=Sequence([known, unknown]))
    result = under(option(Option.CLEAN_STRUCTURED_CONTENT), source)
    (item,) = result.AcquisitionContextSequence
    assert item.ConceptNameCodeSequence[0].CodeMeaning == "Patient State"
    assert item.ConceptCodeSequence[0].CodeMeaning == "End of inspiration"
    empty = under(option(Option.CLEAN_STRUCTURED_CONTENT), dx())
    assert empty["AcquisitionContextSequence"].is_empty, "Type 2 of a DX"


def test_uids_of_study_and_series_are_kept_and_a_new_image_has_a_new_one() -> None:
    profile = option(Option.UIDS)
    source = cr()
    result = under(profile, source)
    assert result.StudyInstanceUID == source.StudyInstanceUID
    assert result.SeriesInstanceUID == source.SeriesInstanceUID
    assert result.SOPInstanceUID == Pseudonyms(KEY).uid(source.SOPInstanceUID)
    assert survivors(profile, source) == ()


@pytest.mark.parametrize("make", [cr, dx, secondary_capture])
def test_under_most_options_no_name_id_or_birth_date_survives(make: Any) -> None:
    source = make()
    assert survivors(MOST, source) == ()
    content = serialised(under(MOST, source))
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "AccessionNumber", "StudyDate"):
        assert str(source[keyword].value).encode() not in content


def rules_at_any_depth(rules: tuple[Rule, ...]) -> list[Rule]:
    inner = [one for rule in rules if isinstance(rule.keep, Items) for one in rule.keep.rules]
    return [*rules, *(rules_at_any_depth(tuple(inner)) if inner else [])]


def test_what_options_add_stands_in_their_columns_or_in_no_row() -> None:
    basic = {rule.tag for rules in allow_lists().values() for rule in rules_at_any_depth(rules)}
    for one in Option:
        for rules in allow_lists(frozenset({one})).values():
            for rule in rules_at_any_depth(rules):
                listed = table.under_options(rule.tag, [one])
                assert listed or rule.tag in basic or table.action(rule.tag) is None


def test_the_last_look_passes_what_options_keep_and_only_under_them() -> None:
    result = under(MOST, cr(StudyDescription="THORAX", PatientAge="045Y"))
    sweeping.sweep(result, MOST.options)
    with pytest.raises(Rejected) as found:
        sweeping.sweep(result)
    assert found.value.reason is Reason.IDENTITY_SURVIVED


def test_two_projects_have_unrelated_pseudonyms_under_one_key() -> None:
    one = Profile.made_of("one", project="one", patient_prefix="ONE-")
    two = Profile.made_of("two", project="two")
    first, second, plain = (under(profile, cr()) for profile in (one, two, BASIC))
    assert first.PatientID.startswith("ONE-")
    for keyword in ("PatientID", "StudyInstanceUID", "SOPInstanceUID"):
        assert len({first[keyword].value, second[keyword].value, plain[keyword].value}) == 3


def test_an_accession_number_gets_its_pseudonym_where_a_project_asks_for_it() -> None:
    profile = Profile.made_of("project", attributes={"AccessionNumber": "accession_number"})
    source = cr()
    result = under(profile, source)
    assert result.AccessionNumber == Pseudonyms(KEY).accession_number(source.AccessionNumber)
    assert under(BASIC, source).AccessionNumber == ""


def test_a_projects_rules_narrow_what_is_kept() -> None:
    profile = Profile.made_of(
        "project", attributes={"KVP": "remove", "BodyPartExamined": {"values": ["LUNG"]}}
    )
    result = under(profile, dx(KVP="120", BodyPartExamined="CHEST"))
    assert "KVP" not in result
    assert "BodyPartExamined" not in result
    assert profile.digest != BASIC.digest


@pytest.mark.parametrize(
    ("attributes", "source"),
    [
        ({"ViewPosition": {"values": ["AP"]}}, cr(ViewPosition="PA")),
        ({"ViewPosition": "emptied"}, cr(ViewPosition=None)),
        ({"PatientOrientation": "emptied"}, cr(PatientOrientation=None)),
        ({"AccessionNumber": "accession_number"}, cr(AccessionNumber="")),
        ({"AccessionNumber": "emptied"}, cr(AccessionNumber=None)),
        ({"SeriesNumber": {"range": [0, 9]}}, cr(SeriesNumber=12)),
    ],
)
def test_what_an_object_must_have_is_there_and_empty_where_a_project_keeps_nothing(
    attributes: dict[str, Any], source: Dataset
) -> None:
    (keyword,) = attributes
    result = under(Profile.made_of("project", attributes=attributes), source)
    assert result[keyword].is_empty


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        ({"PatientName": {"pattern": ".*"}}, "no object can be without it"),
        ({"StudyDescription": "text"}, "may not ask for this"),
        ({"StudyDescription": {"pattern": ".*"}}, "may not ask for this"),
        ({"Grid": {"pattern": ".*"}}, "may not ask for this"),
        ({"KVP": {"fixed": "abc"}}, "may not ask for this"),
        ({"PatientAge": {"values": ["045Y"]}}, "text"),
        ({"KVP": {"range": [0, 1], "required": 5}}, "or one rule"),
        ({"SeriesNumber": "accession_number"}, "is for AccessionNumber"),
        ({"StudyDate": "remove"}, "must have it"),
        ({"Manufacturer": "remove"}, "must have it"),
        ({"TransferSyntaxUID": "empty"}, "no object can be without it"),
        ({"Grid": {"values": {1: 2}}}, "not understood"),
        ({"Grid": 5}, "or one rule"),
        ({"PatientSex": {"values": ["M", "F"]}}, "Table E.1-1 has Z"),
        ({"Rows": "remove"}, "no object can be without it"),
        ({"NoSuchThing": "remove"}, "no attribute of the standard"),
        ({"KVP": "keep"}, "not understood"),
    ],
)
def test_a_rule_that_a_project_may_not_write_is_refused(
    attributes: dict[str, Any], why: str
) -> None:
    with pytest.raises(Misconfigured, match=why):
        Profile.made_of("project", attributes=attributes)


def test_uids_and_moved_dates_do_not_go_together() -> None:
    with pytest.raises(Misconfigured, match="keep one"):
        option(Option.UIDS, Option.MODIFIED_DATES)


@pytest.mark.parametrize(
    "uid",
    [
        "1.2.392.200036.9125.0.199302241758.16",
        "1.2.3.20070919",
        "1.2.3.070919.4",
        "1.2.3.30000020070919074713",
        "1.2.840.1.2007.9.19.7.47.13",
        "1.2.840.1.19.9.2007",
        "1.2.840.1.9.19.2007.1",
        "1.02",
    ],
)
def test_a_uid_that_may_tell_a_date_is_not_kept(uid: str) -> None:
    profile = option(Option.UIDS)
    source = cr()
    put(source, "StudyInstanceUID", uid)
    expected = Pseudonyms(KEY).uid(uid)
    result = under(profile, source)
    assert result.StudyInstanceUID == expected
    claimed = [one.CodeValue for one in result.DeidentificationMethodCodeSequence]
    assert "113110" not in claimed
    assert profile.study_uid(Pseudonyms(KEY), uid) == expected


@pytest.mark.parametrize(
    "uid", ["1.3.6.1.4.1.2025.7.1", "1.2.840.113619.2.55.3.604688119.971.1383832322.123"]
)
def test_a_uid_that_tells_no_date_is_kept(uid: str) -> None:
    source = cr()
    put(source, "StudyInstanceUID", uid)
    assert under(option(Option.UIDS), source).StudyInstanceUID == uid


def test_a_uid_that_holds_the_patients_number_is_found() -> None:
    profile = option(Option.UIDS)
    source = cr(PatientID="12345678", StudyInstanceUID="1.2.826.12345678.1")
    assert "0010,0020" in survivors(profile, source)


def test_keeping_some_uids_lets_no_other_pass() -> None:
    profile = option(Option.UIDS)
    source = reread(cr())
    result = under(profile, cr())
    result.SOPInstanceUID = result.file_meta.MediaStorageSOPInstanceUID = source.SOPInstanceUID
    found = surviving_identifiers(
        source,
        serialised(result),
        own_texts=header.own_texts(PROVENANCE, profile),
        allowed=header.allowed(source, result, profile),
    )
    assert "0008,0018" in found


@pytest.mark.parametrize("placeholder", ["19000101", "19700101", "20991231"])
def test_a_placeholder_does_not_tell_by_how_much_dates_are_moved(placeholder: str) -> None:
    profile = option(Option.MODIFIED_DATES)
    result = under(profile, cr(StudyDate="20070919", ContentDate=placeholder))
    assert result.StudyDate != ""
    assert result.ContentDate == ""
    result = under(profile, cr(StudyDate="19700101", ContentDate=placeholder))
    assert result.StudyDate == result.ContentDate == ""


def test_a_word_of_a_name_is_no_word_of_a_description() -> None:
    profile = option(Option.CLEAN_DESCRIPTORS)
    source = cr(PatientName="ROUTINE^Control", StudyDescription="Chest routine control")
    assert under(profile, source).StudyDescription == "CHEST"
    assert survivors(profile, source) == ()


def test_a_clean_description_does_not_hide_a_name_elsewhere() -> None:
    profile = option(Option.CLEAN_DESCRIPTORS, Option.INSTITUTION)
    source = cr(PatientName="ROUTINE^Control", InstitutionName="ROUTINE CONTROL")
    assert "0010,0010" in survivors(profile, source)


def test_what_stands_beside_a_kept_code_is_sought() -> None:
    profile = option(Option.INSTITUTION)
    item = code("X1", "DCM", "Elm Street 12, Springfield")
    item.PatientName = "MAIDENNAME^Berta"
    source = cr(PatientAddress="Elm Street 12, Springfield", InstitutionName="Ward")
    source.InstitutionCodeSequence = Sequence([item])
    assert "0010,1040" in survivors(profile, source)
    source.InstitutionCodeSequence[0].CodeMeaning = "Ward of Maidenname"
    assert any("0010,0010" in place for place in survivors(profile, source))


def test_the_institution_may_stand_in_the_source_twice() -> None:
    profile = option(Option.INSTITUTION)
    earlier = Dataset()
    earlier.InstitutionName = "Saint Elsewhere Hospital"
    source = cr(
        InstitutionName="Saint Elsewhere Hospital",
        ContributingEquipmentSequence=Sequence([earlier]),
    )
    assert survivors(profile, source) == ()


def test_a_changed_column_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "OPTIONS_SHA256", "0" * 64)
    with pytest.raises(Misconfigured, match="reinstall"):
        table.option_columns.__wrapped__()
