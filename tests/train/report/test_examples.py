"""Example images: only of the sets that were named, the same ones each time, with their fields."""

from __future__ import annotations

import base64
import io
import shutil

import numpy as np
import pytest
from PIL import Image

from prichexy_testing.made_up_runs import STRONG, MadeUp
from prichexy_testing.miniature_runs import Runs
from prichexy_train.data.prepared import PreparedSet
from prichexy_train.methods_from import method_from
from prichexy_train.report.evidence import gather
from prichexy_train.report.examples import Example, Tile, draw_examples
from prichexy_train.report.page import compose, write_page


def picture(tile: Tile) -> Image.Image:
    content = base64.b64decode(tile.source.removeprefix("data:image/png;base64,"))
    return Image.open(io.BytesIO(content))


@pytest.fixture
def prepared(miniature_runs_made: Runs) -> PreparedSet:
    return PreparedSet.open(miniature_runs_made.data)


@pytest.fixture
def measured(made_up: MadeUp, miniature_runs_made: Runs) -> MadeUp:
    """A trained deformation and a method without weights, both with a record."""
    run = made_up.folder / "generator"
    shutil.copytree(miniature_runs_made.pretrained, run)
    for method in ("real", "dp-pix:b=4", f"run:{run}"):
        made_up.attack(method_from(method).of, STRONG, 1.0, seeds=(1,))
    return made_up


def drawn(made_up: MadeUp, *sets: PreparedSet) -> tuple[Example, ...]:
    return draw_examples(gather(made_up.folder), sets)


def test_nothing_is_shown_unless_a_set_is_named(measured: MadeUp, prepared: PreparedSet) -> None:
    assert drawn(measured) == ()
    sets = {prepared.name: prepared.summary}
    page = compose(gather(measured.folder), "No pictures", sets=sets)
    html, _ = write_page(page, measured.folder.parent / "report")
    assert "data:image" not in html.read_text().replace("img-src data:", "")


def test_two_test_patients_are_shown_under_each_method(
    measured: MadeUp, prepared: PreparedSet
) -> None:
    examples = drawn(measured, prepared)
    assert len(examples) == 2
    first = [tile.caption.replace("\N{NO-BREAK SPACE}", " ") for tile in examples[0].tiles]
    assert first[0] == "Real"
    assert first[1] == "DP-Pix b = 4"
    assert first[2].startswith("DP-Pix b = 4: change of brightness, largest")
    assert first[3] == "PriCheXy-Net μ = 0.01"
    assert "displacement, largest" in first[4]
    assert len(first) == 5
    assert drawn(measured, prepared) == examples


def test_the_first_picture_is_the_test_image_itself(
    measured: MadeUp, prepared: PreparedSet
) -> None:
    shown = np.asarray(picture(drawn(measured, prepared)[0].tiles[0]))
    first = prepared.images.gather(prepared.split("test")[:1])[0, 0].numpy()
    assert np.array_equal(shown, (first * 255).round())


def test_every_picture_is_told_in_words(measured: MadeUp, prepared: PreparedSet) -> None:
    for example in drawn(measured, prepared):
        for tile in example.tiles:
            assert len(tile.alt) > 15
            assert min(picture(tile).size) >= 32


def test_a_method_whose_weights_are_not_here_is_left_out(
    measured: MadeUp, prepared: PreparedSet
) -> None:
    shutil.rmtree(measured.folder / "generator")
    captions = [tile.caption for tile in drawn(measured, prepared)[0].tiles]
    assert not any("PriCheXy" in caption for caption in captions)
    assert len(captions) == 3
