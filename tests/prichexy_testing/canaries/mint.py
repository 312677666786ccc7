"""Values that occur nowhere by chance, one for each VR, and the byte strings that show them."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from typing import Final

__all__ = ["Mint", "Value"]

#: No vowels: no word of a language, and nothing of a pseudonym or a digest.
_LETTERS: Final = "BCDFGHJKLMNPQRSTVWXZ"
_ROOT: Final = "1.2.826.0.1.3680043.10.777"
#: No age of a person, and none of its characters stands in a base32 pseudonym.
_AGES: Final = "0189"
_NO_FORM: Final[tuple[bytes, ...]] = ()


@dataclass(frozen=True, slots=True)
class Value:
    """A value as it is stored, unpadded, and what would show it, in small letters.

    Without ``forms`` it is too short to be told from chance anywhere but under its own tag.
    """

    raw: bytes
    forms: tuple[bytes, ...]


class Mint:
    """Makes values; the same seed gives the same ones. None occurs in ``avoid``, none twice."""

    def __init__(self, seed: str, avoid: bytes = b"") -> None:
        self._random = random.Random(seed)
        self._avoid = avoid.lower()
        self._made: set[bytes] = set()

    def below(self, limit: int) -> int:
        """Give a number from 0 to ``limit`` - 1."""
        return self._random.randrange(limit)

    def word(self) -> str:
        """Give a word of 8 capitals."""
        while True:
            word = "Q" + "".join(self._random.choice(_LETTERS) for _ in range(7))
            if self._is_new(word.lower().encode()):
                return word

    def text(self, before: str = "", after: str = "") -> Value:
        """Give a text with a new word in it."""
        word = self.word()
        return Value(f"{before}{word}{after}".encode(), shapes(word))

    def native(
        self, alphabet: str, codec: str, *, before: bytes = b"", after: bytes = b""
    ) -> Value:
        """Give six characters of ``alphabet`` as ``codec`` writes them, between other bytes.

        Shown by these characters in that codec, in UTF-8 and in UTF-16.
        """
        while True:
            word = "".join(self._random.choice(alphabet) for _ in range(6))
            if self._is_new(word.encode("utf-8")):
                break
        encoded = word.encode(codec)
        return Value(before + encoded + after, (encoded.lower(), *shapes(word)))

    def of(self, vr: str, *, little_endian: bool = True) -> Value:
        """Give a value that fits the VR."""
        match vr:
            case "PN":
                word = self.word()
                name = f"{word}^{word.title()}GIVEN^{word}MIDDLE"
                return Value(name.encode(), shapes(word))
            case "DA":
                return self._date()
            case "TM":
                return self._time()
            case "DT":
                date, time = self._date(), self._time()
                return Value(date.raw + time.raw, date.forms + time.forms)
            case "UI":
                return self._uid()
            case "AS":
                return self._short(lambda: "".join(map(self._pick, [_AGES] * 3)) + "Y")
            case "DS":
                return self._decimal()
            case "IS":
                return self._short(lambda: str(100_000_000 + self.below(2_000_000_000)))
            case "UR":
                return self.text("http://", ".example/patient")
            case "LO" | "LT" | "ST" | "UC" | "UT":
                return self.text("seen by ", " of ward 7")
            case "OB" | "OW" | "UN" | "OD" | "OF" | "OL" | "OV":
                return self.text("bytes of ", " here....")
            case "US" | "SS" | "AT" | "UL" | "SL":
                order = "<" if little_endian else ">"
                size = "H" if vr in ("US", "SS") else "I" if vr != "AT" else "HH"
                numbers = [21_000 + self.below(9_000) for _ in size]
                return Value(struct.pack(order + size, *numbers), _NO_FORM)
            case "FL" | "FD":
                order = "<" if little_endian else ">"
                number = self._random.uniform(1e6, 1e7)
                raw = struct.pack(order + ("f" if vr == "FL" else "d"), number)
                return Value(raw, (raw.lower(),) if vr == "FD" else _NO_FORM)
            case _:  # AE, CS, SH: at most 16 characters
                return self.text()

    def _pick(self, letters: str) -> str:
        return self._random.choice(letters)

    def _is_new(self, form: bytes) -> bool:
        if form in self._made or form in self._avoid:
            return False
        self._made.add(form)
        return True

    def _short(self, make: object) -> Value:
        while True:
            text = make()  # type: ignore[operator]
            if self._is_new(text.lower().encode()):
                return Value(text.encode(), (text.lower().encode(),))

    def _date(self) -> Value:
        while True:
            # Digits of a date all of which could not be something else by chance.
            year, month = 1901 + self.below(49), 1 + self.below(12)
            day = 13 + self.below(16)
            y, m, d = f"{year}", f"{month:02}", f"{day:02}"
            if self._is_new(f"{y}{m}{d}".encode()):
                break
        written = {
            y + m + d,
            *(s.join(p) for s in "-./" for p in ((y, m, d), (d, m, y), (m, d, y))),
        }
        return Value((y + m + d).encode(), tuple(sorted(form.encode() for form in written)))

    def _time(self) -> Value:
        while True:
            h, m, s = (
                f"{n:02}" for n in (self.below(24), 10 + self.below(50), 11 + self.below(48))
            )
            if self._is_new(f"{h}{m}{s}".encode()):
                break
        fraction = f"{self.below(1_000_000):06}"
        return Value(
            f"{h}{m}{s}.{fraction}".encode(), (f"{h}{m}{s}".encode(), f"{h}:{m}:{s}".encode())
        )

    def _uid(self) -> Value:
        while True:
            tail = f"{1_000_000_000 + self.below(9_000_000_000)}"
            if self._is_new(tail.encode()):
                break
        return Value(f"{_ROOT}.{tail}".encode(), (tail.encode(),))

    def _decimal(self) -> Value:
        while True:
            digits = f"{100_000_000 + self.below(900_000_000)}"
            if self._is_new(digits.encode()):
                break
        text = f"{digits[:2]}.{digits[2:]}"
        number = float(text)
        binary = [struct.pack(order + "d", number).lower() for order in "<>"]
        return Value(text.encode(), (text.encode(), digits.encode(), *binary))


def shapes(word: str) -> tuple[bytes, ...]:
    """Give a word as UTF-8 and both UTF-16 write it, in small letters."""
    small = word.lower() if word.isascii() else word
    codecs = ("utf-8", "utf-16-le", "utf-16-be")
    return tuple(dict.fromkeys(small.encode(codec).lower() for codec in codecs))
