"""Tests of the marks by which a ledger knows what it had sent."""

from __future__ import annotations

import pytest

from prichexy_worker.sent import Image, Sent, marks_of, older_mark_of

WRONG = Image("PX-WRONG", "2.25.1", "2.25.3")
RIGHT = WRONG._replace(patient_id="PX-RIGHT")
OLD = Sent(frozenset({older_mark_of(WRONG.sop_uid)}))


def test_an_image_is_known_by_its_patient_and_its_uid() -> None:
    sent = Sent().with_these([WRONG])
    another = WRONG._replace(sop_uid="2.25.4")
    assert sent.among([WRONG, RIGHT, another]) == {WRONG}
    assert sent.names(WRONG.sop_uid)
    assert not sent.names(another.sop_uid)


def test_another_patients_study_is_no_concern_of_this_one() -> None:
    sent = Sent().with_these([WRONG])
    assert not sent.may_concern(RIGHT)
    assert sent.may_concern(WRONG._replace(sop_uid="2.25.99"))  # another gateway's, as it may be
    assert sent.may_concern(RIGHT._replace(study_uid="2.25.9"))  # exported under a retired key
    assert Sent().may_concern(RIGHT)
    assert OLD.may_concern(RIGHT)


def test_both_names_of_a_patient_whose_pseudonym_changed_are_known() -> None:
    sent = Sent().with_these([WRONG]).with_these([RIGHT])
    assert sent.among([WRONG, RIGHT]) == {WRONG, RIGHT}


def test_a_mark_of_before_counts_where_it_can_mean_one_image_only() -> None:
    assert OLD.names(WRONG.sop_uid)
    assert OLD.among([WRONG]) == {WRONG}
    assert OLD.among([RIGHT]) == {RIGHT}
    assert OLD.among([WRONG, RIGHT]) == frozenset()


def test_a_mark_of_before_counts_no_more_when_its_image_is_exported_again() -> None:
    sent = OLD.with_these([WRONG])
    assert sent.among([WRONG, RIGHT]) == {WRONG}
    assert sent.among([RIGHT]) == frozenset()
    assert sent.may_concern(RIGHT)  # who sent it is not known: that is told


@pytest.mark.parametrize("image", [WRONG, RIGHT])
def test_marks_are_as_the_contract_has_them(image: Image) -> None:
    marks = marks_of([image])
    assert len(marks) == 2
    assert all(len(mark) == 16 and set(mark) <= set("0123456789abcdef") for mark in marks)
