"""A learning curve says what it is made of, what gained, and when it can say nothing."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from prichexy_testing.made_up_runs import REAL, STRONG, MadeUp
from prichexy_train.records import RungOf
from prichexy_train.report.curve import CurveView, curve_view
from prichexy_train.report.evidence import gather
from prichexy_train.report.page import compose
from prichexy_train.report.results import sections
from prichexy_train.report.tables import Cell

UNTRAINED = RungOf(number=0, name="imagenet-features", role="baseline")


def view(made_up: MadeUp) -> CurveView:
    evidence = gather(made_up.folder)
    (section,) = sections(evidence)
    found = curve_view(section, evidence)
    assert found is not None
    return found


def rows(found: CurveView) -> Mapping[str, Mapping[str, Cell]]:
    """Give each row's cells by their columns; a change by the list before it."""
    named = {}
    for name, cells in found.table.rows:
        heads, before = [], ""
        for column in found.table.columns:
            heads.append(f"{before} {column.head}" if column.head == "Change" else column.head)
            before = column.head
        named[name] = dict(zip(heads, cells, strict=True))
    return named


@pytest.fixture
def curve(made_up: MadeUp) -> MadeUp:
    made_up.attack(REAL, STRONG, 1.5)
    made_up.trial("curve-0.5", 0.9, share=0.5)
    made_up.trial("curve-1", 1.0)
    made_up.trial("curve-larger", 3.0, **{"network.size": 224})
    return made_up


def test_each_training_says_what_is_different_from_the_base(curve: MadeUp) -> None:
    found = rows(view(curve))
    assert list(found) == ["curve-0.5", "curve-1", "curve-larger"]
    different = {name: cells["What is different"].text for name, cells in found.items()}
    assert different == {
        "curve-0.5": "0.5 of the patients",
        "curve-1": "the base: all patients",
        "curve-larger": "network.size 224, not 160",
    }
    assert found["curve-0.5"]["Patients learned from"] == Cell("200", "500 images")
    assert found["curve-1"]["Best epoch"] == Cell("3", "of 4")
    assert found["curve-1"]["Validation"] == Cell("70.0", "[60.0, 80.0]")
    assert found["curve-1"]["Rank-1"].text == "25.0"
    assert found["curve-1"]["“test” Change"].text == "–"
    assert found["curve-larger"]["“test” Change"].text.startswith("+")
    assert found["curve-larger"]["“test” Change"].strong


def test_a_gain_beyond_chance_says_that_the_curve_is_not_flat(curve: MadeUp) -> None:
    sentences = " ".join(view(curve).findings)
    assert "going from 0.5 of the training patients to 1 changes the AUC by" in sentences
    assert "a gain beyond chance by more patients (+2.4) and curve-larger (+" in sentences
    assert "curve is not flat" in sentences
    assert "by curve-larger; chosen for its height" in sentences


def test_where_nothing_gains_it_says_how_much_more_is_still_possible(made_up: MadeUp) -> None:
    made_up.trial("curve-0.5", 1.0, share=0.5)
    made_up.trial("curve-1", 1.0)
    sentences = " ".join(view(made_up).findings)
    assert "changes the AUC by 0.0 points" in sentences
    assert "nothing that was tried gains beyond chance, though up to 0.0 points" in sentences


def test_the_untrained_baseline_is_a_row_and_a_base_below_it_is_said_to_say_nothing(
    curve: MadeUp,
) -> None:
    curve.attack(REAL, UNTRAINED, 2.0, seeds=(1,))
    curve.retrieval(REAL, 0.1, rung=RungOf(number=9, name="retrieval-imagenet-features"))
    found = view(curve)
    name, cells = found.table.rows[0]
    assert name == "imagenet-features"
    assert "no training" in cells[0].text
    assert cells[-1].text == "10.0"
    assert any("learned too little" in sentence for sentence in found.findings)
    assert "With no training, ImageNet features: “test”" in found.plots[0].caption


def test_a_training_that_was_best_in_its_last_epoch_is_named(curve: MadeUp) -> None:
    assert not any("last epoch" in sentence for sentence in view(curve).findings)
    curve.trial("curve-longer", 1.0, best=4, **{"training.epochs": 80})
    (late,) = (sentence for sentence in view(curve).findings if "last epoch" in sentence)
    assert late.endswith("curve-longer.")


def test_plots_are_over_patients_and_over_epochs(curve: MadeUp) -> None:
    patients, shares, variants = view(curve).plots
    assert "test_matched:" in patients.alt
    assert "at 0.5" in patients.alt
    assert "curve-0.5 from 60.0 to 90.0" in shares.alt
    assert "curve-larger" not in shares.alt
    assert "curve-larger" in variants.alt
    assert "curve-1 " in variants.alt


def test_without_their_runs_trials_have_figures_and_no_epochs(curve: MadeUp) -> None:
    for name in ("curve-0.5", "curve-1", "curve-larger"):
        (curve.folder / name / "settings.toml").unlink()
    found = view(curve)
    assert len(found.plots) == 1
    assert len(found.table.rows) == 3


def test_the_curve_is_no_part_of_the_ladder(curve: MadeUp) -> None:
    (section,) = sections(gather(curve.folder))
    assert section.real is not None
    assert section.real.strongest["test"].rung == STRONG.name
    assert {one.rung for one in section.real.attacks["test"]} == {STRONG.name}
    assert not section.real.retrievals
    assert section.pair_lists == ("test",)
    page = compose(gather(curve.folder), "A curve")
    (data,) = page.data
    assert data.curve is not None
    assert data.shortcuts is None


def test_no_trials_are_no_curve(made_up: MadeUp) -> None:
    made_up.attack(REAL, STRONG, 1.5)
    evidence = gather(made_up.folder)
    (section,) = sections(evidence)
    assert curve_view(section, evidence) is None
