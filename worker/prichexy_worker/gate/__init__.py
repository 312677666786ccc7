"""The release gate: all that is checked of a result, after everything, before it may leave.

The gate takes the original's bytes and the result's, and reads both anew: nothing that the steps
before it hold in memory is believed, but the decoded pixels of the source. It has no settings. A
check that raises, or that cannot be made, keeps the result back as one that fails does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from functools import partial
from io import BytesIO
from typing import TypeVar

from pydicom import dcmread
from pydicom.dataset import Dataset

from prichexy_worker import inspection, view
from prichexy_worker.contract import Reason
from prichexy_worker.errors import Rejected
from prichexy_worker.gate.conformance import check_conformance
from prichexy_worker.gate.judge import Judge, NotJudged, installed
from prichexy_worker.gate.sanity import check_pixels, read_pixels
from prichexy_worker.pixels import Radiograph
from prichexy_worker.ports import Released
from prichexy_worker.quiet import without_noise
from prichexy_worker.release import NOTHING, Allowed, check_release
from prichexy_worker.text import Finder, doubted

__all__ = ["Judge", "installed", "release"]

T = TypeVar("T")
Box = tuple[int, int, int, int]


def release(
    result: bytes,
    *,
    original: bytes,
    radiograph: Radiograph,
    finder: Finder,
    own_texts: Collection[str] = (),
    allowed: Allowed = NOTHING,
    markers: Collection[Box] = (),
    moved: float = 0.0,
    judge: Judge | None = None,
) -> Released:
    """Give ``result`` as what may leave, or raise Rejected.

    ``original`` is the file that it was made of and ``radiograph`` that file's decoded pixels;
    ``own_texts`` and ``allowed`` as for ``release.check_release``; ``judge`` is that of the
    environment where none is given. ``markers`` are the boxes (left, top, right, bottom) of side
    and view markers that were surely read before pixels were moved, by ``moved`` pixels at most:
    a marker that was deformed may not be read any more.

    The reasons, in the order of the checks:

    IDENTITY_SURVIVED    an identifying value of the original is in the bytes (``release``)
    PIXELS_NOT_SANE      the pixels are not like the original's (``gate.sanity``)
    CONFORMANCE_BROKEN   dciodvfy finds an error that the original has not (``gate.conformance``)
    BURNED_IN_TEXT       text that is no marker can be seen in the result (``text``)
    CHECK_IMPOSSIBLE     one of these could not be told

    Details hold tags, names of attributes, words of our own and numbers, never a value.
    """
    source = _checked("source", partial(inspection.read, original))
    made = _checked("result", partial(_reread, result))
    found = _checked("pixels", partial(read_pixels, made))
    sought = partial(check_release, own_texts=own_texts, allowed=allowed, pixels=found.content())
    checks: dict[str, Callable[[], None]] = {
        "identity": partial(sought, source, result),
        "pixels": partial(check_pixels, source, radiograph, made, found),
        "conformance": partial(_conforms, original, result, made, judge),
        "text": partial(_refuse_text, made, found, finder, [_reach(one, moved) for one in markers]),
    }
    for name, check in checks.items():
        _checked(name, check)
    return Released(result)


def _checked(name: str, check: Callable[[], T]) -> T:
    """Make one check. Whatever else it raises than Rejected, it could not be made."""
    try:
        with without_noise():
            return check()
    except Rejected:
        raise
    except NotJudged as error:
        raise Rejected(Reason.CHECK_IMPOSSIBLE, f"{name}: {error}") from None
    except Exception as error:  # noqa: BLE001 - a check that breaks is no pass; texts quote values
        raise Rejected(Reason.CHECK_IMPOSSIBLE, f"{name}: {type(error).__name__}") from None


def _reread(result: bytes) -> Dataset:
    return dcmread(BytesIO(result))


def _conforms(original: bytes, result: bytes, made: Dataset, judge: Judge | None) -> None:
    check_conformance(original, result, str(made.SOPClassUID), judge or installed())


def _reach(box: Box, moved: float) -> Box:
    """Give where a marker may be found again: its box, larger by a quarter of its shorter side."""
    left, top, right, bottom = box
    more = math.ceil(moved + min(right - left, bottom - top) / 4)
    return left - more, top - more, right + more, bottom + more


def _lies_in(inner: Box, outer: Box) -> bool:
    return all(one >= two for one, two in zip(inner[:2], outer[:2], strict=True)) and all(
        one <= two for one, two in zip(inner[2:], outer[2:], strict=True)
    )


def _refuse_text(
    made: Dataset, found: Radiograph, finder: Finder, markers: Collection[Box]
) -> None:
    seen = [
        (shown, region) for shown in view.searched(found, made) for region in finder.find(shown)
    ]
    left = [
        (shown, region)
        for shown, region in seen
        if not region.marker and not any(_lies_in(region.box, marker) for marker in markers)
    ]
    if left:
        raise doubted(f"{len(left)} in the result", left)
