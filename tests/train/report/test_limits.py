"""What the data can and cannot show is computed from the records."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from prichexy_testing.made_up_runs import (
    CONTROL,
    CORRECTED,
    FLOOR,
    PAPERS_ATTACK,
    RANDOM,
    REAL,
    STRONG,
    UNDONE,
    MadeUp,
)
from prichexy_train.report.evidence import gather
from prichexy_train.report.limits import agreement, findings, limits, training_notes
from prichexy_train.report.published import published
from prichexy_train.report.results import Section, sections
from prichexy_train.report.tables import main_table


def said(made_up: MadeUp, part: Callable[[Section, str], Sequence[str]]) -> str:
    (section,) = sections(gather(made_up.folder))
    return " ".join(part(section, "test")).replace("\N{NO-BREAK SPACE}", " ")


def test_the_number_of_pairs_and_patients_is_told(made_up: MadeUp) -> None:
    made_up.attack(REAL, STRONG, 1.0)
    assert "120 pairs of 60 patients" in said(made_up, limits)
    assert "60 pairs of one patient come from 60 patients, one from each" in said(made_up, limits)


def test_one_seed_says_nothing_of_training(made_up: MadeUp) -> None:
    made_up.attack(REAL, STRONG, 1.0, seeds=(1,))
    assert "1 seed: how much its training varies is not known" in said(made_up, limits)


def test_a_deviation_of_three_values_is_called_rough(made_up: MadeUp) -> None:
    made_up.attack(REAL, STRONG, 1.0, seeds=(1, 2, 3))
    # The chi-square quantiles of 2 degrees of freedom: sqrt(0.0506 / 2), sqrt(7.378 / 2).
    assert "lies between 0.2 and 1.9 times the true one" in said(made_up, limits)


def test_rungs_that_nobody_climbed_are_named(made_up: MadeUp) -> None:
    made_up.attack(REAL, STRONG, 1.0)
    made_up.attack(REAL, PAPERS_ATTACK, 1.0)
    made_up.retrieval(REAL, 0.5)
    made_up.attack(CORRECTED, STRONG, 1.0)
    words = said(made_up, limits)
    assert "rungs 2, 4, 6, 7 and 8 on Real images" in words  # no critic was ever trained on these
    assert "rungs 1, 2, 4, 5, 6, 7, 8 and 9 on PriCheXy-Net μ = 0.01" in words


def test_the_floor_and_the_controls_are_told_apart_from_attacks(made_up: MadeUp) -> None:
    made_up.attack(REAL, STRONG, 1.0)
    made_up.attack(REAL, FLOOR, 3.0, seeds=(1,))
    made_up.attack(REAL, CONTROL, 0.0, seeds=(1,))
    words = said(made_up, limits)
    assert "Without any image, metadata reaches" in words
    assert "Controls: shuffled identities" in words


def test_the_rarest_label_is_named(made_up: MadeUp) -> None:
    made_up.attack(REAL, STRONG, 1.0)
    made_up.utility(REAL, 0.8)
    assert "the rarest, Effusion, is on 9 images" in said(made_up, limits)


def test_only_a_certain_change_is_called_protection(made_up: MadeUp) -> None:
    made_up.attack(REAL, STRONG, 2.5)
    made_up.attack(RANDOM, STRONG, 2.5)
    made_up.attack(CORRECTED, STRONG, 0.2)
    words = said(made_up, findings)
    assert "does worse than on real images on PriCheXy-Net μ = 0.01 (−" in words
    assert "For Random deformation μ = 0.01 the 95 % interval" in words


def test_an_attack_that_real_images_did_not_meet_is_told_with_what_it_shows(
    made_up: MadeUp,
) -> None:
    made_up.attack(REAL, STRONG, 2.5)
    made_up.attack(CORRECTED, STRONG, 0.2)
    made_up.attack(CORRECTED, UNDONE, 2.5)
    words = said(made_up, findings)
    assert "PriCheXy-Net μ = 0.01, undone, was not made by the same attacker" in words
    assert "so no protection was shown" in words
    assert "reaches zero" not in words
    assert "Beyond chance" not in words


def test_a_change_of_one_training_is_called_no_protection(made_up: MadeUp) -> None:
    made_up.attack(REAL, PAPERS_ATTACK, 2.5, seeds=(1,), details={"epochs": 3})
    made_up.attack(CORRECTED, PAPERS_ATTACK, 0.2, seeds=(1,), details={"epochs": 3})
    words = said(made_up, findings)
    assert "was trained once" in words
    assert "Beyond chance" not in words


def test_the_price_in_utility_is_told(made_up: MadeUp) -> None:
    made_up.attack(CORRECTED, STRONG, 1.0)
    made_up.utility(CORRECTED, 0.72)
    assert "PriCheXy-Net μ = 0.01 changes the class AUC by −8.0 points" in said(made_up, findings)


AS_PUBLISHED = '[fresh]\nobjective = "pairs"\n[fresh.network]\nbackbone = "resnet50"\n'
BY_CONTRAST = AS_PUBLISHED.replace("pairs", "contrastive")
ANOTHER_NETWORK = AS_PUBLISHED.replace("resnet50", "efficientnet-lite0")


def fresh_column(made_up: MadeUp) -> str:
    (section,) = sections(gather(made_up.folder))
    return main_table(section, "test", published()).columns[0].head


def compared(made_up: MadeUp) -> str:
    return said(made_up, lambda one, name: agreement(one, name, published()))


def test_a_published_figure_is_compared_with_the_papers_attack_only(made_up: MadeUp) -> None:
    made_up.attack(CORRECTED, STRONG, 3.0, data="chestxray14")
    made_up.run("attack-d-corrected", "attack", epochs=0, settings=AS_PUBLISHED)
    assert compared(made_up) == ""
    made_up.attack(CORRECTED, PAPERS_ATTACK, 3.0, data="chestxray14")
    words = compared(made_up)
    assert "published 57.7" in words
    assert "lies outside" in words
    assert "with the other operator" in words
    assert fresh_column(made_up) == "Paper’s attack"


@pytest.mark.parametrize(
    ("data", "settings"),
    [
        ("chestxray14", BY_CONTRAST),
        ("chestxray14", ANOTHER_NETWORK),
        ("kermany224", AS_PUBLISHED),
        ("chestxray14", ""),
    ],
)
def test_another_attacker_or_other_data_agree_with_no_published_figure(
    made_up: MadeUp, data: str, settings: str
) -> None:
    made_up.attack(CORRECTED, PAPERS_ATTACK, 3.0, data=data)
    made_up.run("attack-d-corrected", "attack", epochs=0, settings=settings)
    assert compared(made_up) == ""
    assert fresh_column(made_up) == "Fresh attacker"


def test_a_training_that_was_still_improving_is_named(made_up: MadeUp) -> None:
    made_up.attack(REAL, STRONG, 1.0)
    made_up.run("flattened", epochs=4, best=3)
    made_up.run("rising", epochs=4, best=4)
    (note,) = training_notes(gather(made_up.folder).runs)
    assert "rising" in note
    assert "flattened" not in note
