"""Whether a result is as valid a DICOM object as its source: no kind of error is new in it.

No error is excused: nothing that the de-identification does must break PS3.3. What it takes away
is optional, or emptied (Type 2), or replaced (Type 1).
"""

from __future__ import annotations

import zlib
from typing import Final

from prichexy_worker.contract import Reason
from prichexy_worker.errors import Rejected
from prichexy_worker.gate.judge import Fault, Judge, NotJudged

__all__ = ["check_conformance"]

#: So many new errors are named; the others are counted.
_NAMED: Final = 8
_PREAMBLE: Final = 128
_LONG: Final = frozenset({b"OB", b"OW", b"SQ", b"UN", b"UT"})
_TRANSFER_SYNTAX: Final = b"\x02\x00\x10\x00UI"
_DEFLATED: Final = b"1.2.840.10008.1.2.1.99"
_EXPLICIT: Final = b"1.2.840.10008.1.2.1\0\0\0"
#: What is larger than its source by this factor was not deflated by an honest archive.
_MOST_INFLATION: Final = 100


def check_conformance(original: bytes, result: bytes, sop_class: str, judge: Judge) -> None:
    """Return when ``judge`` finds no error in ``result`` that the file ``original`` does not have.

    Errors are the same where kind and attribute are. An original that cannot be judged excuses
    none. Raises Rejected CONFORMANCE_BROKEN with the tags; NotJudged when the result could not be
    judged, or not as an object of ``sop_class``.
    """
    verdict = judge.verdict(result)
    if verdict.sop_class != sop_class:
        raise NotJudged("judged as an object of another class")
    if not verdict.faults:
        return
    new = sorted(verdict.faults - _known(original, judge))
    if new:
        told = list(dict.fromkeys(fault.told() for fault in new))
        more = [f"and {len(told) - _NAMED} more"] if len(told) > _NAMED else []
        raise Rejected(Reason.CONFORMANCE_BROKEN, ", ".join(told[:_NAMED] + more))


def _known(original: bytes, judge: Judge) -> frozenset[Fault]:
    try:
        return judge.verdict(_inflated(original), whole=False).faults
    except NotJudged:
        return frozenset()


def _inflated(content: bytes) -> bytes:
    """Give a file whose data set is not deflated, which the judge cannot read."""
    position = _PREAMBLE + 4
    syntax = None
    while content[position : position + 2] == b"\x02\x00":
        long = content[position + 4 : position + 6] in _LONG
        at, size = (position + 8, 4) if long else (position + 6, 2)
        start = at + size
        if content[position : position + 6] == _TRANSFER_SYNTAX:
            syntax = start
        position = start + int.from_bytes(content[at:start], "little")
    if syntax is None or not content.startswith(_DEFLATED, syntax):
        return content
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        dataset = inflate.decompress(content[position:], _MOST_INFLATION * len(content))
    except zlib.error:
        raise NotJudged("cannot be inflated") from None
    meta = content[:position]
    return meta[:syntax] + _EXPLICIT + meta[syntax + len(_DEFLATED) :] + dataset
