"""A value that is written another way is found, and what only resembles it is not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from prichexy_testing.dicoms import radiograph_dataset, write
from prichexy_worker.release import surviving_identifiers
from prichexy_worker.respellings import spelt, spelt_name

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

NOBODY = {"SOPInstanceUID": "1.2.840.99999.1"}
OURS = {"SOPInstanceUID": "2.25.48268126001345267912345678901234567890"}


def survivors(text: str, **source: object) -> tuple[str, ...]:
    """Give the tags of ``source`` that a result with ``text`` as a comment shows."""
    result = radiograph_dataset(identity=OURS, rows=4, columns=4, Manufacturer=None)
    result.SpecificCharacterSet = "ISO_IR 192"
    result.add(DataElement(0x00104000, "LT", text))
    original = radiograph_dataset(identity=NOBODY, rows=4, columns=4, Manufacturer=None)
    original.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in source.items():
        setattr(original, keyword, value)
    return surviving_identifiers(original, write(result))


NAMES = [
    ("Doe^John", "JOHN DOE"),
    ("Doe^John", "DOE, JOHN"),
    ("Doe^John", "doe-john"),
    ("Doe^John", "seen: DOE JOHN"),
    ("Doe^John", "JohnDoe"),
    ("Doe^John", "doejohn"),
    ("Doe^Jon", "J. DOE"),
    ("Doe^Jon", "Doe, J"),
    ("Doe^Jon", "JDOE"),
    ("Doe^Jon^Max", "doe m"),
    ("Doe, Jon", "jon_doe"),
    ("Li^Wei", "wei li"),
    ("Müller^Ann", "MUELLER"),
    ("Müller^Ann", "Muller"),
    ("Müller^Ann", "muller"),
    ("Mueller^Ann", "Müller"),
    ("Mueller^Ann", "MULLER"),
    ("Muller^Ann", "Müller"),
    ("Weiß^Ann", "WEISS"),
    ("Weiss^Ann", "weiß"),
    ("Bjørnson^Ann", "Bjornson"),
    ("Bjørnson^Ann", "Bjoernson"),
    ("Bjornson^Ann", "BJØRNSON"),
    ("Ærøe^Ann", "aeroe"),
    ("Åsgård^Ann", "aasgaard"),
    ("Kowalczyk^Łucja", "Lucja"),
    ("Çelik^Ann", "celik"),
    ("O'Brien-Smith^Ann", "obrien smith"),
    ("Νικολάου^Ann", "νικολαου"),
    ("Иванова^Ann", "ИВАНОВА"),
    ("Yamada^Tarou=山田^太郎", "山田太郎"),
]


@pytest.mark.parametrize(("name", "text"), NAMES)
def test_a_name_is_found_as_people_spell_it(name: str, text: str) -> None:
    assert survivors(text, PatientName=name) == ("0010,0010",)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("AB-123 456", "AB123456"),
        ("AB-123 456", "no ab 123.456 here"),
        ("AB123456", "AB-123-456"),
        ("123456", "12 34 56"),
        ("000123456", "123456"),
        ("000123456", "No. 123-456"),
        ("123456", "0000123456"),
        ("0004711", "4711"),
        ("47-11", "4711"),
        ("4711/93", "4711 93"),
        ("kc-99xyz1", "KC99XYZ1"),
        ("S4711", "s-4711"),
        ("S-4711", "S4711"),
    ],
)
def test_a_number_is_found_whatever_separates_its_characters(number: str, text: str) -> None:
    assert survivors(text, PatientID=number) == ("0010,0020",)


@pytest.mark.parametrize(
    "text", ["+49 30 1234567", "030/1234567", "0049-30-123-4567", "(030) 123 45 67"]
)
def test_a_telephone_number_is_found_with_and_without_its_codes(text: str) -> None:
    assert survivors(text, PatientTelephoneNumbers="+49 (30) 1234567") == ("0010,2154",)


@pytest.mark.parametrize(
    "text",
    [
        "1933-04-07", "7.4.1933", "07/04/1933", "4/7/1933", "7 April 1933", "April 7, 1933",
        "7-APR-1933", "apr 7 1933", "07041933", "04071933", "1933/4/7", "1933, Apr 07",
        "7th April 1933", "April 7th, 1933", "7 avril 1933", "7 de abril de 1933", "7. Apr. 1933",
        "1933\u5e744\u67087\u65e5", "1933\ub144 4\uc6d4 7\uc77c",
    ],
)  # fmt: skip
def test_a_date_is_found_in_common_notations(text: str) -> None:
    assert survivors(f"born {text}.", PatientBirthDate="19330407") == ("0010,0030",)


@pytest.mark.parametrize("text", ["M\xc3\xbcller", "M?ller", "M\ufffdller", "Mller"])
def test_a_name_is_found_that_a_mistaken_character_set_spoilt(text: str) -> None:
    assert survivors(f"seen: {text}", PatientName="M\xfcller^Ann") == ("0010,0010",)


def test_what_a_mistaken_character_set_left_hardly_anything_of_is_no_alarm() -> None:
    assert survivors("???? and \ufffd\ufffd", PatientName="\u5c71\u7530^\u592a\u90ce") == ()


def test_any_text_is_found_in_other_letters() -> None:
    where = {"InstitutionName": "Hôpital Général, Nord"}
    assert survivors("HOPITAL GENERAL NORD", **where) == ("0008,0080",)
    assert survivors("a general hospital", **where) == ()


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ({"PatientName": "Doe^John"}, "does johnson"),
        ({"PatientName": "Doe^Jon"}, "a doe and a jon"),
        ({"PatientName": "Doe^Jon"}, "doe"),
        ({"PatientName": "Müller^Ann"}, "a mule"),
        ({"PatientName": "Unknown^Patient"}, "the patient is unknown"),
        ({"PatientName": "ANONYMIZED"}, "Anonymized"),
        ({"PatientID": "0012"}, "12"),
        ({"PatientID": "471193"}, "4711 and 93"),
        ({"PatientID": "0"}, "0 00 000"),
        ({"PatientBirthDate": "19330407"}, "in 1933, 7 or 4"),
        ({"PatientBirthDate": "00000000"}, "0 0 0000"),
        ({"PatientTelephoneNumbers": "+49 (30) 1234567"}, "12345"),
        ({"InstitutionName": "Chest"}, "a CHEST radiograph"),
    ],
)
def test_what_only_resembles_it_is_no_alarm(source: dict[str, object], text: str) -> None:
    assert survivors(text, **source) == ()


def test_the_words_of_a_result_are_read_in_its_own_character_set() -> None:
    result = radiograph_dataset(identity=OURS, rows=4, columns=4, Manufacturer=None)
    result.SpecificCharacterSet = "ISO_IR 144"
    result.PatientComments = "ИВАНОВА"
    original = radiograph_dataset(identity=NOBODY, rows=4, columns=4, Manufacturer=None)
    original.SpecificCharacterSet = "ISO_IR 192"
    original.PatientName = "Иванова^Анна"
    assert surviving_identifiers(original, write(result)) == ("0010,0010",)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_brought_to_words_of_one_kind(text: str) -> None:
    for words in spelt(text):
        assert words == " ".join(words.split())
        assert spelt(words) == {words}


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=64))
def test_nothing_short_is_sought(name: str) -> None:
    assert all(len(form) >= 4 for form, _ in spelt_name(name))


def test_a_source_is_not_altered() -> None:
    original = Dataset()
    original.PatientName = "Müller^Ann"
    before = original.to_json()
    survivors("x", PatientName=original.PatientName)
    assert original.to_json() == before
