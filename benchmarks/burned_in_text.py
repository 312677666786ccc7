"""How much burned-in text is erased, how many markers stay, and what is erased without need.

    python benchmarks/burned_in_text.py [--images 300] [--jobs 1] [--minutes 30] [--results FILE]

Draws two identifying strings and one side or view marker into each of many images, and erases as
the gateway does. The images are made of real chest radiographs without text: RG1_UNCR.dcm of PyPI's
pydicom-data, and of ``--radiographs`` those named below, cut, mirrored, resized to 1000 to 2500
rows, with noise, stored in 12 bits. The letters are 14 to 120 pixels high, in the fonts installed
here, Pillow's own and OpenCV's Hershey fonts, turned by 0, 5, 90, 180 or 270 degrees, white, grey,
black or 12 % from their ground. After every ten images comes one without text.

With ``--results`` each image is a line of that file, and a later run with the same seed goes on
where this one stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset

from prichexy_worker import inspection, pixels, view
from prichexy_worker.errors import Rejected
from prichexy_worker.pixels import Radiograph
from prichexy_worker.text import TextFinder, clean

STRINGS = [
    *("DOE^JANE", "Smith, John", "MRN 00482917", "12/03/1956", "1970-01-02", "Müller Anna"),
    *("ID: 7782-331", "DOB 04.11.1948", "St. Mary Hospital", "GARCIA", "10:42:17", "Li Wei"),
    *("O'Brien, Sean", "067Y F", "Accession 5521903", "KOWALSKI, EWA M", "Dr. Hansen"),
]
MARKERS = ["L", "R", "AP", "PA", "LEFT", "RIGHT", "PORTABLE", "SUPINE", "ERECT"]
HERSHEY = {
    "Hershey simplex": cv2.FONT_HERSHEY_SIMPLEX,
    "Hershey duplex": cv2.FONT_HERSHEY_DUPLEX,
    "Hershey triplex": cv2.FONT_HERSHEY_TRIPLEX,
}
#: Files of ``--radiographs`` that show no text, and where one that does shows none (rows).
GROUNDS = {
    "barre_CR-MONO1-10-chest.dcm": slice(None),
    "presidio_pseudoPHI_0_ORIGINAL_RLE.dcm": slice(300, 1600),
}
#: A real file with a name and a birth date: their lines as left, top, right, bottom.
REAL = ("presidio_pseudoPHI_0_ORIGINAL_RLE.dcm", ((4, 2, 818, 46), (4, 38, 368, 88)))
ERASED, BITS = 0.98, 12

Floats = npt.NDArray[np.float32]
Box = tuple[int, int, int, int]


class Drawn(NamedTuple):
    """One text in an image: where its letters are (rows, columns), and how it was drawn."""

    letters: npt.NDArray[np.bool_]
    how: dict[str, object]


def grounds(folder: Path) -> list[Floats]:
    """Give the real radiographs as they are displayed."""
    files = [file for file in metadata.files("pydicom-data") or [] if file.name == "RG1_UNCR.dcm"]
    found = [displayed(Path(str(files[0].locate())))]
    for name, rows in GROUNDS.items():
        if (folder / name).is_file():
            found.append(displayed(folder / name)[rows])
    return found


def displayed(file: Path) -> Floats:
    """Give a file as it is displayed."""
    dataset = inspection.read(file.read_bytes())
    return view.displayed(pixels.decode(dataset), dataset)


def ground(random: np.random.Generator, sources: Sequence[Floats]) -> Floats:
    """Give a new picture made of one of the radiographs; small ones are not blown up further."""
    rows = round(1000 * 2.5 ** random.random())
    fitting = [source for source in sources if 2.5 * max(source.shape) > rows]
    source = fitting[random.integers(len(fitting))]
    height, width = (round(side * random.uniform(0.75, 1)) for side in source.shape)
    top = random.integers(source.shape[0] - height + 1)
    left = random.integers(source.shape[1] - width + 1)
    part = source[top : top + height, left : left + width]
    columns = round(rows * random.uniform(0.8, 1.1))
    picture = cv2.resize(part, (columns, rows), interpolation=cv2.INTER_CUBIC)
    if random.random() < 0.5:
        picture = picture[:, ::-1]
    picture = np.clip(picture, 0, 1) ** random.uniform(0.7, 1.4)
    picture = picture * 0.9 + 0.03
    noise = random.normal(0, random.choice([0.002, 0.01, 0.02]), picture.shape)
    return np.asarray(picture + noise, np.float32)


def stencil(words: str, size: int, font: str) -> Floats:
    """Give how much of each pixel the words cover, 0 to 1, in letters of this size."""
    if font in HERSHEY:
        thickness = max(1, round(size / 14))
        scale = cv2.getFontScaleFromHeight(HERSHEY[font], round(size * 0.72), thickness)
        (width, height), below = cv2.getTextSize(words, HERSHEY[font], scale, thickness)
        canvas = np.zeros((height + 2 * below + 8, width + 8), np.uint8)
        at = (4, height + 4)
        cv2.putText(canvas, words, at, HERSHEY[font], scale, 255, thickness, cv2.LINE_AA)
        return np.asarray(canvas, np.float32) / 255
    letters = ImageFont.truetype(font, size) if font else ImageFont.load_default(size)
    left, top, right, bottom = (round(side) for side in letters.getbbox(words))
    canvas = Image.new("L", (right - left + 4, bottom - top + 4))
    ImageDraw.Draw(canvas).text((2 - left, 2 - top), words, font=letters, fill=255)
    return np.asarray(canvas, np.float32) / 255


def turned(mask: Floats, degrees: int) -> Floats:
    """Give the mask, turned."""
    image = Image.fromarray(np.round(mask * 255).astype(np.uint8))
    image = image.rotate(degrees, expand=True, resample=Image.Resampling.BICUBIC)
    return np.asarray(image, np.float32) / 255


def draw(
    picture: Floats, random: np.random.Generator, fonts: Sequence[str], taken: list[Box], word: str
) -> Drawn:
    """Draw a string, or the marker ``word``, into the picture, clear of what is there already."""
    rows, columns = picture.shape
    while True:
        size = round(14 * (120 / 14) ** random.random())
        text = word or STRINGS[random.integers(len(STRINGS))]
        font = fonts[random.integers(len(fonts))]
        if font in HERSHEY and not text.isascii():
            continue
        turn = 0 if word else int(random.choice([0, 0, 5, -5, 90, 180, 270]))
        colour = "white" if word else str(random.choice(["white", "grey", "black", "low"]))
        if word and size < 24:
            continue
        mask = turned(stencil(text, size, font), turn)
        height, width = mask.shape
        if height > rows - 10 or width > columns - 10:
            continue
        y, x = (
            int(random.integers(5, rows - height - 4)),
            int(random.integers(5, columns - width - 4)),
        )
        clear = 3 * size
        box = (x - clear, y - clear, x + width + clear, y + height + clear)
        if any(
            box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]
            for other in taken
        ):
            continue
        break
    taken.append((x, y, x + width, y + height))
    part = picture[y : y + height, x : x + width]
    behind = float(np.median(part))
    low = behind + (0.12 if behind < 0.5 else -0.12)
    grey = {"white": 1.0, "grey": 0.6, "black": 0.0, "low": low}[colour]
    if abs(grey - behind) < 0.1:
        grey = 1.0 if behind < 0.5 else 0.0
    part[:] = part * (1 - mask) + grey * mask
    letters = np.zeros(picture.shape, np.bool_)
    letters[y : y + height, x : x + width] = mask > 0.5
    name = Path(font).stem or "Pillow's own"
    return Drawn(letters, {"size": size, "turn": turn, "colour": colour, "font": name})


def header() -> Dataset:
    """Give what the search needs of a header: the whole range is shown."""
    dataset = Dataset()
    dataset.WindowCenter, dataset.WindowWidth = 1 << (BITS - 1), 1 << BITS
    return dataset


def measure(
    task: tuple[int, bool], seed: int, sources: Sequence[Floats], finder: TextFinder
) -> dict[str, object]:
    """Make the image of this number, erase, and tell what became of it."""
    number, blank = task
    random = np.random.default_rng([seed, number, int(blank)])
    installed = [str(font) for font in sorted(Path("/usr/share/fonts").rglob("*.ttf"))]
    fonts = [*installed, *(["", *HERSHEY] * max(1, len(installed) // 6))]
    picture, taken = ground(random, sources), []
    word = MARKERS[random.integers(len(MARKERS))]
    texts = [] if blank else [draw(picture, random, fonts, taken, one) for one in ("", "", word)]
    values = np.round(np.clip(picture, 0, 1) * ((1 << BITS) - 1)).astype(np.uint16)
    result: dict[str, object] = {"number": number, "blank": blank, "seed": seed}
    result["rows"] = values.shape[0]
    start = time.process_time()
    try:
        cleaned = clean(Radiograph(values, BITS), header(), finder)
    except Rejected as error:
        result |= {"rejected": error.detail, "seconds": time.process_time() - start}
        return result | {"strings": [text.how for text in texts[:2]]}
    result["seconds"] = time.process_time() - start
    result["changed"] = float(cleaned.erased.mean())
    result["strings"] = [
        text.how | {"erased": float(cleaned.erased[text.letters].mean())} for text in texts[:2]
    ]
    result["markers"] = [
        text.how | {"word": word, "erased": float(cleaned.erased[text.letters].mean())}
        for text in texts[2:]
    ]
    return result


def wilson(hits: int, of: int) -> str:
    """Give a share with its 95 % interval (Wilson, 1927), in per cent."""
    if not of:
        return "none"
    z, share = 1.959964, hits / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * math.sqrt(share * (1 - share) / of + (z / (2 * of)) ** 2)
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return f"{hits} of {of}, {share:.1%} (95 % interval {low:.1%} to {high:.1%})"


def report(results: Iterable[Mapping[str, Any]]) -> str:
    """Give the figures as text."""
    results = list(results)
    texts = [one for one in results if not one["blank"]]
    left = [one for one in texts if "rejected" not in one]
    strings = [text for one in left for text in one["strings"]]
    whole = [text for text in strings if text["erased"] >= ERASED]
    markers = [text for one in left for text in one["markers"]]
    kept = [text for text in markers if text["erased"] <= 1 - ERASED]
    blanks = [one for one in results if one["blank"]]
    changed = [one.get("changed", 1.0) for one in blanks]
    unneeded = wilson(sum(share > 0 for share in changed), len(changed))
    cost = [[one["seconds"] for one in some] or [0.0] for some in (texts, blanks)]
    lines = [
        f"{len(texts)} images with text, {len(texts) - len(left)} of them left to a human",
        f"strings with {ERASED:.0%} of their letters erased: {wilson(len(whole), len(strings))}",
        f"markers kept: {wilson(len(kept), len(markers))}",
        f"images without text that were changed: {unneeded}",
        f"share of the pixels changed in images without text: {np.mean(changed or [0]):.4%}",
        f"CPU-s an image: {np.mean(cost[0]):.1f} with text, {np.mean(cost[1]):.1f} without",
    ]
    lines += [f"not erased: {text}" for text in strings if text["erased"] < ERASED]
    lines += [f"marker lost: {text}" for text in markers if text["erased"] > 1 - ERASED]
    lines += [f"left to a human: {one['rejected']}" for one in texts if "rejected" in one]
    return "\n".join(lines) + "\n"


def real_file(folder: Path, finder: TextFinder) -> str:
    """Tell how much of the letters of the real file is erased."""
    name, boxes = REAL
    if not (folder / name).is_file():
        return "the real file with text is not at hand\n"
    dataset = inspection.read((folder / name).read_bytes())
    radiograph = pixels.decode(dataset)
    white = view.displayed(radiograph, dataset) > 0.9
    cleaned = clean(radiograph, dataset, finder)
    shares = []
    for left, top, right, bottom in boxes:
        lines = np.s_[top:bottom, left:right]
        shares.append(f"{cleaned.erased[lines][white[lines]].mean():.2%}")
    told = f"real file: {' and '.join(shares)} of the letters of its two lines erased"
    return f"{told}, {cleaned.markers} markers kept\n"


_WORK: list[partial[dict[str, object]]] = []


def _start(seed: int, folder: Path) -> None:
    cv2.setNumThreads(1)
    _WORK.append(partial(measure, seed=seed, sources=grounds(folder), finder=TextFinder()))


def _one(task: tuple[int, bool]) -> dict[str, object]:
    return _WORK[0](task)


def tasks(images: int) -> Iterator[tuple[int, bool]]:
    """Give the images in order: (number, whether it has no text)."""
    for number in range(images):
        yield number, False
        if number % 10 == 9:
            yield number, True


def main() -> None:
    """Measure, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin none after these")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--results", type=Path, help="JSON lines, for going on later")
    parser.add_argument("--radiographs", type=Path, default=Path("../shared/data/dicom/chest"))
    chosen = parser.parse_args()
    results: list[Mapping[str, Any]] = []
    if chosen.results and chosen.results.is_file():
        lines = chosen.results.read_text(encoding="utf-8").splitlines()
        results = [one for one in map(json.loads, lines) if one["seed"] == chosen.seed]
    done = {(one["number"], one["blank"]) for one in results}
    todo = iter([task for task in tasks(chosen.images) if task not in done])
    end = time.monotonic() + 60 * chosen.minutes
    with ProcessPoolExecutor(
        chosen.jobs, initializer=_start, initargs=(chosen.seed, chosen.radiographs)
    ) as pool:
        while time.monotonic() < end and (batch := list(islice(todo, chosen.jobs))):
            for result in pool.map(_one, batch):
                results.append(result)
                if chosen.results:
                    with chosen.results.open("a", encoding="utf-8") as stream:
                        stream.write(json.dumps(result) + "\n")
    cv2.setNumThreads(1)
    sys.stdout.write(report(results) + real_file(chosen.radiographs, TextFinder()))


if __name__ == "__main__":
    main()
