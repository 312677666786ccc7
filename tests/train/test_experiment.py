"""An experiment's file becomes steps, and its folders tell how far it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from prichexy_train.errors import Failed, InUse, Misconfigured
from prichexy_train.experiment import Experiment, Places, Step, steps_of
from prichexy_train.progress import Ended, Outcome, Progress

TWO_METHODS = {
    "name": "small",
    "title": "A small one",
    "sets": {"one": {"config": "one.toml"}},
    "train": {
        # Before what it uses: the file's order is no promise.
        "generator": {
            "stage": "anonymizer",
            "config": "anonymizer.toml",
            "change": {"anonymizer": {"mu": 0.01}},
            "uses": {"critics.verifiers": ["verifier"], "critics.classifier": "classifier"},
        },
        "verifier": {"stage": "verifier", "config": "verifier.toml"},
        "classifier": {"stage": "classifier", "config": "classifier.toml"},
    },
    "method": {
        "real": {"method": "real"},
        "prichexy": {"method": "run:generator", "change": {"rungs": [1, 3]}},
    },
    "attack": {"config": "attack.toml", "verifiers": ["verifier"]},
    "utility": {"config": "utility.toml", "classifier": "classifier"},
}


class Recorder:
    """Performs steps by writing the files that tell of them."""

    def __init__(self) -> None:
        self.performed: list[str] = []
        self.changed: dict[str, Any] = {}
        self.ends: dict[str, Ended] = {}
        self.fails: dict[str, Exception] = {}

    def settings(self, step: Step) -> Mapping[str, Any]:
        return {"changes": step.changes, "more": self.changed.get(step.name)}

    def perform(self, step: Step, deadline: float | None) -> Ended:
        self.performed.append(step.name)
        if step.name in self.fails:
            raise self.fails[step.name]
        step.folder.mkdir(parents=True, exist_ok=True)
        (step.folder / "settings.toml").write_text("")
        if (ended := self.ends.get(step.name, "finished")) != "finished":
            return ended
        if step.stage == "prepare":
            about = {"digest": "of the data", "settings": self.settings(step)}
            (step.folder / "prepared.json").write_text(json.dumps(about))
        elif step.stage != "report":
            (step.folder / "result.json").write_text(json.dumps({"of": step.name}))
        if step.anonymised:
            step.anonymised.mkdir(parents=True, exist_ok=True)
        return "finished"


def places(folder: Path, **others: Any) -> Places:
    return Places(
        config=folder / "configs" / "small.toml",
        data=folder / "data",
        runs=folder / "runs",
        report=folder / "report",
        **{"sources": {}, **others},
    )


def experiment(**changes: Any) -> Experiment:
    return Experiment.model_validate({**TWO_METHODS, **changes})


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def progress(tmp_path: Path, recorder: Recorder) -> Progress:
    steps = steps_of(experiment(), places(tmp_path))
    return Progress(steps, recorder, tell=lambda _: None)


def test_each_step_comes_after_those_that_it_needs(tmp_path: Path) -> None:
    steps = steps_of(experiment(), places(tmp_path))
    assert [step.name for step in steps] == [
        "prepare-one",
        # Whole rows, the file's first one first: each has its trainings just before it.
        "verifier",
        "attack-real",
        "classifier",
        "utility-real",
        "generator",
        "attack-prichexy",
        "utility-prichexy",
        "report",
    ]
    before: set[str] = set()
    for step in steps:
        assert set(step.needs) <= before
        before.add(step.name)


def test_a_step_is_told_what_its_subcommand_would_be_told(tmp_path: Path) -> None:
    steps = {step.name: step for step in steps_of(experiment(), places(tmp_path))}
    runs = tmp_path / "runs"
    generator = steps["generator"]
    assert generator.config == tmp_path / "configs" / "anonymizer.toml"
    assert generator.folder == runs / "generator"
    assert generator.data == (tmp_path / "data" / "one",)
    assert "anonymizer.mu=0.01" in generator.changes
    assert f'critics.verifiers=["{runs / "verifier"}"]' in generator.changes
    assert f'critics.classifier="{runs / "classifier"}"' in generator.changes
    attack = steps["attack-prichexy"]
    assert attack.method == f"run:{runs / 'generator'}"
    assert attack.verifiers == (runs / "verifier",)
    assert attack.changes == ("rungs=[1, 3]",)
    assert attack.anonymised == steps["utility-prichexy"].anonymised
    assert steps["utility-prichexy"].classifier == runs / "classifier"


CURVE = {
    "of": "verifier",
    "change": {"training": {"epochs": 40}},
    "shares": [0.25, 1.0],
    "variants": {
        "larger": {"change": {"network": {"size": 224}}},
        "one-set": {"data": ["one"]},
    },
}


def test_a_curve_is_a_training_and_a_trial_for_each_share_and_variant(tmp_path: Path) -> None:
    both = {"one": {"config": "one.toml"}, "two": {"config": "two.toml"}}
    whole = experiment(sets=both, tested=[["one", "two"]], curve=CURVE)
    steps = {step.name: step for step in steps_of(whole, places(tmp_path))}
    names = ["curve-0.25", "curve-1", "curve-larger", "curve-one-set"]
    added = [*names, *(f"trial-{name}" for name in names)]
    assert [*steps][-9:] == [*added, "report"]
    assert set(added[4:]) < set(steps["report"].needs)
    data, runs = tmp_path / "data", tmp_path / "runs"
    for name in names:
        assert steps[name].stage == "verifier"
        assert steps[name].config == steps["verifier"].config
        trial = steps[f"trial-{name}"]
        assert trial.stage == "trial"
        assert trial.verifiers == (runs / name,)
        assert trial.data == (data / "one", data / "two")
        assert name in trial.needs
    assert steps["curve-0.25"].changes == ("training.epochs=40", "share_of_patients=0.25")
    assert steps["curve-1"].changes == ("training.epochs=40",)
    assert steps["curve-larger"].changes == ("training.epochs=40", "network.size=224")
    assert steps["curve-one-set"].data == (data / "one",)
    # The strong verifiers of the attacks are those they were.
    assert steps["attack-real"].verifiers == (runs / "verifier",)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"of": "nobody"}, "curve.of: there is no training nobody"),
        ({"of": "classifier"}, "no training of a verifier"),
        ({"shares": [0.5]}, "up to 1.0"),
        ({"shares": [1.0, 0.5]}, "ascending"),
        ({"shares": [0.0, 1.0]}, "greater than 0"),
        ({"variants": {"0.25": {}}}, "0.25 is a share's name"),
        ({"variants": {"x": {"data": ["three"]}}}, "no set three"),
    ],
)
def test_a_curve_that_cannot_be_drawn_is_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        experiment(curve={**CURVE, "variants": {}, **changes})


def test_the_curves_names_are_its_own() -> None:
    train = {**TWO_METHODS["train"], "curve-1": TWO_METHODS["train"]["verifier"]}  # type: ignore[index, dict-item]
    with pytest.raises(ValidationError, match="curve-…"):
        experiment(train=train, curve=CURVE | {"variants": {}})


def test_two_sets_are_learned_from_together_and_tested_each_alone(tmp_path: Path) -> None:
    both = {"one": {"config": "one.toml"}, "two": {"config": "two.toml"}}
    steps = {step.name: step for step in steps_of(experiment(sets=both), places(tmp_path))}
    data = tmp_path / "data"
    assert steps["verifier"].data == (data / "one", data / "two")
    assert steps["attack-real-on-one"].data == (data / "one",)
    assert steps["attack-real-on-two"].data == (data / "two",)
    assert "attack-real" not in steps


def test_the_only_set_may_be_given_itself(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "prepared.json").write_text("{}")
    steps = {step.name: step for step in steps_of(experiment(), places(tmp_path))}
    assert steps["verifier"].data == (data,)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"examples": ["three"]}, "no set three"),
        ({"attack": {"config": "a.toml", "verifiers": ["none"]}}, "no training none"),
        ({"method": {"lost": {"method": "run:nowhere"}}}, "no training nowhere"),
        ({"utility": {"config": "u.toml"}}, "utility.classifier"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_name_that_stands_for_nothing_is_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        experiment(**changes)


def test_settings_that_cannot_be_read_are_told_before_anything_is_done(
    progress: Progress, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def settings(step: Step) -> Mapping[str, Any]:
        if step.name == "attack-prichexy":
            raise Misconfigured("fresh.network.pretrained: must be given")
        return {}

    monkeypatch.setattr(recorder, "settings", settings)
    with pytest.raises(Misconfigured, match=r"step attack-prichexy: fresh\.network\.pretrained"):
        progress.carry_on(None)
    assert recorder.performed == []


def test_trainings_that_need_each_other_are_refused(tmp_path: Path) -> None:
    train = {
        "a": {"stage": "pretrain", "config": "a.toml", "uses": {"start": "b"}},
        "b": {"stage": "pretrain", "config": "b.toml", "uses": {"start": "a"}},
    }
    method = {"real": {"method": "real"}}
    utility = {"config": "u.toml", "classifier": "a"}
    attack = {"config": "a.toml"}
    whole = experiment(train=train, method=method, utility=utility, attack=attack)
    with pytest.raises(Misconfigured, match="a uses b uses a"):
        steps_of(whole, places(tmp_path))


def test_a_source_of_no_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="two"):
        steps_of(experiment(), places(tmp_path, sources={"two": tmp_path}))


def test_everything_is_done_once_and_the_report_each_time(
    progress: Progress, recorder: Recorder
) -> None:
    assert progress.carry_on(None) == Outcome("finished")
    assert recorder.performed == [step.name for step in progress.steps]
    recorder.performed.clear()
    assert progress.carry_on(None) == Outcome("finished")
    assert recorder.performed == ["report"]


def test_what_was_begun_goes_on_where_it_stopped(progress: Progress, recorder: Recorder) -> None:
    recorder.ends["generator"] = "deadline"
    assert progress.carry_on(None) == Outcome("deadline", "generator")
    assert {step.name: progress.state(step) for step in progress.steps} == {
        "prepare-one": "finished",
        "verifier": "finished",
        "classifier": "finished",
        "attack-real": "finished",
        "utility-real": "finished",
        "generator": "begun",
        "attack-prichexy": "to do",
        "utility-prichexy": "to do",
        "report": "to do",
    }
    recorder.ends.clear()
    recorder.performed.clear()
    assert progress.carry_on(None).ended == "finished"
    assert recorder.performed[0] == "generator"


def test_nothing_is_begun_past_the_deadline(tmp_path: Path, recorder: Recorder) -> None:
    now = iter(range(100))
    progress = Progress(
        steps_of(experiment(), places(tmp_path)),
        recorder,
        tell=lambda _: None,
        clock=lambda: float(next(now)),
    )
    assert progress.carry_on(2.0) == Outcome("deadline", "attack-real")
    assert recorder.performed == ["prepare-one", "verifier"]


def test_other_settings_are_put_before_the_stage_again(
    progress: Progress, recorder: Recorder
) -> None:
    progress.carry_on(None)
    recorder.performed.clear()
    recorder.changed["attack-prichexy"] = "one more rung"
    steps = {step.name: step for step in progress.steps}
    assert progress.state(steps["attack-prichexy"]) == "again"
    assert progress.state(steps["attack-real"]) == "finished"
    progress.carry_on(None)
    assert recorder.performed == ["attack-prichexy", "report"]


def test_a_set_that_was_prepared_otherwise_is_not_taken_for_this_one(
    progress: Progress, recorder: Recorder
) -> None:
    progress.carry_on(None)
    recorder.changed["prepare-one"] = "another size"
    assert progress.state(progress.steps[0]) == "again"


def test_what_rests_on_a_run_that_was_made_anew_is_not_finished(
    progress: Progress, recorder: Recorder
) -> None:
    progress.carry_on(None)
    steps = {step.name: step for step in progress.steps}
    (steps["generator"].folder / "best.pt").write_bytes(b"other weights")
    recorder.changed["generator"] = "trained again"
    recorder.performed.clear()
    progress.carry_on(None)
    assert recorder.performed == ["generator", "attack-prichexy", "utility-prichexy", "report"]


def test_a_run_that_another_command_finished_counts(progress: Progress, recorder: Recorder) -> None:
    steps = {step.name: step for step in progress.steps}
    recorder.perform(steps["verifier"], None)
    assert progress.state(steps["verifier"]) == "again"  # the stage itself will compare
    progress.carry_on(None)
    assert progress.state(steps["verifier"]) == "finished"


def test_a_failed_step_is_named_with_its_cause(progress: Progress, recorder: Recorder) -> None:
    recorder.fails["classifier"] = Failed("no label has enough images")
    with pytest.raises(Failed, match="step classifier: no label has enough images"):
        progress.carry_on(None)
    recorder.fails["classifier"] = Misconfigured("epochs: is no number")
    with pytest.raises(Misconfigured, match="step classifier: epochs"):
        progress.carry_on(None)


def test_several_processes_share_the_steps(tmp_path: Path, recorder: Recorder) -> None:
    told: list[str] = []
    steps = steps_of(experiment(), places(tmp_path))
    recorder.fails["verifier"] = InUse("another process works in this run folder")

    def finished_by_the_other() -> None:
        recorder.fails.pop("verifier", None)
        other = Recorder()
        other.perform(next(step for step in steps if step.name == "verifier"), None)

    progress = Progress(steps, recorder, tell=told.append, wait=finished_by_the_other)
    assert progress.carry_on(None) == Outcome("finished")
    assert recorder.performed[:3] == ["prepare-one", "verifier", "classifier"]
    assert recorder.performed[3:6] == ["utility-real", "verifier", "attack-real"]
    assert "[2/9] verifier: another process is at it" in told
    assert sum("another process" in line for line in told) == 1
    assert sorted(set(recorder.performed)) == sorted(step.name for step in steps)


def test_what_another_process_left_unfinished_is_taken_over(
    tmp_path: Path, recorder: Recorder
) -> None:
    steps = steps_of(experiment(), places(tmp_path))
    recorder.fails["verifier"] = InUse("another process works in this run folder")
    looked: list[bool] = []

    def ended() -> None:
        looked.append(True)
        if len(looked) == 3:
            del recorder.fails["verifier"]

    progress = Progress(steps, recorder, tell=lambda _: None, wait=ended)
    assert progress.carry_on(None) == Outcome("finished")
    assert len(looked) == 3
    assert progress.state(steps[1]) == "finished"


def test_an_error_nobody_foresaw_keeps_its_class_and_names_the_step(
    progress: Progress, recorder: Recorder
) -> None:
    recorder.fails["classifier"] = ZeroDivisionError("by zero")
    with pytest.raises(ZeroDivisionError) as caught:
        progress.carry_on(None)
    assert caught.value.__notes__ == ["in step classifier of the experiment"]


def test_anonymised_images_go_when_both_who_use_them_are_done(
    tmp_path: Path, recorder: Recorder
) -> None:
    steps = steps_of(experiment(), places(tmp_path))
    folders = frozenset(step.anonymised for step in steps if step.anonymised)
    kept = Progress(steps, recorder, tell=lambda _: None)
    recorder.ends["utility-prichexy"] = "deadline"
    progress = Progress(steps, recorder, tell=lambda _: None, spare=folders)
    progress.carry_on(None)
    images = tmp_path / "runs" / "anonymised"
    assert [folder.name for folder in images.iterdir()] == ["prichexy"]
    recorder.ends.clear()
    progress.carry_on(None)
    assert list(images.iterdir()) == []
    assert all(kept.state(step) == "finished" for step in steps if step.stage != "report")
