"""Finds text in a radiograph as it is displayed, and tells side and view markers from the rest.

The search shows the image to a text detector (PP-OCR, by rapidocr, from the model files of its
wheel: nothing is fetched) at several sizes and contrasts: large letters are found in small
images, small ones part by part, faint ones after local contrast equalisation. The detector finds
text in any direction, as a turned rectangle; what it finds is read only to tell markers from other
text, and what was read is forgotten at once and never returned, logged or raised.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from prichexy_worker.contract import WHOLE_SIDE
from prichexy_worker.text.markers import is_marker, letters
from prichexy_worker.text.models import FAINTEST, at_full_speed, load

if TYPE_CHECKING:
    from rapidocr import RapidOCR

__all__ = ["Corners", "Finder", "TextFinder", "TextRegion"]

Picture = npt.NDArray[np.uint8]
Quad = npt.NDArray[np.float32]
Outlines = tuple[tuple[Quad, float], ...]
#: The four corners (x, y) of a turned rectangle, in order around it.
Corners = tuple[tuple[float, float], ...]

#: A marker is kept only when it was read with this confidence.
_SURE: Final = 0.8
#: What the detector takes for text counts from ``_TEXT_LIKE`` on, readable or not, and from
#: ``FAINTEST`` on when it reads as something.
_TEXT_LIKE: Final = 0.6
_READABLE: Final = 0.6
#: What is taller than this share of the picture's shorter side counts from ``_TALL_TEXT_LIKE`` on,
#: or where it reads as two letters or more. Of 49 texts drawn that tall none had less than 0.76;
#: round bones that read as "0" had 0.59 to 0.70.
_TALL: Final = 0.025
_TALL_TEXT_LIKE: Final = 0.75
#: Greatest height of letters, as a share of the shorter side of what the detector is shown. What
#: is larger is anatomy: it outlines a vertebra in a part, a lung or all of a small picture.
_TALLEST: Final = 0.2
#: Two finds are one where they share this part of the smaller one.
_SAME: Final = 0.4
#: A find that was outlined in several ways is judged by those with this part of its area.
_MOST: Final = 0.5
#: How far a marker's surroundings must be free of other letters, in heights of its box.
_CLEARANCE: Final = 1.0


class _Look(NamedTuple):
    """One way to show the image to the detector: its longer side in pixels, and its contrast.

    ``tiled``: part by part. The detector weighs a picture as a whole, and a single small text in a
    large radiograph then counts for little: of 68 such texts it found 31 in whole images of 1600
    pixels and 67 in parts of them.
    """

    side: int
    equalised: bool
    tiled: bool

    def at(self, shape: tuple[int, ...]) -> _Look:
        """Give the look for a picture of this shape, enlarged by half at most or to 736 pixels.

        A small one is shown whole: a text has its weight in it.
        """
        side = max(min(self.side, round(_ENLARGED * max(shape))), _SMALLEST_SIDE)
        return self._replace(side=side, tiled=self.tiled and side > _WHOLE)


#: The tiled sides are the longest that two and four tiles cover. Letters of 16 rows of 2400 were
#: missed where the second was the longest of three.
_LOOKS: Final = (_Look(800, False, False), _Look(1184, True, True), _Look(WHOLE_SIDE, False, True))
#: Images smaller than this are enlarged to it: the detector knows no letters below 8 pixels.
_SMALLEST_SIDE: Final = 736
#: Small letters are found better in enlarged images: in one of 1355 rows a faint 19-pixel text had
#: no score at all as it was, and 0.71 enlarged by 1.28.
_ENLARGED: Final = 1.5
#: A picture whose longer side has no more pixels is shown whole.
_WHOLE: Final = 800
_TILE: Final = 640
#: Neighbouring tiles share at least this much, so that every letter is whole in one of them.
_SHARED: Final = 96
#: As many parts are remembered as two views of one image have at most, and those of it erased.
_REMEMBERED: Final = 128


@dataclass(frozen=True, slots=True)
class TextRegion:
    """Where text, or what looks like it, was found. What it says is not kept.

    Pixels of the image given, from ``left``, ``top`` up to and without ``right``, ``bottom``.
    ``confidence`` in 0..1 is the detector's that this is text at all; ``marker`` says that it was
    read, surely, as a word of MARKERS and nothing else. ``quads`` are the turned rectangles by
    which it was found, the largest first; one at least, unless the region was made without.
    """

    left: int
    top: int
    right: int
    bottom: int
    confidence: float
    marker: bool
    quads: tuple[Corners, ...] = ()

    def outlines(self) -> tuple[Corners, ...]:
        """Give ``quads``, or the corners of the box where there are none."""
        left, top, right, bottom = (float(side) for side in self.box)
        box = ((left, top), (right, top), (right, bottom), (left, bottom))
        return self.quads or (box,)

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom."""
        return self.left, self.top, self.right, self.bottom


class Finder(Protocol):
    """A search for text; ``TextFinder`` is one."""

    def find(self, view: npt.NDArray[np.float32]) -> tuple[TextRegion, ...]:
        """Give the regions of a view that hold text."""


class TextFinder:
    """Finds text in radiographs; on ``threads`` threads of this process at most (OpenCV's apart).

    Loads its models when first used, half a second and 0.3 GB, and anew in a process forked since.
    Not to be used by two threads at once. It remembers where text is in the parts of pictures that
    it saw last, by their digests, so that a picture of which little has changed is searched faster
    and with the same result.
    """

    def __init__(self, threads: int = 1) -> None:
        if threads < 1:
            raise ValueError("threads must be 1 or more")
        self._threads = threads
        self._engine: RapidOCR | None = None
        self._loaded_by = 0
        self._seen: OrderedDict[bytes, Outlines] = OrderedDict()

    def find(self, view: npt.NDArray[np.float32]) -> tuple[TextRegion, ...]:
        """Give the regions of ``view`` that look like text, from top to bottom.

        ``view`` is float (rows, columns), 0 black to 1 white. Raises Misconfigured when the
        models of rapidocr are not installed, ValueError for another shape or what is no number.
        """
        if view.ndim != 2 or not view.size or not np.isfinite(view).all():
            raise ValueError("the view must be a picture of finite numbers")
        picture: Picture = np.round(np.clip(view, 0, 1) * 255).astype(np.uint8)
        looks = dict.fromkeys(look.at(picture.shape) for look in _LOOKS)
        reader = _Reader(self._loaded(), picture, self._seen)
        with at_full_speed():
            finds = _merged([find for look in looks for find in reader.finds(look)])
            regions = [region for find in finds if (region := reader.judged(find)) is not None]
        return tuple(sorted(regions, key=lambda region: (region.top, region.left)))

    def _loaded(self) -> RapidOCR:
        # Sessions of onnxruntime do not survive a fork: their threads stay behind.
        if self._engine is None or self._loaded_by != os.getpid():
            self._engine, self._loaded_by = load(self._threads), os.getpid()
        return self._engine


@dataclass(slots=True)
class _Find:
    """A quadrilateral that the detector outlined: corners (x, y) clockwise from the top left."""

    quad: Quad
    score: float
    quads: list[Quad]
    lesser: list[Quad] = field(default_factory=list)  # of the same text, too small to be read

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        left, top = self.quad.min(axis=0)
        right, bottom = self.quad.max(axis=0)
        return float(left), float(top), float(right), float(bottom)


class _Reader:
    """One picture before the loaded models."""

    def __init__(
        self, engine: RapidOCR, picture: Picture, seen: OrderedDict[bytes, Outlines]
    ) -> None:
        self._engine = engine
        self._picture = picture
        self._seen = seen

    def finds(self, look: _Look) -> Iterator[_Find]:
        """Give what the detector outlines in the picture under this look."""
        rows, columns = self._picture.shape
        scale = look.side / max(rows, columns)
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
        shown: Any = cv2.resize(self._picture, size, interpolation=method)
        if look.equalised:
            shown = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(shown)
        stretch = np.array([columns / size[0], rows / size[1]], dtype=np.float32)
        for top in _starts(size[1]) if look.tiled else [0]:
            for left in _starts(size[0]) if look.tiled else [0]:
                part = shown[top : top + _TILE, left : left + _TILE] if look.tiled else shown
                for corners, score in self._outlined(part):
                    quad = (corners + np.array([left, top], dtype=np.float32)) * stretch
                    if min(_sides(corners)) <= _TALLEST * min(part.shape):
                        yield _Find(quad, score, [quad])

    def _outlined(self, part: Picture) -> Outlines:
        digest = hashlib.blake2b(repr(part.shape).encode() + part.tobytes()).digest()
        outlines = self._seen.pop(digest, None)
        if outlines is None:
            found: Any = self._engine(
                cv2.cvtColor(part, cv2.COLOR_GRAY2BGR), use_det=True, use_cls=False, use_rec=False
            )
            pairs = () if found.boxes is None else zip(found.boxes, found.scores, strict=True)
            outlines = tuple((np.asarray(quad, np.float32), float(score)) for quad, score in pairs)
        self._seen[digest] = outlines
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return outlines

    def judged(self, find: _Find) -> TextRegion | None:
        """Give the find as a region, or None when it is too faint to be text."""
        readings = [(quad, *self._read(quad)) for quad in find.quads]
        lengths = [len(letters(word)) for _, word, sure in readings if sure >= _READABLE]
        tall = min(_sides(find.quad)) > _TALL * min(self._picture.shape)
        needed, readable = (_TALL_TEXT_LIKE, 2) if tall else (_TEXT_LIKE, 1)
        if find.score < needed and max(lengths, default=0) < readable:
            return None
        markers = [
            len(letters(word))
            for quad, word, sure in readings
            if is_marker(word) and sure >= _SURE and self._stands_alone(quad, word)
        ]
        # An outline that reads as more holds more: initials under the side, perhaps.
        marker = bool(markers) and max(markers) >= max(lengths)
        left, top, right, bottom = find.box
        rows, columns = self._picture.shape
        return TextRegion(
            left=max(0, int(left)),
            top=max(0, int(top)),
            right=min(columns, int(np.ceil(right)) + 1),
            bottom=min(rows, int(np.ceil(bottom)) + 1),
            confidence=round(min(1.0, find.score), 3),
            marker=marker,
            quads=tuple(
                tuple((float(x), float(y)) for x, y in quad) for quad in find.quads + find.lesser
            ),
        )

    def _stands_alone(self, quad: Quad, word: str) -> bool:
        """Tell whether a wider cut reads the same: the box may hold the first letter of a name."""
        rows, columns = self._picture.shape
        wider, _ = self._read(np.clip(_widened(quad), 0, (columns - 1, rows - 1), dtype=np.float32))
        return letters(wider) == letters(word)

    def _read(self, quad: Quad) -> tuple[str, float]:
        cut = _upright(self._picture, quad)
        if cut is None:
            return "", 0.0
        read: Any = self._engine(
            cv2.cvtColor(cut, cv2.COLOR_GRAY2BGR), use_det=False, use_cls=True, use_rec=True
        )
        texts, scores = getattr(read, "txts", None), getattr(read, "scores", None)
        return (str(texts[0]).strip(), float(scores[0])) if texts and scores else ("", 0.0)


def _starts(length: int) -> list[int]:
    """Give where tiles begin that cover ``length`` evenly, none of them short if it can be."""
    count = max(1, -(-(length - _SHARED) // (_TILE - _SHARED)))
    return [round(number * (length - _TILE) / max(1, count - 1)) for number in range(count)]


def _merged(finds: list[_Find]) -> list[_Find]:
    """Give the finds of all looks, those of the same place as one: the largest, its best score."""
    kept: list[_Find] = []
    for find in sorted(finds, key=lambda one: -_area(one.quad)):
        if find.score < FAINTEST:
            continue
        same = next((one for one in kept if _overlap(one.quad, find.quad) >= _SAME), None)
        if same is None:
            kept.append(find)
            continue
        same.score = max(same.score, find.score)
        large = _area(find.quad) >= _MOST * _area(same.quad)
        (same.quads if large else same.lesser).append(find.quad)
    return kept


def _area(quad: Quad) -> float:
    return float(cv2.contourArea(quad))


def _overlap(one: Quad, two: Quad) -> float:
    """Give the shared part of the smaller; of rectangles, because lines of text may be oblique."""
    shared, _ = cv2.intersectConvexConvex(one, two)
    return float(shared) / max(min(_area(one), _area(two)), 1e-6)


def _sides(quad: Quad) -> tuple[float, float]:
    return float(np.linalg.norm(quad[1] - quad[0])), float(np.linalg.norm(quad[3] - quad[0]))


def _widened(quad: Quad) -> Quad:
    """Give the quadrilateral, longer at both ends along its longer sides.

    One letter higher than wide is looked at above and below, where initials often stand: with them
    it reads as something else. Some letters that do stand alone are lost by that.
    """
    width, height = _sides(quad)
    first, second = (0, 1) if width >= height else (0, 3)
    along = (quad[second] - quad[first]) / max(width, height, 1e-6)
    more = along * min(width, height) * _CLEARANCE
    wider = quad.copy()
    ends = (1, 2) if width >= height else (2, 3)
    for corner in range(4):
        wider[corner] += more if corner in ends else -more
    return wider


def _runs_down(width: float, height: float) -> bool:
    """Tell whether a box of these sides holds a line from top to bottom, not one upright letter."""
    return height >= 1.5 * width


def _upright(picture: Picture, quad: Quad) -> Picture | None:
    """Cut the quadrilateral out of the picture, its line laid flat; None if it has no area.

    Outside the picture it is black.
    """
    width, height = (round(side) for side in _sides(quad))
    if min(width, height) < 2:
        return None
    target = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float32)
    turn = cv2.getPerspectiveTransform(quad, target)
    cut = cv2.warpPerspective(
        picture, turn, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT
    )
    flat = np.rot90(cut) if _runs_down(width, height) else cut
    return np.ascontiguousarray(flat, dtype=np.uint8)
