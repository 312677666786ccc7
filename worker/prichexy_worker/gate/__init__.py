"""The release gate: all that is checked of a result, after everything, before it may leave.

The gate takes the original's bytes and the result's, and reads both anew: nothing that the steps
before it hold in memory is believed, but the decoded pixels of the source. It has no settings. A
check that raises, or that cannot be made, keeps the result back as one that fails does.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Sequence
from functools import partial
from io import BytesIO
from typing import Final, TypeVar

from pydicom import dcmread
from pydicom.dataset import Dataset

from prichexy_worker import inspection, view
from prichexy_worker.contract import Box, Looked, Reason
from prichexy_worker.errors import Rejected, StudyError
from prichexy_worker.gate.conformance import check_conformance
from prichexy_worker.gate.judge import Judge, NotJudged, installed
from prichexy_worker.gate.sanity import check_pixels, read_pixels
from prichexy_worker.pixels import Radiograph
from prichexy_worker.ports import Released
from prichexy_worker.quiet import without_noise
from prichexy_worker.release import NOTHING, Allowed, check_release
from prichexy_worker.text import Finder, doubted, is_within

__all__ = ["Judge", "installed", "release"]

T = TypeVar("T")
#: By so many pixels a find may differ from one before, whatever was moved.
_BLUR: Final = 2


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
    looked: Looked | None = None,
) -> Released:
    """Give ``result`` as what may leave, or raise Rejected.

    ``original`` is the file that it was made of and ``radiograph`` that file's decoded pixels;
    ``own_texts`` and ``allowed`` as for ``release.check_release``; ``judge`` is that of the
    environment where none is given. ``markers`` are the boxes (left, top, right, bottom) of side
    and view markers that were surely read before pixels were moved, by ``moved`` pixels at most:
    a marker that was deformed may not be read any more.

    ``looked`` is what a person decided over this image. It counts for the original with its digest
    alone, and for the last of the checks: what is found where a box lay that is to be kept is no
    alarm. No decision of a person reaches any other check.

    The reasons, in the order of the checks:

    IDENTITY_SURVIVED    an identifying value of the original is in the bytes (``release``)
    PIXELS_NOT_SANE      the pixels are not like the original's (``gate.sanity``)
    CONFORMANCE_BROKEN   dciodvfy finds an error that the original has not (``gate.conformance``)
    BURNED_IN_TEXT       text that is no marker can be seen in the result (``text``)
    CHECK_IMPOSSIBLE     one of these could not be told

    Details hold tags, names of attributes, words of our own and numbers, never a value.
    """
    passing = [_reach(one, moved) for one in markers]
    passing += [_grown(one, math.ceil(moved) + _BLUR) for one in _spared(original, looked)]
    source = _checked("source", partial(inspection.read, original))
    made = _checked("result", partial(_reread, result))
    found = _checked("pixels", partial(read_pixels, made))
    sought = partial(check_release, own_texts=own_texts, allowed=allowed, pixels=found.content())
    checks: dict[str, Callable[[], None]] = {
        "identity": partial(sought, source, result),
        "pixels": partial(check_pixels, source, radiograph, made, found),
        "conformance": partial(_conforms, original, result, made, judge),
        "text": partial(_refuse_text, made, found, finder, passing),
    }
    for name, check in checks.items():
        _checked(name, check)
    return Released(result)


def _checked(name: str, check: Callable[[], T]) -> T:
    """Make one check. Whatever else it raises than Rejected or Retryable, it could not be made."""
    try:
        with without_noise():
            return check()
    except StudyError:
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
    return _grown(box, math.ceil(moved + min(right - left, bottom - top) / 4))


def _grown(box: Box, more: int) -> Box:
    left, top, right, bottom = box
    return left - more, top - more, right + more, bottom + more


def _spared(original: bytes, looked: Looked | None) -> tuple[Box, ...]:
    """Give where a person has seen no text; nowhere unless it was in this original."""
    if looked is None or looked.digest != hashlib.sha256(original).hexdigest():
        return ()
    return looked.keep


def _refuse_text(made: Dataset, found: Radiograph, finder: Finder, passing: Sequence[Box]) -> None:
    seen = [
        (shown, region) for shown in view.searched(found, made) for region in finder.find(shown)
    ]
    left = [
        (shown, region)
        for shown, region in seen
        if not region.marker and not is_within(region.box, passing)
    ]
    if left:
        raise doubted(f"{len(left)} in the result", left)
