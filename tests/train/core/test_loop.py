"""The loop: what it promises about epochs, stopping, going on, and the best epoch."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from prichexy_testing.training import Killed, LineTask, Ticks, fit_line, losses, training
from prichexy_train.checkpoints import load_checkpoint
from prichexy_train.errors import Damaged, Diverged, Misconfigured
from prichexy_train.loop import Moment, fit
from prichexy_train.runs import RunFolder, load_best


def test_a_run_ends_after_its_epochs_with_the_last_weights_and_a_history(tmp_path: Path) -> None:
    fitted, task = fit_line(tmp_path)

    assert fitted.finished
    assert [entry["epoch"] for entry in fitted.history] == [1, 2, 3, 4]
    assert fitted.best == min(entry["validation"]["loss"] for entry in fitted.history)
    assert task.iterations == list(range(1, 21))
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    assert losses([json.loads(line) for line in lines]) == losses(fitted.history)


def test_means_of_an_epoch_weigh_every_row_alike(tmp_path: Path) -> None:
    # Batches of 40 and 10: the mean of "rows" is (40 · 40 + 10 · 10) / 50.
    fitted, _ = fit_line(tmp_path, training(batch_size=40, epochs=1))

    assert fitted.history[0]["train"]["rows"] == pytest.approx(34)


@pytest.mark.parametrize("iteration", [1, 2, 7, 10, 11, 20])
def test_a_killed_run_goes_on_with_the_very_losses_and_weights(
    tmp_path: Path, iteration: int
) -> None:
    settings = training(checkpoint_seconds=1e-9, optimizer="adamw", schedule="cosine")
    whole, straight = fit_line(tmp_path / "whole", settings)

    with pytest.raises(Killed):
        fit_line(tmp_path / "killed", settings, die_at=iteration)
    resumed, task = fit_line(tmp_path / "killed", settings)

    assert task.iterations[:1] == [iteration]  # the last checkpoint was one step before
    assert losses(resumed.history) == losses(whole.history)
    for name, value in straight.network.state_dict().items():
        assert torch.equal(task.network.state_dict()[name], value), name
    assert task.epochs_ended == [1, 2, 3, 4]
    assert load_checkpoint(tmp_path / "killed" / "best.pt")["epoch"] == whole.best_epoch


def test_between_two_checkpoints_steps_are_repeated_not_lost(tmp_path: Path) -> None:
    whole, _ = fit_line(tmp_path / "whole")

    with pytest.raises(Killed):
        fit_line(tmp_path / "killed", die_at=9)
    resumed, task = fit_line(tmp_path / "killed")

    assert task.iterations[0] == 6  # after the first epoch
    assert losses(resumed.history) == losses(whole.history)


def test_a_deadline_stops_each_start_and_the_last_one_finishes(tmp_path: Path) -> None:
    whole, _ = fit_line(tmp_path / "whole")

    starts = 0
    while True:
        fitted, task = fit_line(tmp_path / "sliced", clock=Ticks(), deadline=12)
        starts += 1
        if fitted.finished:
            break
        assert fitted.ended == "deadline"
        assert task.iterations, "a start without progress would never end"
    assert starts > 2
    assert losses(fitted.history) == losses(whole.history)


def test_a_start_that_is_over_before_it_begins_still_moves_on(tmp_path: Path) -> None:
    whole, _ = fit_line(tmp_path / "whole", training(epochs=1))

    for _ in range(6):
        fitted, _ = fit_line(tmp_path / "sliced", training(epochs=1), deadline=-1.0)

    assert fitted.finished
    assert losses(fitted.history) == losses(whole.history)


def test_a_validation_that_would_not_end_in_time_is_left_to_the_next_start(tmp_path: Path) -> None:
    fitted, task = fit_line(tmp_path, training(epochs=2), deadline=-1.0)
    while task.iterations != [5]:
        fitted, task = fit_line(tmp_path, training(epochs=2), deadline=-1.0)
    assert fitted.history == ()

    fitted, task = fit_line(tmp_path, training(epochs=2))

    assert task.iterations == [6, 7, 8, 9, 10]
    assert losses(fitted.history) == losses(fit_line(tmp_path / "w", training(epochs=2))[0].history)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_ends_after_the_step(
    tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = LineTask.step

    def step_and_signal(self: LineTask, rows: Any, moment: Moment) -> Any:
        if moment.iteration == 3:
            os.kill(os.getpid(), number)
        return step(self, rows, moment)

    before = signal.getsignal(number)
    with monkeypatch.context() as patched:
        patched.setattr(LineTask, "step", step_and_signal)
        fitted, task = fit_line(tmp_path)
    assert fitted.ended == "interrupted"
    assert task.iterations == [1, 2, 3]
    assert signal.getsignal(number) == before

    resumed, task = fit_line(tmp_path)
    assert resumed.finished
    assert task.iterations[0] == 4


def test_a_second_signal_breaks_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(self: LineTask, rows: Any, moment: Moment) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        return {}

    monkeypatch.setattr(LineTask, "step", step)
    with pytest.raises(KeyboardInterrupt):
        fit_line(tmp_path)


def test_patience_counts_epochs_without_a_better_validation(tmp_path: Path) -> None:
    values = {1: 3.0, 2: 2.0, 3: 2.5, 4: 2.0, 5: 1.0}

    fitted, _ = fit_line(
        tmp_path,
        training(epochs=9, patience=2),
        validation=lambda epoch, _: values[epoch],
    )

    assert len(fitted.history) == 4  # 2.0 again is not better
    assert (fitted.best_epoch, fitted.best) == (2, 2.0)
    assert fitted.finished


def test_a_run_that_early_stopping_ended_is_not_trained_on(tmp_path: Path) -> None:
    settings = training(epochs=9, patience=1)
    first, _ = fit_line(tmp_path, settings, validation=lambda epoch, _: float(epoch))

    again, task = fit_line(tmp_path, settings, validation=lambda epoch, _: float(epoch))

    assert task.iterations == []
    assert losses(again.history) == losses(first.history)
    assert again.finished


def test_best_holds_the_networks_of_the_best_epoch(tmp_path: Path) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    task = LineTask(training(), validation=lambda epoch, _: [4.0, 1.0, 2.0, 3.0][epoch - 1])
    end = task.end_epoch
    task.end_epoch = lambda epoch, measures: (  # type: ignore[method-assign]
        seen.append({k: v.clone() for k, v in task.network.state_dict().items()}),
        end(epoch, measures),
    )[1]

    fitted = fit(task, training(), RunFolder(tmp_path))

    best = load_best(tmp_path, "line")
    assert fitted.best_epoch == 2
    assert all(torch.equal(best[name], value) for name, value in seen[1].items())
    assert not all(torch.equal(best[name], value) for name, value in seen[3].items())


def test_the_best_weights_may_be_kept_in_half_precision_and_training_knows_nothing_of_it(
    tmp_path: Path,
) -> None:
    whole, straight = fit_line(tmp_path / "whole")
    halved, task = fit_line(tmp_path / "halved", training(kept="float16"))
    assert losses(halved.history) == losses(whole.history)
    ended, expected = (one.network.state_dict() for one in (task, straight))
    assert all(torch.equal(ended[name], value) for name, value in expected.items())
    best, kept = (load_best(tmp_path / name, "line") for name in ("whole", "halved"))
    for name, value in best.items():
        half = value.half() if value.is_floating_point() else value
        assert kept[name].dtype == half.dtype
        assert torch.equal(kept[name], half)
    task.network.load_state_dict(kept)
    dtypes = {name: value.dtype for name, value in task.network.state_dict().items()}
    assert dtypes == {name: value.dtype for name, value in best.items()}


def test_higher_may_be_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LineTask, "better", "higher")

    fitted, _ = fit_line(
        tmp_path,
        training(patience=1),
        validation=lambda epoch, _: [0.5, 0.9, 0.8, 1.0][epoch - 1],
    )

    assert (fitted.best_epoch, fitted.best, len(fitted.history)) == (2, 0.9, 3)


def test_a_measure_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="epoch 1: loss is nan"):
        fit_line(tmp_path, validation=lambda *_: math.nan)


def test_a_damaged_checkpoint_is_named_and_nothing_is_trained(tmp_path: Path) -> None:
    fit_line(tmp_path, training(epochs=1))
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(Damaged, match=r"checkpoint\.pt: is damaged"):
        fit_line(tmp_path, training(epochs=2))


def test_steps_an_epoch_can_be_limited(tmp_path: Path) -> None:
    _, task = fit_line(tmp_path, training(steps_per_epoch=1))

    assert len(task.iterations) == 4


def test_a_checkpoint_of_other_epochs_is_refused(tmp_path: Path) -> None:
    fit_line(tmp_path, training(epochs=1))

    with pytest.raises(Damaged, match="another number of steps"):
        fit_line(tmp_path, training(epochs=2, steps_per_epoch=2))


def test_an_epoch_without_a_step_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LineTask, "batches", lambda *_: [])

    with pytest.raises(Misconfigured, match="no step"):
        fit_line(tmp_path)


def test_randomness_of_a_step_depends_on_its_moment_and_purpose_and_not_on_the_process() -> None:
    moment = Moment(seed=1, epoch=1, iteration=1, rank=0, world=2)
    others = [Moment(2, 1, 1, 0, 2), Moment(1, 2, 1, 0, 2), Moment(1, 1, 2, 0, 2)]

    def first(moment: Moment, purpose: str) -> int:
        return int(torch.randint(2**62, (1,), generator=moment.common_generator(purpose)))

    assert first(moment, "a") == first(moment, "a")
    assert len({first(moment, "a"), first(moment, "b"), *(first(o, "a") for o in others)}) == 5
    assert (
        first(moment, "a") == first(Moment(1, 1, 1, 1, 2), "a") == first(Moment(1, 1, 1, 0, 1), "a")
    )


def test_curves_are_written_for_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit_line(tmp_path)

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("epoch/validation loss")] == [1, 2, 3, 4]
