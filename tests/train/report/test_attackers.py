"""A report tells how its attackers trained, and warns of those who learned too little."""

from __future__ import annotations

import json

import pytest
from pydantic import JsonValue

from prichexy_testing.made_up_runs import (
    CONTROL,
    CORRECTED,
    ENSEMBLE,
    MIXED,
    STRONG,
    TUNED,
    MadeUp,
)
from prichexy_train.report.attackers import attackers_table, attackers_warnings
from prichexy_train.report.evidence import gather
from prichexy_train.report.published import published
from prichexy_train.report.results import sections
from prichexy_train.report.tables import ladder_table, main_table, runs_table


def trained(*, epochs: int = 9, best: int = 4, validation: float = 0.8) -> dict[str, JsonValue]:
    return {"epochs": epochs, "best_epoch": best, "validation": {"loss": 0.6, "auc": validation}}


def rows(made_up: MadeUp) -> dict[str, list[str]]:
    evidence = gather(made_up.folder)
    (section,) = sections(evidence)
    table = attackers_table(section, evidence)
    if table is None:
        return {}
    names = {name.partition(": ")[2]: cells for name, cells in table.rows}
    return {name: [cell.text for cell in cells] for name, cells in names.items()}


def warned(made_up: MadeUp) -> str:
    (section,) = sections(gather(made_up.folder))
    return " ".join(attackers_warnings(section)).replace("\N{NO-BREAK SPACE}", " ")


def test_each_attacker_who_trained_has_a_row_and_a_value_a_seed(made_up: MadeUp) -> None:
    for pair_list in ("test", "test_matched"):
        made_up.attack(CORRECTED, MIXED, 1.0, seeds=(1,), details=trained(), pair_list=pair_list)
        made_up.attack(
            CORRECTED,
            MIXED,
            1.0,
            seeds=(2,),
            details=trained(epochs=12, best=7, validation=0.71),
            pair_list=pair_list,
        )
    made_up.attack(CORRECTED, STRONG, 1.0)
    assert rows(made_up) == {"fresh mixed": ["1, 2", "9, 12", "4, 7", "80.0, 71.0", "not recorded"]}


def test_without_a_training_there_is_no_table(made_up: MadeUp) -> None:
    made_up.attack(CORRECTED, STRONG, 1.0)
    assert rows(made_up) == {}
    assert warned(made_up) == ""


def test_what_validated_the_attacker_himself_goes_first(made_up: MadeUp) -> None:
    made_up.attack(CORRECTED, MIXED, 1.0, seeds=(1,), details={**trained(), "validation_auc": 0.66})
    assert rows(made_up)["fresh mixed"][3] == "66.0"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ('[fresh.network]\npretrained = "/weights/resnet50.pth"\n', "pretrained (resnet50.pth)"),
        ('[fresh.network]\nbackbone = "tiny"\n', "random weights"),
    ],
)
def test_what_a_network_began_with_stands_in_the_settings(
    made_up: MadeUp, settings: str, told: str
) -> None:
    made_up.attack(CORRECTED, MIXED, 1.0, details=trained())
    made_up.run("attack-d-corrected", "attack", epochs=0, settings=settings)
    assert rows(made_up)["fresh mixed"][4] == told


def test_or_with_its_digest_in_the_attackers_own_run(made_up: MadeUp) -> None:
    made_up.attack(CORRECTED, MIXED, 1.0, seeds=(1, 2), details=trained())
    made_up.run("attack-d-corrected", "attack", epochs=0)
    for seed, data in ((1, {"network.pretrained": "ab" * 32}), (2, {"network.pretrained": "none"})):
        run = made_up.run(f"attack-d-corrected/attempts/fresh-mixed/seed-{seed}")
        told = json.loads((run / "provenance.json").read_text())
        (run / "provenance.json").write_text(json.dumps(told | {"data": data}))
    assert rows(made_up)["fresh mixed"][4] == f"pretrained weights {'ab' * 8}, random weights"


def test_a_tuned_verifier_names_the_one_it_was(made_up: MadeUp) -> None:
    made_up.attack(CORRECTED, TUNED, 1.0, details={"verifier": "first", **trained()})
    assert rows(made_up)["fine tuned"][4] == "strong verifier first"


def test_every_run_says_what_its_network_began_with(made_up: MadeUp) -> None:
    made_up.attack(CORRECTED, STRONG, 1.0)
    for name, stage, data in (
        ("a-verifier", "verifier", {"network.pretrained": "cd" * 32}),
        ("b-classifier", "classifier", {"network.pretrained": "none"}),
        ("c-generator", "anonymizer", {"verifier": "ef" * 32, "start": "01" * 32}),
        ("d-generator", "anonymizer", {"verifier": "ef" * 32}),
    ):
        run = made_up.run(name, stage)
        told = json.loads((run / "provenance.json").read_text())
        (run / "provenance.json").write_text(json.dumps(told | {"data": data}))
    table = runs_table(gather(made_up.folder).runs)
    column = [one.head for one in table.columns].index("Began with")
    assert [cells[column].text for _, cells in table.rows] == [
        f"pretrained weights {'cd' * 8}",
        "random weights",
        f"pretrained generator {'01' * 8}",
        "random weights",
    ]


def test_an_attacker_who_was_still_improving_is_named(made_up: MadeUp) -> None:
    made_up.attack(CORRECTED, MIXED, 1.0, seeds=(1, 2), details=trained())
    assert warned(made_up) == ""
    made_up.attack(CORRECTED, MIXED, 1.0, seeds=(3, 4), details=trained(epochs=5, best=5))
    words = warned(made_up)
    assert "Still improving when the epochs ended" in words
    assert "fresh mixed on PriCheXy-Net μ = 0.01 (seeds 3 and 4)" in words


def test_an_attacker_who_guesses_on_validation_pairs_is_named(made_up: MadeUp) -> None:
    made_up.attack(CORRECTED, MIXED, 1.0, seeds=(1,), details=trained(validation=0.54))
    assert "these attackers learned nothing" in warned(made_up)
    assert "(seed 1)" in warned(made_up)


def test_a_control_is_meant_to_guess(made_up: MadeUp) -> None:
    made_up.attack(CORRECTED, CONTROL, 0.0, details=trained(best=9, validation=0.5))
    assert warned(made_up) == ""


def test_a_verifier_that_learned_on_and_does_worse_is_named(made_up: MadeUp) -> None:
    made_up.attack(CORRECTED, STRONG, 1.5, seeds=(1,))
    # Others' help does not excuse it.
    made_up.attack(CORRECTED, ENSEMBLE, 4.0, seeds=(1,), details={"members": ["a 1", "b 1"]})
    assert warned(made_up) == ""
    made_up.attack(CORRECTED, TUNED, 0.5, details=trained())
    assert "does worse than one as it was (strong frozen" in warned(made_up)


def test_scores_that_were_turned_round_are_marked(made_up: MadeUp) -> None:
    made_up.attack(CORRECTED, MIXED, 1.0, seeds=(1, 3), details={**trained(), "sign": 1})
    made_up.attack(CORRECTED, MIXED, 1.0, seeds=(2,), details={**trained(), "sign": -1})
    (section,) = sections(gather(made_up.folder))
    ((_, (cell,)),) = ladder_table(section, "test").rows
    assert "scores turned round, by the validation pairs (seed 2)" in cell.note


def test_how_far_pixels_are_moved_stands_in_the_main_table(made_up: MadeUp) -> None:
    made_up.attack(CORRECTED, STRONG, 1.0)
    made_up.utility(CORRECTED, 0.78)
    (section,) = sections(gather(made_up.folder))
    heads = [one.head for one in main_table(section, "test", published()).columns]
    assert "Displacement" not in heads
    made_up.utility(CORRECTED, 0.78, details={"displacement": {"rms": 0.712, "p95": 1.2}})
    (section,) = sections(gather(made_up.folder))
    table = main_table(section, "test", published())
    cell = table.rows[0][1][[one.head for one in table.columns].index("Displacement")]
    assert (cell.text, cell.note) == ("0.71", "95 % below 1.20")
