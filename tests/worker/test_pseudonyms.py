"""Pseudonyms: keyed, stable, apart by domain; keys that only their owner can read."""

from __future__ import annotations

import re
import stat
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prichexy_worker.errors import Misconfigured
from prichexy_worker.pseudonyms import KEY_BYTES, Pseudonyms

KEY, OTHER = bytes(32), bytes([1]) * 32
ids = st.text(st.characters(codec="utf-8", exclude_characters=" \0"), min_size=1, max_size=64)


def test_the_same_key_gives_the_same_pseudonyms_on_every_machine() -> None:
    pseudonyms = Pseudonyms(KEY)
    # Known answers: whoever changes these separates new exports from all earlier ones.
    assert pseudonyms.key_id == "e37fbb0a2a9a9a45"
    assert pseudonyms.patient_id("4711", "HOSPITAL") == "PX-EQF3ZDM4WP3ESYR7BI2SY3TN"
    assert pseudonyms.patient_name("4711", "HOSPITAL") == "PRICHEXY^PX-EQF3ZDM4WP3ESYR7BI2SY3TN"
    assert pseudonyms.uid("1.2.840.1") == "2.25.105750711019597082318524610793884499456"
    assert pseudonyms.accession_number("A1") == "GH2OLFPYXHRTHR4V"
    assert pseudonyms.opaque("file", b"content") == "9dd4b28672af1eddd313598bac2894e6"


@given(ids)
def test_another_key_gives_other_pseudonyms(patient_id: str) -> None:
    one, other = Pseudonyms(KEY), Pseudonyms(OTHER)
    assert one.patient_id(patient_id) != other.patient_id(patient_id)
    assert one.uid(patient_id) != other.uid(patient_id)
    assert one.accession_number(patient_id) != other.accession_number(patient_id)
    assert one.opaque("file", patient_id.encode()) != other.opaque("file", patient_id.encode())
    assert one.key_id != other.key_id


@given(ids, ids, ids, ids)
def test_ids_and_issuers_that_join_to_the_same_text_are_different_patients(
    a: str, b: str, c: str, d: str
) -> None:
    one, other = Pseudonyms(KEY).patient_id(a, b), Pseudonyms(KEY).patient_id(c, d)
    same = Pseudonyms(KEY).patient_id
    assert (one == other) == (same(a, b) == same(c, d))
    assert same("12", "3") != same("1", "23")
    assert same("12", "") != same("", "12", study_uid="1.2")


def test_padding_and_the_form_of_unicode_make_no_other_patient() -> None:
    give = Pseudonyms(KEY).patient_id
    assert give("4711 ") == give(" 4711") == give("4711\0") == give("4711")
    assert give("Mu\u0308ller") == give("M\u00fcller")
    assert give("ab") != give("AB")


def test_patients_without_an_id_are_not_merged() -> None:
    give = Pseudonyms(KEY).patient_id
    first, second = give("", study_uid="1.2.1"), give("  ", study_uid="1.2.2")
    assert first != second
    assert first == give("\0", study_uid="1.2.1 ")
    assert give("1.2.1") != first, "an ID that reads like a study's UID is another patient"


def test_neither_an_id_nor_a_study_is_refused() -> None:
    with pytest.raises(ValueError, match="neither"):
        Pseudonyms(KEY).patient_id("  ", "HOSPITAL")
    with pytest.raises(ValueError, match="no UID"):
        Pseudonyms(KEY).uid(" \0")


@given(ids)
def test_a_uid_becomes_a_valid_uid_of_a_custom_uuid(uid: str) -> None:
    made = Pseudonyms(KEY).uid(uid)
    assert re.fullmatch(r"2\.25\.[1-9][0-9]*", made)
    assert len(made) <= 64
    number = uuid.UUID(int=int(made.removeprefix("2.25.")))
    assert (number.version, number.variant) == (8, uuid.RFC_4122)


def test_pseudonyms_fit_their_value_representations() -> None:
    pseudonyms = Pseudonyms(KEY)
    assert re.fullmatch(r"PX-[A-Z2-7]{24}", pseudonyms.patient_id("4711"))
    assert re.fullmatch(r"[A-Z2-7]{16}", pseudonyms.accession_number("A1"))
    assert pseudonyms.accession_number(" ") == ""
    assert re.fullmatch(r"[0-9a-f]{32}", pseudonyms.opaque("file", b""))


def test_the_domains_are_apart() -> None:
    pseudonyms = Pseudonyms(KEY)
    assert pseudonyms.opaque("file", b"x") != pseudonyms.opaque("report", b"x")
    assert pseudonyms.opaque("filex", b"") != pseudonyms.opaque("file", b"x")


def test_the_key_is_never_shown() -> None:
    pseudonyms = Pseudonyms(KEY)
    assert repr(pseudonyms) == str(pseudonyms) == f"Pseudonyms(key_id='{pseudonyms.key_id}')"
    assert KEY.hex()[:16] != pseudonyms.key_id


@pytest.mark.parametrize("length", [0, 16, KEY_BYTES - 1, KEY_BYTES + 1])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Pseudonyms(bytes(length))


def test_a_created_key_file_is_the_owners_alone_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "key"
    created = Pseudonyms.create_key_file(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Pseudonyms.from_key_file(path).key_id == created.key_id
    assert Pseudonyms.create_key_file(tmp_path / "other").key_id != created.key_id


def test_a_key_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key"
    before = Pseudonyms.create_key_file(path).key_id
    with pytest.raises(Misconfigured, match="cannot be created"):
        Pseudonyms.create_key_file(path)
    assert Pseudonyms.from_key_file(path).key_id == before


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o604, 0o700, 0o601])
def test_a_key_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    Pseudonyms.create_key_file(path)
    path.chmod(mode)
    with pytest.raises(Misconfigured, match=rf"pseudonyms.key_file: its mode is {mode:04o}"):
        Pseudonyms.from_key_file(path)


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_key_file_of_its_owner_alone_is_taken(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    key_id = Pseudonyms.create_key_file(path).key_id
    path.chmod(mode)
    assert Pseudonyms.from_key_file(path).key_id == key_id


@pytest.mark.parametrize("content", [b"", b"00" * 31, b"00" * 33, b"zz" * 32, bytes(32)])
def test_a_file_without_a_key_is_refused_without_showing_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(Misconfigured, match="holds no key") as caught:
        Pseudonyms.from_key_file(path)
    forms = [content[:8].hex(), repr(content)[2:10]] if content else []
    assert [form for form in forms if form in str(caught.value)] == []


def test_an_absent_key_file_is_said_to_be_absent(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="No such file"):
        Pseudonyms.from_key_file(tmp_path / "absent")
    with pytest.raises(Misconfigured, match=r"pseudonyms\.key_file"):
        Pseudonyms.from_key_file(tmp_path)


def test_the_days_of_a_patient_are_the_same_everywhere_and_tell_nothing_of_the_pseudonym() -> None:
    pseudonyms = Pseudonyms(bytes(range(32)))
    days = pseudonyms.days_earlier("4711", "HOSPITAL")
    assert days == Pseudonyms(bytes(range(32))).days_earlier(" 4711 ", "HOSPITAL")
    assert days != pseudonyms.days_earlier("4711", "CLINIC")
    assert days != Pseudonyms(b"\7" * 32).days_earlier("4711", "HOSPITAL")


@given(st.text(min_size=1).filter(lambda text: text.strip(" \0")))
def test_dates_are_never_left_where_they_are_and_never_moved_by_more_than_ten_years(
    patient_id: str,
) -> None:
    assert 1 <= Pseudonyms(bytes(range(32))).days_earlier(patient_id) <= 3653


def test_without_a_patient_id_the_days_are_the_studys() -> None:
    pseudonyms = Pseudonyms(bytes(range(32)))
    first, second = (pseudonyms.days_earlier("", study_uid=f"1.2.{n}") for n in (1, 2))
    assert first != second
    with pytest.raises(ValueError, match="neither"):
        pseudonyms.days_earlier("")


def test_a_project_has_other_pseudonyms_of_everything_and_the_same_key_id() -> None:
    key = Pseudonyms(bytes(range(32)))
    one, two = key.of_project("one"), key.of_project("two")
    assert one.key_id == two.key_id == key.key_id
    for make in (
        lambda pseudonyms: pseudonyms.patient_id("4711"),
        lambda pseudonyms: pseudonyms.uid("1.2.3"),
        lambda pseudonyms: pseudonyms.accession_number("4711"),
        lambda pseudonyms: pseudonyms.opaque("name", b"4711"),
    ):
        assert len({make(key), make(one), make(two)}) == 3
    assert key.of_project("").uid("1.2.3") == key.uid("1.2.3")
