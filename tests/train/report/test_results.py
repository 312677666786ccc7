"""Records become rows: the strongest attack, the change against real images, no contradiction."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import JsonValue

from prichexy_testing.made_up_runs import (
    CONTROL,
    CORRECTED,
    ENSEMBLE,
    FLOOR,
    MIXED,
    PAPERS_ATTACK,
    RANDOM,
    REAL,
    STRONG,
    UNDONE,
    MadeUp,
)
from prichexy_train.errors import Failed
from prichexy_train.records import MethodOf
from prichexy_train.report.evidence import gather
from prichexy_train.report.results import MethodResult, sections


def results(folder: Path) -> dict[str, MethodResult]:
    (section,) = sections(gather(folder))
    return {one.digest: one for one in section.methods}


def test_the_strongest_is_chosen_among_attacks_only(made_up: MadeUp) -> None:
    made_up.attack(REAL, STRONG, 0.5)
    made_up.attack(REAL, FLOOR, 5.0)
    made_up.attack(REAL, CONTROL, 5.0)
    assert results(made_up.folder)["d-real"].strongest["test"].rung == STRONG.name


def test_a_change_is_certain_when_its_interval_lies_below_zero(table_of_runs: MadeUp) -> None:
    found = results(table_of_runs.folder)
    assert found["d-dp-pix"].changes["test"].certain
    assert found["d-dp-pix"].changes["test"].difference < -0.2
    assert "test" not in found["d-real"].changes or not found["d-real"].changes["test"].certain


def test_a_method_like_the_real_images_has_no_certain_change(made_up: MadeUp) -> None:
    made_up.attack(REAL, STRONG, 1.0)
    made_up.attack(RANDOM, STRONG, 1.0)
    change = results(made_up.folder)["d-random"].changes["test"]
    assert change.difference == pytest.approx(0)
    assert not change.certain


def test_an_attack_that_only_real_images_met_shows_no_protection(made_up: MadeUp) -> None:
    for method in (REAL, RANDOM):
        made_up.attack(method, PAPERS_ATTACK, 0.5)
        made_up.attack(method, STRONG, 1.2, seeds=(1,))
    made_up.attack(REAL, MIXED, 2.5)
    found = results(made_up.folder)
    change = found["d-random"].changes["test"]
    assert change.difference == 0
    assert not change.certain
    assert [one.attack.rung for one in change.compared] == ["fresh-anonymised", "strong-frozen"]
    # What is shown of either is still the maximum over all that it met.
    assert found["d-real"].strongest["test"].rung == MIXED.name


def test_seeds_that_only_one_side_has_are_left_out(made_up: MadeUp) -> None:
    made_up.attack(REAL, STRONG, 1.0, seeds=(1,))
    made_up.attack(REAL, STRONG, 6.0, seeds=(2, 3))
    made_up.attack(RANDOM, STRONG, 1.0, seeds=(1, 4))
    change = results(made_up.folder)["d-random"].changes["test"]
    assert change.difference == 0
    assert (change.attack.seeds, change.real.seeds) == ((1,), (1,))


@pytest.mark.parametrize(
    ("real", "ours", "compared"),
    [
        ({"members": ["a 1", "b 1"]}, {"members": ["a 1", "b 1"]}, 2),
        ({"members": ["a 1", "b 1"]}, {"members": ["a 1"]}, 1),
        ({"weights": {"a 1": 0.7, "b 1": 0.3}}, {"weights": {"b 1": 1.0, "a 1": 0.0}}, 2),
        ({"weights": {"a 1": 0.7, "b 1": 0.3}}, {"weights": {"a 1": 1.0}}, 1),
        ({"members": 2, "verifiers": ["v"]}, {"members": 2, "verifiers": ["w"]}, 1),
        ({"verifier": "v"}, {"verifier": "w"}, 1),
    ],
)
def test_an_attacker_is_compared_with_one_of_the_same_members_only(
    made_up: MadeUp, real: dict[str, JsonValue], ours: dict[str, JsonValue], compared: int
) -> None:
    for method in (REAL, RANDOM):
        made_up.attack(method, STRONG, 1.0, seeds=(1,))
    made_up.attack(REAL, ENSEMBLE, 3.0, seeds=(1,), details=real)
    made_up.attack(RANDOM, ENSEMBLE, 1.0, seeds=(1,), details=ours)
    change = results(made_up.folder)["d-random"].changes["test"]
    assert len(change.compared) == compared
    assert (change.difference < -0.1) == (compared == 2)


def test_an_attack_that_only_the_method_met_can_only_speak_against_it(made_up: MadeUp) -> None:
    made_up.attack(REAL, STRONG, 2.5, seeds=(1,))
    made_up.attack(CORRECTED, STRONG, 0.2, seeds=(1,))
    assert results(made_up.folder)["d-corrected"].changes["test"].certain
    made_up.attack(CORRECTED, UNDONE, 2.5, seeds=(1,))
    change = results(made_up.folder)["d-corrected"].changes["test"]
    assert change.difference < -0.2
    assert change.beyond is not None
    assert change.beyond.rung == UNDONE.name
    assert not change.certain


def test_with_no_attack_in_common_there_is_no_change_and_a_reason(made_up: MadeUp) -> None:
    made_up.attack(REAL, STRONG, 2.5, seeds=(1,))
    made_up.attack(CORRECTED, STRONG, 0.2, seeds=(2,))
    found = results(made_up.folder)["d-corrected"]
    assert "test" not in found.changes
    assert "no attack with the same seed" in found.uncompared["test"]


def test_attacks_on_other_pairs_are_not_compared(made_up: MadeUp) -> None:
    made_up.attack(REAL, STRONG, 2.5)
    made_up.second = made_up.second.copy()
    made_up.second[60:] = (made_up.second[60:] + 7) % 60
    made_up.same = made_up.first == made_up.second
    made_up.attack(CORRECTED, STRONG, 0.2)
    assert "other pairs" in results(made_up.folder)["d-corrected"].uncompared["test"]


def test_a_change_is_as_uncertain_as_its_trainings(made_up: MadeUp) -> None:
    for seed, separation in ((1, 0.1), (2, 0.4), (3, 2.5)):
        made_up.attack(REAL, PAPERS_ATTACK, 1.7, seeds=(seed,), details={"epochs": 3})
        made_up.attack(CORRECTED, PAPERS_ATTACK, separation, seeds=(seed,), details={"epochs": 3})
    change = results(made_up.folder)["d-corrected"].changes["test"]
    assert change.difference < -0.1
    assert not change.certain


def test_one_training_shows_no_protection(made_up: MadeUp) -> None:
    for details, certain in (({}, True), ({"epochs": 3}, False)):
        made_up.attack(REAL, STRONG, 2.5, seeds=(1,), details={**details})
        made_up.attack(CORRECTED, STRONG, 0.1, seeds=(1,), details={**details})
        assert results(made_up.folder)["d-corrected"].changes["test"].certain == certain
    made_up.attack(REAL, STRONG, 2.5, seeds=(2,), details={"epochs": 3})
    made_up.attack(CORRECTED, STRONG, 0.1, seeds=(2,), details={"epochs": 3})
    assert results(made_up.folder)["d-corrected"].changes["test"].certain


def test_an_ensemble_of_attackers_who_trained_once_shows_no_protection(made_up: MadeUp) -> None:
    weights: dict[str, JsonValue] = {"fresh-mixed 1": 0.5, "frozen 1": 0.5}
    for times, certain in ((2, True), (1, False)):
        details: dict[str, JsonValue] = {"weights": weights, "trainings": {"fresh-mixed": times}}
        made_up.attack(REAL, STRONG, 2.5, seeds=(1,), details=details)
        made_up.attack(CORRECTED, STRONG, 0.1, seeds=(1,), details=details)
        assert results(made_up.folder)["d-corrected"].changes["test"].certain == certain


@pytest.mark.parametrize("key", ["attackers", "verifier-1", "fresh.network.pretrained"])
def test_a_weaker_attacker_of_the_same_name_is_another_one(made_up: MadeUp, key: str) -> None:
    made_up.attack(REAL, STRONG, 2.5, provenance={key: "strong"})
    made_up.attack(CORRECTED, STRONG, 0.1, provenance={key: "weak"})
    assert (
        "no attack with the same seed"
        in (results(made_up.folder)["d-corrected"].uncompared["test"])
    )
    made_up.attack(CORRECTED, STRONG, 0.1, provenance={key: "strong"})
    assert results(made_up.folder)["d-corrected"].changes["test"].certain


def test_lists_and_sets_are_kept_apart(made_up: MadeUp) -> None:
    made_up.attack(REAL, STRONG, 2.0)
    made_up.attack(REAL, STRONG, 0.2, pair_list="test_matched")
    made_up.attack(REAL, STRONG, 1.0, data="another")
    another, first = sections(gather(made_up.folder))
    assert (another.data, first.data) == ("another", "made-up")
    assert first.pair_lists == ("test", "test_matched")
    (method,) = first.methods
    assert method.strongest["test"].auc.mean > method.strongest["test_matched"].auc.mean + 0.1


def test_methods_of_equal_settings_name_their_runs(made_up: MadeUp) -> None:
    other = MethodOf(name=CORRECTED.name, settings=CORRECTED.settings, digest="d-other")
    made_up.attack(CORRECTED, STRONG, 1.0, run="attack-first")
    made_up.attack(other, STRONG, 0.5, run="attack-second")
    labels = {one.label for one in results(made_up.folder).values()}
    assert len(labels) == 2
    assert all("(attack-" in label for label in labels)


def test_one_attack_twice_is_an_error_not_a_mean(made_up: MadeUp) -> None:
    made_up.attack(REAL, STRONG, 1.0, seeds=(1,), run="attack-a")
    made_up.attack(REAL, STRONG, 2.0, seeds=(1,), run="attack-b")
    with pytest.raises(Failed, match="same"):
        sections(gather(made_up.folder))


def test_a_second_utility_of_one_method_is_an_error(made_up: MadeUp) -> None:
    made_up.utility(REAL, 0.8)
    copy = made_up.folder / "elsewhere" / "records"
    copy.mkdir(parents=True)
    first = made_up.folder / "utility-d-real" / "records"
    for file in first.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    with pytest.raises(Failed, match="utility"):
        sections(gather(made_up.folder))


def test_a_run_inside_a_run_is_part_of_it(made_up: MadeUp) -> None:
    made_up.attack(REAL, STRONG, 1.0)
    made_up.run("attack-d-real", "attack", epochs=0)
    made_up.run("attack-d-real/attempts/fresh/seed-1")
    evidence = gather(made_up.folder)
    assert [run.name for run in evidence.runs] == ["attack-d-real"]
    assert {evidence.owner(stored) for stored in evidence.records} == {"attack-d-real"}


def test_no_record_no_report(made_up: MadeUp) -> None:
    made_up.run("verifier")
    with pytest.raises(Failed, match="no record"):
        gather(made_up.folder)
    with pytest.raises(Failed, match="no folder"):
        gather(made_up.folder / "nowhere")


def test_a_damaged_record_is_an_error_not_left_out(made_up: MadeUp) -> None:
    made_up.attack(REAL, STRONG, 1.0)
    record = next(made_up.folder.glob("**/*.json"))
    record.write_text(record.read_text()[:-20])
    with pytest.raises(Failed, match=record.name):
        gather(made_up.folder)
