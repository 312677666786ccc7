"""What is claimed of a bundle follows from records, and from nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from prichexy_testing.made_up_runs import (
    CORRECTED,
    FLOOR,
    PAPER,
    PAPERS_ATTACK,
    REAL,
    STRONG,
    MadeUp,
    table_of_runs,
)
from prichexy_train.bundle_figures import Figures, figures_of, no_figures
from prichexy_train.errors import Failed, Misconfigured
from prichexy_train.records import RungOf, read_records

OTHER = RungOf(number=6, name="other-backbone")


@pytest.fixture
def made_up(tmp_path: Path) -> MadeUp:
    return MadeUp(tmp_path / "runs")


def of(made_up: MadeUp, *, critics: bool = True) -> Figures:
    return figures_of(made_up.folder, CORRECTED.digest, critics=critics)


def measured(folder: Path, ours: float = 0.8, *, real: float = 2.0) -> MadeUp:
    """Give records with all that "measured" asks for."""
    made_up = MadeUp(folder / "runs")
    made_up.ladder(REAL, real)
    made_up.ladder(CORRECTED, ours)
    made_up.utility(CORRECTED, 0.78)
    return made_up


def remove(made_up: MadeUp, pattern: str) -> None:
    found = list(made_up.folder.glob(pattern))
    assert found
    for path in found:
        path.unlink()


def test_without_records_nothing_is_claimed() -> None:
    assert no_figures().evidence == "trained"
    assert "no privacy is claimed" in no_figures().statement
    assert no_figures().metrics == {}


def test_measured_is_what_met_the_whole_ladder_often_enough_and_is_of_use(tmp_path: Path) -> None:
    figures = of(measured(tmp_path))
    assert figures.missing == ()
    assert figures.evidence == "measured"
    assert figures.protects


@pytest.mark.parametrize(
    ("left_out", "missing"),
    [
        ("attack-d-corrected/**/made-up.test.1.*", "rung 1 (list test)"),
        ("attack-d-corrected/**/made-up.test.3.*", "rung 3 (list test)"),
        ("attack-d-corrected/**/made-up.test.5.*", "rung 5 (list test)"),
        ("attack-d-corrected/**/made-up.test.8.*", "rung 8 (list test)"),
        ("attack-d-corrected/**/made-up.test.[24].*", "rungs 2 and 4 (list test)"),
        ("attack-d-corrected/**/made-up.test.2.*.5.*", "5 seeds of rung 2 (list test)"),
        ("attack-d-real/**/*.json", "attacks on real images (list test)"),
        (
            "attack-d-real/**/made-up.test.4.*.3.*",
            "rung 4 on real images with the same seeds (list test)",
        ),
        ("utility-d-corrected/**/*.json", "utility"),
    ],
)
def test_with_one_of_them_missing_it_is_trained_and_says_what_is_missing(
    tmp_path: Path, left_out: str, missing: str
) -> None:
    made_up = measured(tmp_path)
    remove(made_up, left_out)
    figures = of(made_up)
    assert figures.evidence == "trained"
    assert figures.missing == (missing,)
    assert missing in figures.statement
    assert "No privacy is claimed" in figures.statement
    assert not figures.protects
    # What was measured is told all the same.
    assert figures.metrics["made-up"]["verification"] != {}


def test_a_generator_without_critics_needs_no_attack_with_them(tmp_path: Path) -> None:
    made_up = measured(tmp_path)
    remove(made_up, "attack-d-corrected/**/made-up.test.5.*")
    assert of(made_up, critics=False).evidence == "measured"


def test_attackers_who_tell_few_real_patients_apart_prove_nothing(tmp_path: Path) -> None:
    figures = of(measured(tmp_path, 0.0, real=0.8))
    assert figures.evidence == "trained"
    (told,) = figures.missing
    assert "reaches AUC 0.8 on real images" in told


def test_a_list_that_anybody_was_attacked_on_is_asked_for(tmp_path: Path) -> None:
    made_up = measured(tmp_path)
    made_up.attack(PAPER, STRONG, 1.0, seeds=(1,), pair_list="test_matched")
    figures = of(made_up)
    assert figures.evidence == "trained"
    assert "rungs 1, 2, 3, 4, 5 and 8 (list test_matched)" in figures.missing
    for method, separation in ((REAL, 2.0), (CORRECTED, 0.8)):
        made_up.ladder(method, separation, pair_list="test_matched")
    assert of(made_up).evidence == "measured"


def test_a_statement_fits_a_bundle_however_much_is_missing(made_up: MadeUp) -> None:
    for number in range(8):
        made_up.attack(CORRECTED, FLOOR, 0.3, seeds=(1,), pair_list=f"a_list_of_pairs_{number}")
    figures = of(made_up)
    assert len(figures.missing) > 8
    assert re.fullmatch(r"[\x20-\x7e]{1,400}", figures.statement)


def test_what_was_measured_of_another_method_counts_for_nothing(made_up: MadeUp) -> None:
    made_up.attack(PAPER, PAPERS_ATTACK, 0.5)
    made_up.attack(PAPER, STRONG, 1.0, seeds=(1,))
    made_up.utility(PAPER, 0.7)
    with pytest.raises(Misconfigured, match="none of its 5 records is about this anonymizer"):
        of(made_up)
    made_up.attack(CORRECTED, PAPERS_ATTACK, 0.5)
    assert of(made_up).evidence == "trained"


def test_parts_measured_on_two_sets_do_not_make_a_whole(made_up: MadeUp) -> None:
    for method, separation in ((REAL, 2.0), (CORRECTED, 0.8)):
        made_up.ladder(method, separation, data="one")
    made_up.utility(CORRECTED, 0.7, data="two")
    figures = of(made_up)
    assert figures.evidence == "trained"
    assert figures.missing == ("utility",)


def test_the_statement_tells_the_strongest_attack_of_all_and_what_is_left_of_use(
    tmp_path: Path,
) -> None:
    made_up = measured(tmp_path, 1.2)
    figures = of(made_up)
    rung = figures.metrics["made-up"]["verification"]["test"]["strongest"]
    records = [stored.record for stored in read_records(made_up.folder)]
    ours = {
        r.rung.name: r.auc
        for r in records
        if r.kind == "attack" and r.method == CORRECTED and r.rung.number in {3, 5, 8}
    }
    assert rung["name"] == max(ours, key=lambda name: ours[name])
    assert f"AUC {max(ours.values()):.3f} [" in figures.statement
    assert f"strongest of 6 attacks ({rung['name'].replace('-', ' ')})" in figures.statement
    assert "real images 0.9" in figures.statement
    assert "class AUC 0.780 (real images 0.800)" in figures.statement
    assert re.fullmatch(r"[\x20-\x7e]{1,400}", figures.statement)


def test_an_attack_as_strong_as_on_real_images_is_called_no_protection(tmp_path: Path) -> None:
    figures = of(measured(tmp_path, 2.0))
    assert figures.evidence == "measured"
    assert "No protection was shown." in figures.statement
    assert not figures.protects


def test_one_more_attack_on_real_images_makes_no_protection(tmp_path: Path) -> None:
    made_up = measured(tmp_path, 2.0)
    made_up.attack(REAL, OTHER, 4.0)
    assert of(made_up).evidence == "measured"
    assert not of(made_up).protects


def test_a_list_on_which_nothing_was_shown_is_not_hidden_by_another(tmp_path: Path) -> None:
    made_up = measured(tmp_path, 1.0, real=3.0)
    for method in (REAL, CORRECTED):
        made_up.ladder(method, 1.8, pair_list="test_matched")
    figures = of(made_up)
    assert figures.evidence == "measured"
    assert not figures.protects
    assert "o protection was shown." in figures.statement


def test_a_data_set_measured_in_part_speaks_against_protection(tmp_path: Path) -> None:
    made_up = measured(tmp_path)
    assert of(made_up).protects
    for method in (REAL, CORRECTED):
        made_up.attack(method, STRONG, 2.0, seeds=(1,), data="another")
    figures = of(made_up)
    assert figures.evidence == "measured"
    assert not figures.protects
    assert "On another list no protection was shown." in figures.statement


def test_every_figure_is_that_of_the_records(tmp_path: Path) -> None:
    made_up = table_of_runs(tmp_path / "runs")
    figures = of(made_up)
    found = figures.metrics["made-up"]["verification"]["test"]
    records = [stored.record for stored in read_records(made_up.folder)]
    for attack in found["attacks"]:
        values = [
            r.auc
            for r in records
            if r.kind == "attack" and r.method == CORRECTED and r.rung.number == attack["rung"]
        ]
        assert attack["seeds"] == len(values)
        assert attack["auc"]["mean"] == pytest.approx(np.mean(values), abs=1e-6)
        if len(values) > 1:
            assert attack["auc"]["sd"] == pytest.approx(np.std(values, ddof=1), abs=1e-6)
    assert {attack["role"] for attack in found["attacks"]} == {"attack", "floor"}
    assert found["change"]["difference"] < 0
    assert figures.metrics["made-up"]["utility"]["auc"] == 0.78
    assert figures.metrics["made-up"]["retrieval"][0]["rank1"]["mean"] == pytest.approx(0.3)
    json.dumps(figures.metrics, allow_nan=False)


def test_the_limits_are_those_of_the_data_and_the_attacks(tmp_path: Path) -> None:
    limits = " ".join(of(table_of_runs(tmp_path / "runs")).limits)
    assert "made-up, test: The list holds 120 pairs of 60 patients" in limits
    assert "rungs 2, 4, 5, 6 and 8" in limits


def test_records_are_named_by_what_they_hold(tmp_path: Path) -> None:
    made_up = table_of_runs(tmp_path / "runs")
    before = of(made_up).sources
    assert before["records"] == 7
    made_up.utility(CORRECTED, 0.79)
    after = of(made_up).sources
    assert after["records"] == 7
    assert after["records_sha256"] != before["records_sha256"]


def test_a_folder_without_records_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="holds no record"):
        figures_of(tmp_path, "d-corrected")
