"""Values in the character sets that hospitals write, and in ones that they declare wrongly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pydicom.dataset import Dataset

from prichexy_testing.canaries.mint import Value
from prichexy_testing.canaries.planting import Planting

__all__ = ["CHARACTER_SETS", "CharacterSet", "in_character_set"]


@dataclass(frozen=True, slots=True)
class CharacterSet:
    """What SpecificCharacterSet says, the codec that writes it, and letters to write."""

    terms: str
    codec: str
    alphabet: str
    before: bytes = b""
    after: bytes = b""


_KANJI: Final = "山田太郎鈴木花子佐藤健高橋渡辺伊"
_CHINESE: Final = "王小东张李陈刘杨赵黄周吴"
#: Escape sequences of the multi-byte ones: PS3.3 tables C.12-2 to C.12-4.
CHARACTER_SETS: Final = (
    CharacterSet("\\ISO 2022 IR 87", "iso2022_jp", _KANJI),
    CharacterSet("\\ISO 2022 IR 159", "iso2022_jp_2", "丂丄丅丌丒丟丣两丨丫"),
    CharacterSet("ISO 2022 IR 13\\ISO 2022 IR 87", "shift_jis", "ﾔﾏﾀﾞﾀﾛｳｽｽﾞｷﾊﾅｺ"),
    CharacterSet("\\ISO 2022 IR 149", "euc_kr", "김희중박영이최정강조윤", b"\x1b$)C"),
    CharacterSet("\\ISO 2022 IR 58", "gb2312", _CHINESE, b"\x1b$)A"),
    CharacterSet("ISO_IR 100", "latin-1", "äöüßéèçñåøÆÅ"),
    CharacterSet("ISO_IR 101", "iso8859_2", "ąćęłńóśźżřšč"),
    CharacterSet("ISO_IR 109", "iso8859_3", "ĉĝĥĵŝŭħıġċ"),
    CharacterSet("ISO_IR 110", "iso8859_4", "āēģīķļņšūž"),
    CharacterSet("ISO_IR 144", "iso8859_5", "ЛюксембургЖшщ"),
    CharacterSet("ISO_IR 127", "iso8859_6", "قبانيلنزارمح"),
    CharacterSet("ISO_IR 126", "iso8859_7", "Διονυσιοςλμξ"),
    CharacterSet("ISO_IR 138", "iso8859_8", "שרוןדבורהאבג"),
    CharacterSet("ISO_IR 148", "iso8859_9", "ğışçöüİŞĞ"),
    CharacterSet("ISO_IR 166", "tis_620", "กขคงจฉชซฌญ"),
    CharacterSet("ISO_IR 192", "utf-8", _KANJI + "äöüЖщ김희"),
    CharacterSet("GB18030", "gb18030", _CHINESE),
    CharacterSet("GBK", "gbk", _CHINESE),
    CharacterSet("ISO 2022 IR 100\\ISO 2022 IR 144", "iso8859_5", "ЛюксембургЖшщ", b"\x1b-L"),
    # Declared wrongly, or not at all.
    CharacterSet("ISO_IR 100", "utf-8", _KANJI),
    CharacterSet("", "latin-1", "äöüßéèçñåøÆÅ"),
    CharacterSet("ISO_IR 999", "shift_jis", _KANJI),
    CharacterSet("ISO_IR 192", "latin-1", "äöüßéèçñåøÆÅ"),
)


def in_character_set(planting: Planting, charset: CharacterSet) -> None:
    """Plant in names, texts and several values, at top level and in an item with the same set."""
    place = "character set"
    _declare(planting, charset)
    for tag, vr in ((0x00100010, "PN"), (0x00080080, "LO"), (0x00104000, "LT"), (0x00081010, "SH")):
        planting.plant(place, tag, vr, _native(planting, charset))
    values = [_native(planting, charset) for _ in range(3)]
    groups = values[0].raw + b"=" + values[1].raw + b"^X\\" + values[2].raw
    planting.set_raw(0x00101001, "PN", groups)
    for value in values:
        planting.note(place, planting.path_of(0x00101001), "PN", value)
    item = Dataset()
    inside = planting.into(item, 0x00400275)
    _declare(inside, charset)
    for tag, vr in ((0x00100010, "PN"), (0x00080104, "LO"), (0x00321060, "LO")):
        inside.plant(place, tag, vr, _native(planting, charset))
    planting.append(0x00400275, item)


def _declare(planting: Planting, charset: CharacterSet) -> None:
    planting.set_raw(0x00080005, "CS", charset.terms.encode())


def _native(planting: Planting, charset: CharacterSet) -> Value:
    return planting.mint.native(
        charset.alphabet, charset.codec, before=charset.before, after=charset.after
    )
