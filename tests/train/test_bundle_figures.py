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
from prichexy_train.records import read_records


@pytest.fixture
def made_up(tmp_path: Path) -> MadeUp:
    return MadeUp(tmp_path / "runs")


def of(made_up: MadeUp) -> Figures:
    return figures_of(made_up.folder, CORRECTED.digest)


def test_without_records_nothing_is_claimed() -> None:
    assert no_figures().evidence == "trained"
    assert "no privacy is claimed" in no_figures().statement
    assert no_figures().metrics == {}


def test_measured_is_what_was_attacked_as_in_the_paper_and_more_strongly_and_is_of_use(
    tmp_path: Path,
) -> None:
    figures = of(table_of_runs(tmp_path / "runs"))
    assert figures.evidence == "measured"
    assert figures.missing == ()
    assert figures.protects


@pytest.mark.parametrize(
    ("left_out", "missing"),
    [
        ("paper", "the paper's attack"),
        ("strong", "an attack with a strong verifier"),
        ("utility", "utility"),
    ],
)
def test_with_one_of_them_missing_it_is_trained_and_says_what_is_missing(
    made_up: MadeUp, left_out: str, missing: str
) -> None:
    if left_out != "paper":
        made_up.attack(CORRECTED, PAPERS_ATTACK, 0.5)
    if left_out != "strong":
        made_up.attack(CORRECTED, STRONG, 1.0, seeds=(1,))
    if left_out != "utility":
        made_up.utility(CORRECTED, 0.7)
    made_up.attack(CORRECTED, FLOOR, 0.3, seeds=(1,))
    figures = of(made_up)
    assert figures.evidence == "trained"
    (told,) = figures.missing
    assert missing in told
    assert told in figures.statement
    assert "No privacy is claimed" in figures.statement
    # What was measured is told all the same.
    assert figures.metrics["made-up"]["verification"] != {}


def test_what_was_measured_of_another_method_counts_for_nothing(made_up: MadeUp) -> None:
    made_up.attack(PAPER, PAPERS_ATTACK, 0.5)
    made_up.attack(PAPER, STRONG, 1.0, seeds=(1,))
    made_up.utility(PAPER, 0.7)
    with pytest.raises(Misconfigured, match="none of its 5 records is about this anonymizer"):
        of(made_up)
    made_up.attack(CORRECTED, PAPERS_ATTACK, 0.5)
    assert of(made_up).evidence == "trained"


def test_parts_measured_on_two_sets_do_not_make_a_whole(made_up: MadeUp) -> None:
    made_up.attack(CORRECTED, PAPERS_ATTACK, 0.5, data="one")
    made_up.attack(CORRECTED, STRONG, 1.0, seeds=(1,), data="two")
    made_up.utility(CORRECTED, 0.7, data="two")
    figures = of(made_up)
    assert figures.evidence == "trained"
    assert figures.missing == ("the paper's attack (rung 1)",)


def test_the_statement_tells_the_strongest_attack_of_all_and_what_is_left_of_use(
    tmp_path: Path,
) -> None:
    made_up = table_of_runs(tmp_path / "runs")
    figures = of(made_up)
    rung = figures.metrics["made-up"]["verification"]["test"]["strongest"]
    assert rung["name"] == "strong-frozen"
    records = [stored.record for stored in read_records(made_up.folder)]
    ours = [r.auc for r in records if r.kind == "attack" and r.method == CORRECTED]
    assert f"AUC {max(ours):.3f} [" in figures.statement
    assert "strongest of 2 attacks (strong frozen)" in figures.statement
    assert "real images 0.9" in figures.statement
    assert "class AUC 0.780 (real images 0.800)" in figures.statement
    assert re.fullmatch(r"[\x20-\x7e]{1,400}", figures.statement)


def test_an_attack_as_strong_as_on_real_images_is_called_no_protection(made_up: MadeUp) -> None:
    for method in (REAL, CORRECTED):
        made_up.attack(method, PAPERS_ATTACK, 0.5)
        made_up.attack(method, STRONG, 2.0, seeds=(1,))
        made_up.utility(method, 0.7)
    assert "No protection was shown." in of(made_up).statement
    assert not of(made_up).protects


def test_a_list_on_which_nothing_was_shown_is_not_hidden_by_another(tmp_path: Path) -> None:
    made_up = table_of_runs(tmp_path / "runs")
    for method in (REAL, CORRECTED):
        made_up.attack(method, STRONG, 0.2, seeds=(1,), pair_list="test_matched")
    figures = of(made_up)
    assert figures.evidence == "measured"
    assert not figures.protects
    assert "On another list no protection was shown." in figures.statement


def test_without_real_images_to_compare_with_no_protection_was_shown(made_up: MadeUp) -> None:
    made_up.attack(CORRECTED, PAPERS_ATTACK, 0.0)
    made_up.attack(CORRECTED, STRONG, 0.0, seeds=(1,))
    made_up.utility(CORRECTED, 0.7)
    assert "No protection was shown." in of(made_up).statement


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
