"""How much burned-in text is found, how many radiographs are refused, and what it costs.

    python benchmarks/text_search.py [--texts 60] [--refused FOLDER]

Writes one text into each of many views of a real chest radiograph (RG1_UNCR.dcm of PyPI's
pydicom-data, enlarged to 2500 by 2048, mirrored at random, with noise) in the fonts installed
here, 14 to 120 pixels high, in five directions, white, grey, black or 12 % from its ground, and
says which were missed. With ``--refused`` also tells which images of a folder would be refused.
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from prichexy_worker import inspection, pixels, view
from prichexy_worker.text import TextFinder, TextRegion

TEXTS = [
    *("DOE^JANE", "Smith, John", "MRN 00482917", "12/03/1956", "1970-01-02", "Müller Anna"),
    *("ID: 7782-331", "DOB 04.11.1948", "St. Mary Hospital", "GARCIA", "10:42:17", "Li Wei"),
]
ROWS, COLUMNS = 2500, 2048


class Case(NamedTuple):
    """One text in one view, and where it stands: left, top, right, bottom."""

    view: npt.NDArray[np.float32]
    box: tuple[int, int, int, int]
    words: str


def radiograph() -> npt.NDArray[np.float32]:
    """Give the real radiograph as it is displayed."""
    files = [file for file in metadata.files("pydicom-data") or [] if file.name == "RG1_UNCR.dcm"]
    dataset = inspection.read(Path(str(files[0].locate())).read_bytes())
    shown = view.displayed(pixels.decode(dataset), dataset)
    return np.asarray(cv2.resize(shown, (COLUMNS, ROWS), interpolation=cv2.INTER_CUBIC))


def case(ground: npt.NDArray[np.float32], seed: int, fonts: list[Path]) -> Case:
    """Give the case of this seed."""
    random = np.random.default_rng(seed)
    words = TEXTS[random.integers(len(TEXTS))]
    size = round(14 * (120 / 14) ** random.random())
    font = fonts[random.integers(len(fonts))] if fonts else None
    letters = ImageFont.truetype(font, size) if font else ImageFont.load_default(size)
    left, top, right, bottom = (round(side) for side in letters.getbbox(words))
    stencil = Image.new("L", (right - left + 4, bottom - top + 4))
    ImageDraw.Draw(stencil).text((2 - left, 2 - top), words, font=letters, fill=255)
    turn = int(random.choice([0, 0, 90, 180, 270, 5, -5]))
    turned = stencil.rotate(turn, expand=True, resample=Image.Resampling.BICUBIC)
    mask = np.asarray(turned, dtype=np.float32) / 255
    picture = ground[:, ::-1].copy() if random.random() < 0.5 else ground.copy()
    picture += random.normal(0, random.choice([0.002, 0.01, 0.02]), picture.shape)
    height, width = mask.shape
    y = int(random.integers(5, ROWS - height - 5))
    x = int(random.integers(5, COLUMNS - width - 5))
    part = picture[y : y + height, x : x + width]
    behind = float(np.median(part))
    colour = str(random.choice(["white", "grey", "black", "faint"]))
    faint = behind + (0.12 if behind < 0.5 else -0.12)
    grey = {"white": 1.0, "black": 0.0, "faint": faint, "grey": 0.6}[colour]
    if abs(grey - behind) < 0.1:
        grey = 1.0 if behind < 0.5 else 0.0
    part[:] = part * (1 - mask) + grey * mask
    told = f"{words!r} {size} px, {turn} degrees, {colour}, {font.name if font else 'default'}"
    return Case(np.clip(picture, 0, 1).astype(np.float32), (x, y, x + width, y + height), told)


def shows(region: TextRegion, box: tuple[int, int, int, int]) -> bool:
    """Tell whether the region is of this text and would be refused."""
    across = min(region.right, box[2]) - max(region.left, box[0])
    down = min(region.bottom, box[3]) - max(region.top, box[1])
    share = max(0, across) * max(0, down) / ((box[2] - box[0]) * (box[3] - box[1]))
    return share > 0.1 and not region.marker


def main() -> None:
    """Measure, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=60)
    parser.add_argument("--refused", type=Path, help="a folder of PNG or JPEG radiographs")
    chosen = parser.parse_args()
    cv2.setNumThreads(1)
    finder = TextFinder()
    fonts = sorted(Path("/usr/share/fonts").rglob("*.ttf"))
    ground, found, elsewhere, seconds = radiograph(), 0, 0, 0.0
    for seed in range(chosen.texts):
        one = case(ground, seed, fonts)
        start = time.process_time()
        regions = finder.find(one.view)
        seconds += time.process_time() - start
        hits = [shows(region, one.box) for region in regions]
        found += any(hits)
        elsewhere += hits.count(False)
        if not any(hits):
            sys.stdout.write(f"missed: {one.words}\n")
    sys.stdout.write(
        f"{found} of {chosen.texts} texts found, {elsewhere} regions elsewhere, "
        f"{seconds / max(1, chosen.texts):.2f} CPU-s an image\n"
    )
    if chosen.refused:
        files = sorted(
            file for file in chosen.refused.rglob("*") if file.suffix in (".png", ".jpg")
        )
        refused = []
        for file in files:
            grey = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
            shown = np.asarray(grey, dtype=np.float32) / 255
            if not all(region.marker for region in finder.find(shown)):
                refused.append(file.name)
        sys.stdout.write(f"{len(refused)} of {len(files)} images refused: {' '.join(refused)}\n")


if __name__ == "__main__":
    main()
