"""Reads the values of the contract strictly, whichever of its versions they are of."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, Final

from prichexy_worker.contract.terms import (
    CONTRACT_VERSION,
    DECISIONS,
    IMAGE_PARTS,
    LEAST_STRENGTH,
    MOST_BOXES,
    MOST_PICTURES,
    MOST_STRENGTH,
    OLDEST_VERSION,
    REPORTABLE,
    WHOLE_PICTURE_BYTES,
    Box,
    Errand,
    Reason,
    State,
)

__all__ = [
    "DIGEST",
    "DIGEST_OR_NONE",
    "EDITION_OR_NONE",
    "JOB_ID",
    "KEY_ID",
    "KEY_ID_OR_NONE",
    "LONGEST_SIDE",
    "MARK",
    "NAME",
    "PSEUDONYMOUS_UID",
    "SENTENCE",
    "STUDY_ID",
    "WORKER_ID",
    "ContractError",
    "LaterVersion",
    "Reader",
    "version_of",
]

JOB_ID: Final = re.compile(r"[0-9a-f]{32}")
MARK: Final = re.compile(r"[0-9a-f]{16}")
#: As ``Pseudonyms.uid`` makes them.
PSEUDONYMOUS_UID: Final = re.compile(r"2\.25\.[0-9]{1,39}")
STUDY_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{8}){4}")
NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
#: "plugin" stands in the audit trail for the plugin itself.
WORKER_ID: Final = re.compile(r"(?!plugin\Z)[A-Za-z0-9._@:-]{1,128}")
DIGEST: Final = re.compile(r"[0-9a-f]{64}")
DIGEST_OR_NONE: Final = re.compile(r"([0-9a-f]{64})?")
KEY_ID: Final = re.compile(r"[0-9a-f]{16}")
KEY_ID_OR_NONE: Final = re.compile(r"([0-9a-f]{16})?")
EDITION_OR_NONE: Final = re.compile(r"[0-9a-z.-]{0,16}")
SENTENCE: Final = re.compile(r"[^\x00-\x1f]{0,400}")
#: What a count may be at most: what databases keep as an integer.
_MOST_COUNTED: Final = 2**31 - 1
#: How large a figure may be, either way, how long a duration, and how many of them are told at a
#: time: far beyond what is measured, and nothing that pages or databases could not bear.
_LARGEST_FIGURE: Final = 1e12
_LONGEST_SECONDS: Final = 14 * 86400.0
_MOST_FIGURES: Final = 128
#: Rows and Columns are 16 bits wide.
LONGEST_SIDE: Final = 65535
#: Bytes of the picture of a region, and of one of an exported image, at most.
_PICTURE_BYTES: Final = 256 * 1024
_IMAGE_BYTES: Final = 512 * 1024
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_JPEG: Final = b"\xff\xd8\xff"


class ContractError(ValueError):
    """A message, report or announcement that does not fit this version of the contract."""


class LaterVersion(ContractError):
    """It is of a version that only later software reads."""


def version_of(header: str | None) -> int:
    """Give the version to answer in to whoever sent ``REQUEST_HEADER`` with this value."""
    told = int(header) if header is not None and re.fullmatch("[0-9]{1,6}", header) else 1
    return max(OLDEST_VERSION, min(told, CONTRACT_VERSION))


class Reader:
    """Reads one JSON object strictly; every complaint names the key, never the value."""

    def __init__(
        self, data: object, kind: str, keys: set[str], optional: frozenset[str] = frozenset()
    ) -> None:
        if not isinstance(data, Mapping):
            raise ContractError(f"{kind}: not a JSON object")
        version = data.get("version")
        if isinstance(version, bool) or not isinstance(version, int) or version < OLDEST_VERSION:
            raise ContractError(f"{kind}: version is not one of a contract")
        if version > CONTRACT_VERSION:
            raise LaterVersion(f"{kind}: version is later than {CONTRACT_VERSION}")
        odd = keys - data.keys()
        if version == 1:
            odd |= data.keys() - optional - keys - {"version"}
        if odd:
            raise ContractError(f"{kind}: missing or unknown: {', '.join(sorted(map(str, odd)))}")
        self.version = version
        self._data: Mapping[str, Any] = data
        self._kind = kind

    def refusal(self, key: str) -> ContractError:
        """Give the complaint about a key."""
        return ContractError(f"{self._kind}: {key} is not valid")

    def text(self, key: str, pattern: re.Pattern[str]) -> str:
        """Give a text that fits ``pattern`` as a whole."""
        value = self._data[key]
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise self.refusal(key)
        return value

    def text_or_blank(self, key: str, pattern: re.Pattern[str]) -> str:
        """Give a text, blank where the key is left out or blank."""
        return self.text(key, pattern) if self._data.get(key) else ""

    def texts(self, key: str, pattern: re.Pattern[str]) -> tuple[str, ...]:
        """Give a list of texts, empty where the key is left out."""
        values = self._data.get(key, [])
        if not isinstance(values, list) or len(set(map(str, values))) != len(values):
            raise self.refusal(key)
        if not all(isinstance(value, str) and pattern.fullmatch(value) for value in values):
            raise self.refusal(key)
        return tuple(values)

    def count(self, key: str, minimum: int = 0) -> int:
        """Give a whole number, from ``minimum`` to what databases keep."""
        value = self._data[key]
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.refusal(key)
        if not minimum <= value <= _MOST_COUNTED:
            raise self.refusal(key)
        return value

    def yes_or_no(self, key: str) -> bool:
        """Give true or false."""
        value = self._data[key]
        if not isinstance(value, bool):
            raise self.refusal(key)
        return value

    def yes_or_left_out(self, key: str) -> bool:
        """Give true or false, the latter where the key is left out."""
        return key in self._data and self.yes_or_no(key)

    def seconds(self, key: str) -> dict[str, float]:
        """Give durations by name."""
        return self.numbers(key, 0.0, _LONGEST_SECONDS)

    def numbers(
        self, key: str, least: float = -_LARGEST_FIGURE, most: float = _LARGEST_FIGURE
    ) -> dict[str, float]:
        """Give figures by name, each from ``least`` to ``most``."""
        value = self._data[key]
        if not isinstance(value, Mapping) or len(value) > _MOST_FIGURES:
            raise self.refusal(key)
        for name, number in value.items():
            numeric = isinstance(number, int | float) and not isinstance(number, bool)
            named = isinstance(name, str) and NAME.fullmatch(name)
            # What is no number at all is not between them.
            if not named or not numeric or not least <= number <= most:
                raise self.refusal(key)
        return {name: float(number) for name, number in value.items()}

    def boxes(self, key: str) -> tuple[Box, ...]:
        """Give boxes, which stand as their numbers one after the other."""
        value = self._data[key]
        if not isinstance(value, list) or len(value) % 4 or len(value) > 4 * MOST_BOXES:
            raise self.refusal(key)
        if not all(isinstance(one, int) and not isinstance(one, bool) for one in value):
            raise self.refusal(key)
        boxes = tuple(
            (value[at], value[at + 1], value[at + 2], value[at + 3])
            for at in range(0, len(value), 4)
        )
        for left, top, right, bottom in boxes:
            if not (0 <= left < right <= LONGEST_SIDE and 0 <= top < bottom <= LONGEST_SIDE):
                raise self.refusal(key)
        return boxes

    def items(self, key: str, most: int | None = None) -> list[object]:
        """Give a list of at most so many, empty where the key is left out."""
        value = self._data.get(key, [])
        if not isinstance(value, list) or (most is not None and len(value) > most):
            raise self.refusal(key)
        return value

    def strength(self, key: str) -> float:
        """Give a factor on the displacement, 1 where the key is left out."""
        value = self._data.get(key, 1)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.refusal(key)
        if not LEAST_STRENGTH <= value <= MOST_STRENGTH:
            raise self.refusal(key)
        return float(value)

    def errand(self, key: str) -> Errand:
        """Give an errand, to anonymise where the key is left out."""
        value = self._data.get(key, Errand.ANONYMIZE.value)
        if not isinstance(value, str) or value not in set(Errand):
            raise self.refusal(key)
        return Errand(value)

    def state(self, key: str) -> State:
        """Give a state that a worker of this version may report."""
        value = self._data[key]
        if not isinstance(value, str) or value not in set(REPORTABLE):
            raise self.refusal(key)
        if value == State.REJECTED.value and self.version < DECISIONS:
            raise self.refusal(key)
        return State(value)

    def reason(self, key: str) -> Reason | None:
        """Give a reason, or None."""
        value = self._data[key]
        if value is None:
            return None
        if not isinstance(value, str) or value not in set(Reason):
            raise self.refusal(key)
        return Reason(value)

    def pictures(self, key: str) -> tuple[bytes, ...]:
        """Give PNG files of regions, 1 to ``MOST_PICTURES``."""
        value = self._data[key]
        if not isinstance(value, list) or not 1 <= len(value) <= MOST_PICTURES:
            raise self.refusal(key)
        return tuple(self._picture(key, text, _PICTURE_BYTES, _PNG) for text in value)

    def whole_picture(self, key: str) -> bytes:
        """Give a PNG file of a whole image."""
        return self._picture(key, self._data[key], WHOLE_PICTURE_BYTES, _PNG)

    def image_parts(self, key: str) -> tuple[bytes, ...]:
        """Give JPEG files, those of ``IMAGE_PARTS``."""
        value = self._data[key]
        if not isinstance(value, list) or len(value) != len(IMAGE_PARTS):
            raise self.refusal(key)
        return tuple(self._picture(key, text, _IMAGE_BYTES, _JPEG) for text in value)

    def _picture(self, key: str, text: object, most: int, begins: bytes) -> bytes:
        if not isinstance(text, str) or len(text) > 4 * most // 3 + 4:
            raise self.refusal(key)
        try:
            picture = base64.b64decode(text, validate=True)
        except binascii.Error:
            raise self.refusal(key) from None
        if not picture.startswith(begins):
            raise self.refusal(key)
        return picture

    def part(self, key: str) -> object:
        """Give what stands there, for another value to be read of."""
        return self._data[key]
