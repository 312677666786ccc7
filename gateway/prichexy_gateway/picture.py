"""One picture that shows what the gateway does: before, after, displacement."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

__all__ = ["Panels", "colours", "draw", "save_png"]

_SIDE: Final = 640  # pixels of a panel's longer side
_GAP: Final = 24
_HEAD: Final = 64
_FOOT: Final = 76
_BACKGROUND: Final = (18, 20, 24)
_TEXT: Final = (230, 232, 236)
_WARNING: Final = (255, 190, 92)

# Anchors of the colour map viridis (matplotlib, CC0): even steps of displacement look even, in
# grey and to colour-blind readers, too.
_ANCHORS: Final = np.array(
    [
        (68, 1, 84),
        (71, 44, 122),
        (59, 81, 139),
        (44, 113, 142),
        (33, 144, 141),
        (39, 173, 129),
        (92, 200, 99),
        (170, 220, 50),
        (253, 231, 37),
    ],
    dtype=np.float64,
)


@dataclass(frozen=True, slots=True)
class Panels:
    """What is shown.

    The views are (rows, columns) in [0, 1]; ``displacement`` is (2, rows, columns) in pixels of
    the original. ``warning`` stands below in another colour; it may be empty.
    """

    before: NDArray[np.float32]
    after: NDArray[np.float32]
    displacement: NDArray[np.float32]
    caption: str
    warning: str = ""


def colours(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Give the colour (…, 3) of each value in [0, 1]; what is outside takes the nearest end."""
    places = np.clip(values, 0.0, 1.0) * (len(_ANCHORS) - 1)
    channels = [np.interp(places, np.arange(len(_ANCHORS)), _ANCHORS[:, c]) for c in range(3)]
    shown: NDArray[np.uint8] = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    return shown


def draw(panels: Panels) -> Image.Image:
    """Give the picture: three panels of the same size and a scale of the displacement in pixels."""
    rows, columns = panels.before.shape
    shrink = _SIDE / max(rows, columns)
    width, height = max(1, round(columns * shrink)), max(1, round(rows * shrink))
    length = np.hypot(panels.displacement[0], panels.displacement[1])
    largest = float(length.max(initial=0.0))
    shown = colours(length / largest if largest > 0 else length)

    canvas = Image.new("RGB", (3 * width + 4 * _GAP, _HEAD + height + _FOOT), color=_BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    titles = ("Before", "After", f"Displacement, at most {largest:.1f} px")
    images = (_grey(panels.before), _grey(panels.after), Image.fromarray(shown))
    for place, (title, image) in enumerate(zip(titles, images, strict=True)):
        left = _GAP + place * (width + _GAP)
        pen.text((left, _GAP), title, fill=_TEXT, font=_font(24))
        canvas.paste(image.resize((width, height), Image.Resampling.BOX), (left, _HEAD))
    _scale(canvas, pen, _GAP + 2 * (width + _GAP), _HEAD + height + 12, width, largest)
    pen.text((_GAP, _HEAD + height + 12), panels.caption, fill=_TEXT, font=_font(18))
    pen.text((_GAP, _HEAD + height + 40), panels.warning, fill=_WARNING, font=_font(18))
    return canvas


def save_png(image: Image.Image, path: Path) -> None:
    """Write the picture in one step; the pixels go in, and no other data."""
    draft = path.with_name(f".{path.name}.part")
    image.save(draft, format="PNG")
    draft.replace(path)


def _grey(view: NDArray[np.float32]) -> Image.Image:
    return Image.fromarray(np.rint(np.clip(view, 0.0, 1.0) * 255).astype(np.uint8))


def _scale(
    canvas: Image.Image, pen: ImageDraw.ImageDraw, left: int, top: int, width: int, largest: float
) -> None:
    """Draw the colour map with the displacement in pixels at its ends."""
    ramp = np.broadcast_to(np.linspace(0.0, 1.0, width), (14, width))
    canvas.paste(Image.fromarray(colours(ramp)), (left, top))
    pen.text((left, top + 20), "0 px", fill=_TEXT, font=_font(16))
    pen.text((left + width, top + 20), f"{largest:.1f} px", fill=_TEXT, font=_font(16), anchor="ra")


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
