"""The options of PS3.15 E.3 that a project may ask for, over the Basic Profile."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

__all__ = ["Option"]


class Option(StrEnum):
    """An option of the Basic Profile. Its value is its name in a project profile.

    ``code`` and ``meaning`` are of PS3.16 CID 7050, group DCM: what a result claims under it.
    """

    code: str
    meaning: str

    def __new__(cls, name: str, code: str = "", meaning: str = "") -> Self:
        """Make a member whose value is ``name``."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.code = code
        member.meaning = meaning
        return member

    MODIFIED_DATES = (
        "modified-dates",
        "113107",
        "Retain Longitudinal Temporal Information Modified Dates Option",
    )
    PATIENT_CHARACTERISTICS = (
        "patient-characteristics",
        "113108",
        "Retain Patient Characteristics Option",
    )
    DEVICE_IDENTITY = "device-identity", "113109", "Retain Device Identity Option"
    INSTITUTION = "institution", "113112", "Retain Institution Identity Option"
    UIDS = "uids", "113110", "Retain UIDs Option"
    CLEAN_DESCRIPTORS = "clean-descriptors", "113105", "Clean Descriptors Option"
    CLEAN_STRUCTURED_CONTENT = (
        "clean-structured-content",
        "113104",
        "Clean Structured Content Option",
    )
