"""Text is erased until none is found; what a machine is not sure of goes to a human."""

from __future__ import annotations

import logging
import traceback

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw, ImageFont

from prichexy_testing.dicoms import phantom, radiograph_dataset
from prichexy_testing.shared_data import CHEST, need
from prichexy_worker import inspection, pixels, view
from prichexy_worker.contract import WHOLE_PICTURE_BYTES, WHOLE_SIDE, Looked, Reason
from prichexy_worker.errors import Rejected
from prichexy_worker.pixels import Radiograph
from prichexy_worker.text import Mask, TextFinder, TextRegion, clean, picture, whole_picture
from prichexy_worker.text.cleaning import LARGEST_REGION, MOST_ERASED, MOST_REGIONS, MOST_ROUNDS
from prichexy_worker.text.erasing import reach_of
from prichexy_worker.text.pictures import LONGEST_SIDE

View = npt.NDArray[np.float32]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

HEADER = radiograph_dataset(window=(2048, 4096))


def chest(rows: int = 200, columns: int = 240) -> Radiograph:
    return Radiograph(phantom(rows, columns), 12)


def text(left: int, top: int, right: int, bottom: int, *, marker: bool = False) -> TextRegion:
    return TextRegion(left, top, right, bottom, 0.9, marker)


class Finds:
    """A search that answers each time with the next of its answers, and keeps the views."""

    def __init__(self, *answers: list[TextRegion]) -> None:
        self.answers = list(answers)
        self.views: list[View] = []

    def find(self, view: View) -> tuple[TextRegion, ...]:
        self.views.append(view)
        return tuple(self.answers.pop(0)) if self.answers else ()


def test_a_radiograph_without_text_is_not_changed() -> None:
    source = chest()
    cleaned = clean(source, HEADER, Finds([]))
    assert cleaned.radiograph is source
    assert not cleaned.erased.any()
    assert set(cleaned.measures().values()) == {0.0}


def test_what_is_found_is_erased_and_searched_for_again() -> None:
    source, finder = chest(), Finds([text(20, 20, 80, 32)], [])
    cleaned = clean(source, HEADER, finder)
    assert len(finder.views) == 2
    assert cleaned.erased[20:32, 20:80].all()
    changed = cleaned.radiograph.values != source.values
    assert not changed[~cleaned.erased].any()
    # The second search sees the erased image.
    assert (finder.views[0] != finder.views[1])[20:32, 20:80].mean() > 0.8
    assert cleaned.measures()["text_regions_erased"] == 1
    assert cleaned.measures()["text_erased_share"] == cleaned.erased.mean()


def test_text_that_shows_only_after_other_text_was_erased_is_erased_too() -> None:
    finder = Finds([text(20, 20, 80, 32)], [text(20, 120, 80, 132)], [])
    cleaned = clean(chest(), HEADER, finder)
    assert cleaned.erased[20:32, 20:80].all()
    assert cleaned.erased[120:132, 20:80].all()
    assert cleaned.measures()["text_regions_erased"] == 2


def test_markers_are_kept_and_counted() -> None:
    marker = text(150, 20, 180, 34, marker=True)
    source = chest()
    cleaned = clean(source, HEADER, Finds([marker, text(20, 150, 80, 162)], [marker]))
    assert cleaned.measures()["text_markers_kept"] == 1
    assert (cleaned.radiograph.values == source.values)[20:34, 150:180].all()


def test_text_that_never_ends_is_given_up_after_the_promised_number_of_rounds() -> None:
    finder = Finds(*[[text(20, 20, 80, 32)]] * 50)
    with pytest.raises(Rejected) as caught:
        clean(chest(), HEADER, finder)
    assert caught.value.reason is Reason.BURNED_IN_TEXT
    assert len(finder.views) == MOST_ROUNDS + 1
    reach = reach_of((200, 240), text(20, 20, 80, 32))
    assert caught.value.findings == (reach,)
    assert len(caught.value.pictures) == 1


def test_a_region_as_large_as_anatomy_is_shown_to_a_human_and_not_erased() -> None:
    rows, columns = 200, 240
    height = round(LARGEST_REGION * rows * columns / 200)
    allowed, large = text(10, 5, 210, 5 + height - 2), text(10, 5, 210, 5 + height + 2)
    assert clean(chest(), HEADER, Finds([allowed])).erased.any()
    with pytest.raises(Rejected) as caught:
        clean(chest(), HEADER, Finds([large, text(20, 150, 60, 158)]))
    assert caught.value.findings == (reach_of((rows, columns), large),)


def test_very_many_regions_are_shown_to_a_human() -> None:
    source = chest(1000, 1000)
    many = [text(10 + 90 * (i % 10), 10 + 90 * (i // 10), 30 + 90 * (i % 10), 18 + 90 * (i // 10))
            for i in range(MOST_REGIONS + 1)]  # fmt: skip
    assert clean(source, HEADER, Finds(many[:-1])).erased.any()
    with pytest.raises(Rejected) as caught:
        clean(source, HEADER, Finds(many))
    assert len(caught.value.findings) == len(many)
    assert len(caught.value.pictures) < len(many)


def test_much_of_an_image_is_not_erased_unseen() -> None:
    lines = [text(10, top, 230, top + 12) for top in range(10, 190, 30)]
    with pytest.raises(Rejected, match=f"{MOST_ERASED:.0%}"):
        clean(chest(), HEADER, Finds(lines))


def test_a_header_that_speaks_of_text_is_doubted_until_some_was_erased() -> None:
    with pytest.raises(Rejected, match="BurnedInAnnotation"):
        clean(chest(), HEADER, Finds([]), claimed=True)
    assert clean(chest(), HEADER, Finds([text(20, 20, 80, 32)]), claimed=True).erased.any()
    mask = Mask(((0, 0, 50, 10),), rows=200)
    assert clean(chest(), HEADER, Finds([]), [mask], claimed=True).erased.any()


def test_masks_are_filled_before_the_search() -> None:
    source, finder = chest(), Finds([])
    cleaned = clean(source, HEADER, finder, [Mask(((0, -20, 100, 0),), columns=240)])
    assert np.count_nonzero(cleaned.erased) == 2000
    assert (finder.views[0] == view.displayed(cleaned.radiograph, HEADER)).all()
    assert cleaned.measures()["text_regions_erased"] == 0


def shown(png: bytes) -> npt.NDArray[np.uint8]:
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None
    return np.asarray(image, np.uint8)


@pytest.mark.parametrize("box", [(400, 300, 460, 320), (0, 0, 900, 40), (5, 10, 9, 700)])
def test_a_picture_shows_the_region_and_nothing_of_the_rest(box: tuple[int, int, int, int]) -> None:
    region = text(*box)
    dark, bright = np.zeros((800, 1000), np.float32), np.ones((800, 1000), np.float32)
    for seen in (dark, bright):
        seen[region.top : region.bottom, region.left : region.right] = 0.5
    around = cv2.dilate(shown(picture(bright, region)), np.ones((3, 3), np.uint8))
    assert max(around.shape) <= LONGEST_SIDE
    assert 100 < shown(picture(dark, region)).max() < 140
    # Another text well outside the region changes no pixel of its picture.
    other = bright.copy()
    other[500:520, 700:900] = 0
    if box[3] < 400:
        assert picture(other, region) == picture(bright, region)


def test_an_oblique_picture_does_not_show_its_corners() -> None:
    quad = ((100.0, 300.0), (300.0, 100.0), (314.0, 114.0), (114.0, 314.0))
    region = TextRegion(100, 100, 314, 314, 0.9, marker=False, quads=(quad,))
    image = shown(picture(np.ones((400, 400), np.float32), region))
    assert image[5, 5] == 0
    assert image[image.shape[0] // 2, image.shape[1] // 2] == 255


def test_findings_and_pictures_are_told_in_no_text(caplog: pytest.LogCaptureFixture) -> None:
    finder = Finds(*[[text(21, 23, 87, 39)]] * 9)
    with pytest.raises(Rejected) as caught:
        clean(chest(), HEADER, finder)
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("test").error("failed", exc_info=caught.value)
    assert caught.value.pictures[0].startswith(b"\x89PNG")
    told = str(caught.value) + repr(caught.value) + caplog.text
    told += "".join(traceback.format_exception(caught.value))
    assert "PNG" not in told
    assert not any(number in told for number in ("21, 23", "87, 39"))


def written(
    words: str, size: int, turn: float, at: tuple[int, int], shape: tuple[int, int]
) -> View:
    """Give how much of each pixel ``words`` cover, 0 to 1, written around ``at`` (x, y)."""
    stencil = Image.new("L", (shape[1], shape[0]))
    font = ImageFont.load_default(size)
    ImageDraw.Draw(stencil).text(at, words, font=font, fill=255, anchor="mm")
    drawn = stencil.rotate(turn, center=at, resample=Image.Resampling.BICUBIC)
    return np.asarray(drawn, np.float32) / 255


@pytest.mark.parametrize(("turn", "bits", "grey"), [(90, 16, 0.0), (40, 10, 1.0)])
def test_a_name_in_a_radiograph_is_erased_and_its_side_marker_stays(
    turn: float, bits: int, grey: float
) -> None:
    top = (1 << bits) - 1
    values = phantom(700, 600, bits_stored=bits, seed=11)
    name = written("QUARTER^EVA", 32, turn, (220, 400), values.shape)
    marker = written("LEFT", 40, 0, (510, 60), values.shape)
    picture_ = values * (1 - name) + grey * top * name
    picture_ = picture_ * (1 - marker) + top * marker
    source = Radiograph(np.round(picture_).astype(values.dtype), bits)
    header = radiograph_dataset(window=(top / 2, top))
    cleaned = clean(source, header, TextFinder())
    assert cleaned.erased[name > 0.5].mean() == 1
    assert not cleaned.erased[marker > 0.5].any()
    assert cleaned.markers == 1
    after = cleaned.radiograph.values
    np.testing.assert_array_equal(after[~cleaned.erased], source.values[~cleaned.erased])


def test_the_name_and_birth_date_of_a_real_file_are_erased_and_its_markers_stay() -> None:
    content = need(CHEST / "presidio_pseudoPHI_0_ORIGINAL_RLE.dcm").read_bytes()
    dataset = inspection.read(content)
    source = pixels.decode(dataset)
    before = view.displayed(source, dataset)
    cleaned = clean(source, dataset, TextFinder())
    for left, top, right, bottom in ((4, 2, 818, 46), (4, 38, 368, 88)):
        lines = np.s_[top:bottom, left:right]
        letters = before[lines] > 0.9
        assert letters.mean() > 0.1
        assert cleaned.erased[lines][letters].all()
    assert cleaned.markers >= 2
    assert cleaned.erased.mean() < 0.1
    after = view.displayed(cleaned.radiograph, dataset)
    assert (after[:90, :800] > 0.9).mean() < 0.01


# --- What a person decided ------------------------------------------------------------------------

DIGEST = "d" * 64


def test_what_a_person_names_is_erased_however_large_it_is_and_all_else_stays() -> None:
    source = chest()
    box = (0, 0, 240, 120)
    cleaned = clean(source, HEADER, Finds([]), looked=Looked(DIGEST, (box,)))
    assert cleaned.erased[:120].all()
    assert not cleaned.erased[120:].any()
    assert (cleaned.radiograph.values == source.values)[120:].all()
    assert (cleaned.radiograph.values != source.values)[:120].mean() > 0.5


def test_nothing_of_what_a_person_had_erased_has_any_influence() -> None:
    other = chest()
    values = other.values.copy()
    values[20:60, 30:90] = 4095
    lettered = Radiograph(values, 12)
    looked = Looked(DIGEST, ((30, 20, 90, 60),))
    one, two = (clean(each, HEADER, Finds([]), looked=looked) for each in (other, lettered))
    assert (one.radiograph.values == two.radiograph.values).all()


def test_what_a_person_left_alone_is_neither_erased_nor_doubted() -> None:
    source, bone = chest(), text(20, 20, 200, 190)
    with pytest.raises(Rejected) as caught:
        clean(source, HEADER, Finds([bone]))
    [box] = caught.value.findings
    cleaned = clean(source, HEADER, Finds([bone]), looked=Looked(DIGEST, (), (box,)))
    assert cleaned.radiograph is source
    assert cleaned.measures()["text_markers_kept"] == 0


def test_what_reaches_beyond_what_a_person_left_alone_is_judged_as_always() -> None:
    looked = Looked(DIGEST, (), ((20, 20, 80, 32),))
    for beyond in (text(19, 20, 80, 32), text(20, 20, 81, 32), text(20, 100, 80, 112)):
        assert clean(chest(), HEADER, Finds([beyond], []), looked=looked).erased.any()
    with pytest.raises(Rejected):
        clean(chest(), HEADER, Finds([text(20, 20, 200, 190)]), looked=looked)


def test_a_patch_that_looks_like_text_where_a_person_had_it_erased_is_none() -> None:
    looked = Looked(DIGEST, ((10, 10, 100, 50),))
    cleaned = clean(chest(), HEADER, Finds(*[[text(20, 20, 80, 32)]] * 9), looked=looked)
    assert cleaned.measures()["text_regions_erased"] == 0


def test_a_person_who_looked_and_found_nothing_answers_a_header_that_speaks_of_text() -> None:
    with pytest.raises(Rejected):
        clean(chest(), HEADER, Finds([]), claimed=True)
    assert not clean(chest(), HEADER, Finds([]), claimed=True, looked=Looked(DIGEST)).erased.any()


@pytest.mark.parametrize("size", [(3000, 2500), (2500, 3000), (300, 200)])
def test_the_picture_of_a_whole_image_shows_all_of_it_as_large_as_it_is_searched(
    size: tuple[int, int],
) -> None:
    noise = np.random.default_rng(1).random(size, dtype=np.float32)
    noise[:, : size[1] // 2] = 0
    png = whole_picture(noise)
    assert len(png) <= WHOLE_PICTURE_BYTES
    seen = shown(png)
    assert max(seen.shape) == min(max(size), WHOLE_SIDE)
    assert seen.shape[0] / seen.shape[1] == pytest.approx(size[0] / size[1], rel=0.01)
    half = seen.shape[1] // 2
    assert seen[:, : half - 1].max() < 10
    assert seen[:, half + 1 :].mean() > 50


def test_the_picture_of_a_whole_image_is_never_larger_than_the_contract_lets_it_be() -> None:
    noise = np.random.default_rng(1).random((WHOLE_SIDE, WHOLE_SIDE), dtype=np.float32)
    png = whole_picture(noise)
    assert len(png) <= WHOLE_PICTURE_BYTES
    seen = shown(png)
    assert seen.shape == noise.shape, "greys are given up, and no pixel"
    assert np.abs(seen / 255 - noise).max() < 0.07


def test_the_smallest_letters_that_the_search_should_find_can_be_read_in_the_picture() -> None:
    """Letters of 14 of 2500 rows, which docs/burned-in-text.md names.

    Capitals of fewer than 9 pixels are a strain to read on any screen.
    """
    image = Image.new("L", (2000, 2500), 90)
    font = ImageFont.load_default(size=20)
    ImageDraw.Draw(image).text((1203, 1807), "LATERAL", fill=190, font=font)
    seen = shown(whole_picture(np.asarray(image, np.float32) / 255))
    rows = np.flatnonzero((seen > 140).any(axis=1))
    assert rows[-1] + 1 - rows[0] >= 9
    [found] = TextFinder().find(seen.astype(np.float32) / 255)
    assert found.marker, "it was read, surely, as this very word"
