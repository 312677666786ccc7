"""Names of users are kept so that every database takes them, and two users stay two."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from prichexy_plugin.people import LONGEST_ACTOR, kept_name, person

#: What Orthanc takes for a user's name: any text but a colon.
NAMES = st.text(st.characters(exclude_characters=":"), max_size=300)


def test_a_usual_name_is_kept_as_it_is() -> None:
    for name in ("ada", "Dr. Ada Lovelace-Müller", "x" * 123, ""):
        assert kept_name(name) == name
        assert person(name) == f"user {name}"


def test_of_a_long_name_the_beginning_is_kept_and_its_ends_are_told_apart() -> None:
    one, other = kept_name("x" * 500), kept_name("x" * 501)
    assert one.startswith("x" * 100)
    assert len(one) == len(other) == 123
    assert one != other


def test_a_control_character_is_shown_as_a_question_mark() -> None:
    assert kept_name("o\0scar").startswith("o?scar #")
    assert kept_name("o\0scar") != kept_name("o\nscar")


@given(NAMES)
def test_every_name_fits_and_is_kept_once(name: str) -> None:
    assert len(person(name)) <= LONGEST_ACTOR
    assert all(unicodedata.category(one) not in ("Cc", "Cs") for one in person(name))
    assert kept_name(kept_name(name)) == kept_name(name)


@given(NAMES, NAMES)
def test_two_names_stay_two(one: str, other: str) -> None:
    assert (kept_name(one) == kept_name(other)) == (one == other)
