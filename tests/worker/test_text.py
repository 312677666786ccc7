"""Text in a picture: what is found, what is a marker, and that what it says is never told."""

from __future__ import annotations

import itertools
import logging
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from PIL import Image, ImageDraw, ImageFont

from prichexy_testing.dicoms import phantom
from prichexy_testing.shared_data import CHEST, need, pydicom_data
from prichexy_worker.errors import Misconfigured
from prichexy_worker.text import MARKERS, TextFinder, TextRegion, models
from prichexy_worker.text import finder as search

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

View = npt.NDArray[np.float32]
NAME = "QUARTER^EVA"


@pytest.fixture(scope="module")
def finder() -> TextFinder:
    return TextFinder()


def chest(rows: int = 1000, columns: int = 900) -> View:
    values = phantom(rows, columns, bits_stored=12, seed=11)
    return (values.astype(np.float32) / 4095 * 0.8).astype(np.float32)


def shown(file: Path) -> View:
    """Give a real file as it is displayed, but for one in a thousand values at either end."""
    dataset = pydicom.dcmread(file, force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    values = dataset.pixel_array.astype(np.float32)
    low, high = np.percentile(values, [0.1, 99.9])
    view = np.clip((values - low) / (high - low), 0, 1).astype(np.float32)
    return 1 - view if dataset.PhotometricInterpretation == "MONOCHROME1" else view


def written(
    view: View, words: str, *, at: tuple[int, int], size: int, grey: float = 1, turn: float = 0
) -> tuple[View, tuple[int, int, int, int]]:
    """Give the view with ``words`` in it, and their rectangle (left, top, right, bottom)."""
    font = ImageFont.load_default(size)
    left, top, right, bottom = (round(side) for side in font.getbbox(words))
    stencil = Image.new("L", (right - left + 4, bottom - top + 4))
    ImageDraw.Draw(stencil).text((2 - left, 2 - top), words, font=font, fill=255)
    turned = stencil.rotate(turn, expand=True, resample=Image.Resampling.BICUBIC)
    mask = np.asarray(turned, dtype=np.float32) / 255
    x, y = at
    result = view.copy()
    part = result[y : y + mask.shape[0], x : x + mask.shape[1]]
    part[:] = part * (1 - mask) + grey * mask
    return result, (x, y, x + mask.shape[1], y + mask.shape[0])


def covers(region: TextRegion, box: tuple[int, int, int, int]) -> bool:
    """Tell whether the region has most of the rectangle."""
    left, top, right, bottom = box
    across = min(region.right, right) - max(region.left, left)
    down = min(region.bottom, bottom) - max(region.top, top)
    return across > 0.6 * (right - left) and down > 0.5 * (bottom - top)


def test_a_picture_without_text_has_no_region(finder: TextFinder) -> None:
    assert finder.find(chest()) == ()


@pytest.mark.parametrize(
    ("turn", "size", "grey"),
    [
        (0, 16, 1.0),
        (90, 16, 1.0),
        (180, 24, 0.0),
        (270, 48, 0.6),
        (5, 24, 1.0),
        (-5, 32, 0.6),
        (0, 110, 0.0),
        (90, 110, 1.0),
    ],
)
def test_a_name_is_found_in_any_direction_size_and_grey(
    finder: TextFinder, turn: float, size: int, grey: float
) -> None:
    view, box = written(chest(), NAME, at=(40, 60), size=size, grey=grey, turn=turn)
    regions = finder.find(view)
    assert any(covers(region, box) and not region.marker for region in regions)


@pytest.mark.parametrize("words", ["12.03.1956", "MRN 00482917", "Ж. Иванова", "F 067Y"])
def test_dates_numbers_and_other_scripts_are_found(finder: TextFinder, words: str) -> None:
    view, box = written(chest(), words, at=(80, 800), size=40)
    assert any(covers(region, box) and not region.marker for region in finder.find(view))


def test_two_texts_are_two_regions_from_top_to_bottom(finder: TextFinder) -> None:
    view, lower = written(chest(), NAME, at=(60, 800), size=40)
    view, upper = written(view, "12.03.1956", at=(500, 30), size=40)
    first, second = finder.find(view)
    assert covers(first, upper)
    assert covers(second, lower)


@pytest.mark.parametrize("word", ["PORTABLE", "SUPINE", "AP", "LEFT", "ERECT"])
def test_a_marker_is_kept(finder: TextFinder, word: str) -> None:
    view, box = written(chest(), word, at=(600, 40), size=44)
    (region,) = finder.find(view)
    assert covers(region, box)
    assert region.marker


def test_markers_beside_a_name_do_not_save_it(finder: TextFinder) -> None:
    view, _ = written(chest(), "PORTABLE", at=(560, 40), size=44)
    view, box = written(view, NAME, at=(60, 850), size=30)
    regions = finder.find(view)
    assert [region.marker for region in regions] == [True, False]
    assert covers(regions[1], box)


@pytest.mark.parametrize("words", ["LEFTON", "APPEL", "PAULA", "R. LI", "L 1956", "PA SMITH"])
def test_what_only_begins_like_a_marker_is_no_marker(finder: TextFinder, words: str) -> None:
    view, _ = written(chest(), words, at=(500, 60), size=48)
    regions = finder.find(view)
    assert regions
    assert not all(region.marker for region in regions)


class Sees:
    """Models that outline one box and read in it what they are told: first close, then wider."""

    height = 16

    def __init__(self, score: float, *readings: tuple[str, float]) -> None:
        self.score = score
        self.readings = list(readings)

    def __call__(self, picture: npt.NDArray[np.uint8], *, use_det: bool, **_: bool) -> object:
        answer = type("Answer", (), {})()
        if use_det:
            answer.boxes = np.array(
                [[[10, 10], [90, 10], [90, 10 + self.height], [10, 10 + self.height]]],
                dtype=np.float32,
            )
            answer.scores = [self.score]
        else:
            word, sure = self.readings[0] if len(self.readings) == 1 else self.readings.pop(0)
            answer.txts, answer.scores = (word,), (sure,)
        return answer


def judged(
    monkeypatch: pytest.MonkeyPatch, score: float, *readings: tuple[str, float]
) -> tuple[TextRegion, ...]:
    monkeypatch.setattr(search, "_LOOKS", search._LOOKS[:1])  # one look, one box
    monkeypatch.setattr(search, "load", lambda threads: Sees(score, *readings))
    return TextFinder().find(np.zeros((736, 736), np.float32))


def test_text_that_cannot_be_read_is_no_marker(monkeypatch: pytest.MonkeyPatch) -> None:
    (region,) = judged(monkeypatch, 0.7, ("", 0.0))
    assert not region.marker


@pytest.mark.parametrize(
    ("score", "reading", "text"),
    [
        (0.74, ("", 0.0), False),  # a vertebra
        (0.74, ("0", 0.99), False),  # the head of a humerus
        (0.74, ("EO", 0.59), False),
        (0.74, ("EO", 0.6), True),
        (0.76, ("", 0.0), True),
        (0.76, ("E", 0.99), True),
    ],
)
def test_what_is_as_tall_as_bones_are_must_look_more_like_text(
    monkeypatch: pytest.MonkeyPatch, score: float, reading: tuple[str, float], text: bool
) -> None:
    monkeypatch.setattr(Sees, "height", 36)
    assert bool(judged(monkeypatch, score, reading)) is text


@pytest.mark.parametrize(
    ("readings", "marker"),
    [
        ([("R", 0.99)], True),
        ([("AP PORTABLE", 0.8)], True),
        ([("A-P", 0.9)], True),
        ([("R", 0.79)], False),
        ([("R", 0.99), ("ROTH", 0.99)], False),  # the box held only the first letter
        ([("R", 0.99), ("(R)", 0.5)], True),
        ([("AP SMITH", 0.99)], False),
        ([("R2", 0.99)], False),
        ([("", 0.99)], False),
    ],
)
def test_only_sure_words_of_the_list_that_stand_alone_are_markers(
    monkeypatch: pytest.MonkeyPatch, readings: list[tuple[str, float]], marker: bool
) -> None:
    (region,) = judged(monkeypatch, 0.7, *readings)
    assert region.marker is marker


@pytest.mark.parametrize(
    ("width", "height", "wider"), [(40, 43, (40, 123)), (43, 40, (123, 40)), (30, 90, (30, 150))]
)
def test_the_surroundings_are_looked_at_along_the_longer_side(
    width: int, height: int, wider: tuple[int, int]
) -> None:
    quad = np.array([[100, 100], [100 + width, 100], [100 + width, 100 + height]], np.float32)
    quad = np.vstack([quad, [[100, 100 + height]]]).astype(np.float32)
    assert tuple(np.ptp(search._widened(quad), axis=0)) == wider


def test_a_marker_of_which_another_outline_reads_as_more_is_no_marker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search, "_LOOKS", search._LOOKS[:2])
    monkeypatch.setattr(search._Look, "at", lambda look, shape: look._replace(tiled=False))
    monkeypatch.setattr(
        search, "load", lambda threads: Sees(0.7, ("R", 0.99), ("Re", 0.7), ("R", 1))
    )
    (region,) = TextFinder().find(np.zeros((736, 736), np.float32) + np.eye(736, dtype=np.float32))
    assert len(region.quads) == 2
    assert not region.marker


def outlined(*quads: list[list[int]]) -> list[search._Find]:
    arrays = [np.array(quad, np.float32) for quad in quads]
    return [search._Find(quad, 0.9, [quad]) for quad in arrays]


def test_oblique_lines_side_by_side_are_two_finds_though_their_boxes_overlap() -> None:
    one = [[0, 100], [100, 0], [110, 10], [10, 110]]
    two = [[25, 125], [125, 25], [135, 35], [35, 135]]
    assert len(search._merged(outlined(one, two))) == 2


def test_every_outline_of_a_text_is_kept_for_erasing() -> None:
    whole, part = [[0, 0], [100, 0], [100, 20], [0, 20]], [[80, 0], [120, 0], [120, 20], [80, 20]]
    (find,) = search._merged(outlined(whole, part))
    assert len(find.quads) + len(find.lesser) == 2


def test_parts_that_did_not_change_are_not_searched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []

    class Counts(Sees):
        def __call__(self, picture: npt.NDArray[np.uint8], *, use_det: bool, **_: bool) -> object:
            if use_det:
                seen.append(picture.tobytes())
            return super().__call__(picture, use_det=use_det)

    monkeypatch.setattr(search, "load", lambda threads: Counts(0.7, ("", 0)))
    finder = TextFinder()
    before = chest(1500, 1500)
    first = finder.find(before)
    searched = len(seen)
    assert finder.find(before) == first
    assert len(seen) == searched
    after = before.copy()
    after[:50, :50] = 0
    finder.find(after)
    assert searched < len(seen) < 2 * searched
    assert len(set(seen)) == len(seen)


def test_a_faint_find_counts_when_it_reads_as_something(monkeypatch: pytest.MonkeyPatch) -> None:
    assert judged(monkeypatch, 0.5, ("SMITH", 0.3)) == ()
    (region,) = judged(monkeypatch, 0.5, ("SMITH", 0.7))
    assert region.confidence == 0.5


def test_no_marker_can_be_a_name_or_number() -> None:
    assert not {"LI", "WU", "MA", "NO", "LEE"} & MARKERS
    assert not any(character.isdigit() for word in MARKERS for character in word)


def test_what_was_read_is_told_nowhere(
    finder: TextFinder, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    view, _ = written(chest(), NAME, at=(60, 800), size=60)
    with caplog.at_level(logging.DEBUG):
        regions = TextFinder().find(view)
    told = caplog.text + repr(regions) + "".join(capfd.readouterr())
    assert regions
    assert "QUARTER" not in told.upper()
    assert caplog.text == ""


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    view, _ = written(chest(), NAME, at=(60, 800), size=60)
    assert TextFinder().find(view)


def test_missing_models_are_named_and_nothing_is_searched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(models.resources, "files", lambda package: tmp_path)
    with pytest.raises(Misconfigured, match="reinstall rapidocr"):
        TextFinder().find(chest(64, 64))


def test_making_a_finder_loads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "load", lambda threads: pytest.fail("loaded"))
    TextFinder(threads=2)


def test_the_models_are_loaded_once_and_again_in_a_forked_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loads: list[int] = []

    def load(threads: int) -> Sees:
        loads.append(threads)
        return Sees(0.7, ("", 0))

    monkeypatch.setattr(search, "load", load)
    finder = TextFinder(threads=3)
    finder.find(chest(64, 64))
    finder.find(chest(64, 64))
    assert loads == [3]
    monkeypatch.setattr(os, "getpid", lambda: 1)
    finder.find(chest(64, 64))
    assert loads == [3, 3]


def test_one_thread_is_one_thread(finder: TextFinder) -> None:
    finder.find(chest(300, 300))
    engine = finder._loaded()
    for model in (engine.text_det, engine.text_rec, engine.text_cls):
        if model is not None:
            options = model.session.session.get_session_options()
            assert options.intra_op_num_threads == 1
            assert options.inter_op_num_threads == 1
    assert threading.active_count() < 10


@pytest.mark.parametrize(
    "view", [np.zeros((0, 5), np.float32), np.zeros((4, 4, 3), np.float32), np.full((9, 9), np.nan)]
)
def test_what_is_no_picture_is_not_searched(view: View) -> None:
    with pytest.raises(ValueError, match="picture"):
        TextFinder().find(view)


@pytest.mark.parametrize("length", [1, 96, 640, 641, 1184, 1185, 1600, 5000])
def test_tiles_cover_a_picture_and_share_a_margin(length: int) -> None:
    starts = search._starts(length)
    assert starts[0] == 0
    assert starts[-1] + search._TILE >= length
    assert all(0 < b - a <= search._TILE - search._SHARED for a, b in itertools.pairwise(starts))


@pytest.mark.parametrize("shape", [(1, 1), (3, 2000), (2000, 5), (40, 40)])
def test_odd_shapes_are_searched_without_an_error(
    finder: TextFinder, shape: tuple[int, int]
) -> None:
    assert finder.find(np.zeros(shape, np.float32)) == ()


def test_the_view_is_not_altered(finder: TextFinder) -> None:
    view = chest(200, 200)
    before = view.copy()
    finder.find(view)
    assert np.array_equal(view, before)


def test_the_burned_in_name_and_birth_date_of_a_real_file_are_found(finder: TextFinder) -> None:
    view = shown(need(CHEST / "presidio_pseudoPHI_0_ORIGINAL_RLE.dcm"))
    regions = finder.find(view)
    name, birth_date = (4, 2, 818, 46), (4, 38, 368, 88)
    for box in (name, birth_date):
        assert any(covers(region, box) and not region.marker for region in regions)
    # "PORTABLE"-like words and the side marker in the other corner stay.
    assert sum(region.marker for region in regions) == 3


@pytest.mark.parametrize(
    "file",
    ["barre_CR-MONO1-10-chest.dcm", "wg04_RG1_J2KI.dcm", "wg04_RG1_JLSN.dcm", "RG1_UNCR.dcm"],
)
def test_real_files_without_text_show_none_but_markers(finder: TextFinder, file: str) -> None:
    path = pydicom_data(file) if file.startswith("RG1") else need(CHEST / file)
    assert all(region.marker for region in finder.find(shown(path)))


def test_a_name_in_a_real_radiograph_is_found_small_and_faint(finder: TextFinder) -> None:
    view = shown(pydicom_data("RG1_UNCR.dcm"))
    grey = float(np.median(view[1750:1780, 1100:1300])) - 0.12
    view, box = written(view, NAME, at=(1100, 1750), size=20, grey=grey)
    assert any(covers(region, box) for region in finder.find(view))


def test_the_processors_slow_numbers_are_zero_in_a_search_and_only_there() -> None:
    told = (
        "import numpy as np\n"
        "from prichexy_worker.text.models import at_full_speed, load\n"
        "smallest = lambda: float((np.full(4, 1e-40, np.float32) * np.float32(1))[0])\n"
        "engine = load(1)\n"
        "with at_full_speed():\n"
        "    engine(np.zeros((64, 64, 3), np.uint8), use_det=True, use_cls=False, use_rec=False)\n"
        "    assert smallest() == 0\n"
        "assert smallest() > 0\n"
    )
    # In a process of its own: the first model that a process loads switches them back.
    subprocess.run([sys.executable, "-c", told], check=True)
