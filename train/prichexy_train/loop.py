"""The loop that trains every stage: epochs of steps, validation, early stopping, checkpoints.

ignite's Engine drives it. What a stage brings is a ``Task``; the loop does not know what it
learns. A run that was stopped, or killed, at any moment goes on from its last checkpoint as if
nothing had been: on a CPU with the same number of threads, bit for bit.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from ignite.engine import Engine, Events
from ignite.handlers import EarlyStopping, ProgressBar
from ignite.handlers.tensorboard_logger import TensorboardLogger
from numpy.typing import NDArray

from prichexy_train.checkpoints import kept_as, load_checkpoint, save_checkpoint
from prichexy_train.errors import Damaged, Diverged, Misconfigured
from prichexy_train.optimizers import Schedule
from prichexy_train.parallel import (
    broadcast,
    same_weights,
    share,
    synchronise_batch_norms,
    this_process,
    whether_any,
)
from prichexy_train.runs import RunFolder
from prichexy_train.settings import Training
from prichexy_train.standing import Standing
from prichexy_train.stopping import asked_to_stop
from prichexy_train.task import Moment, Task

__all__ = ["Fitted", "Moment", "Task", "fit"]

_log: Final = logging.getLogger(__name__)

#: Steps between two questions to the other processes.
_AGREE_EVERY: Final = 8
#: Of the checkpoints' form.
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Fitted:
    """How a training came out, or how far.

    ``history`` has one entry an epoch: ``epoch``, ``train`` and ``validation`` (names to means),
    ``learning_rates``, ``seconds``. ``best_epoch`` is 0 and ``best`` NaN before the first.
    """

    ended: Literal["finished", "deadline", "interrupted"]
    best_epoch: int
    best: float
    history: Sequence[Mapping[str, Any]]
    #: Spent in all starts together.
    seconds: float

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to train."""
        return self.ended == "finished"


def fit(
    task: Task,
    training: Training,
    run: RunFolder,
    *,
    deadline: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Fitted:
    """Train until the epochs are over or early stopping ends them, from wherever the run stands.

    Past ``deadline``, a value of ``clock``, or once a signal asks to stop, it writes a checkpoint
    and returns; the same call goes on from there. The networks must be on their device. On return
    they hold the last weights; the best are in ``run.best_file``.

    Raises Diverged when a mean or a measure is not finite, Damaged when the checkpoint cannot be
    read, Misconfigured when an epoch has no step.
    """
    with asked_to_stop() as asked:
        return _Loop(task, training, run, clock).go(deadline, asked.is_set)


class _Loop:
    """One call of ``fit``."""

    def __init__(
        self, task: Task, training: Training, run: RunFolder, clock: Callable[[], float]
    ) -> None:
        self._task = task
        self._training = training
        self._run = run
        self._clock = clock
        self._process = this_process()
        self._order = self._batches(1)
        self._schedule = Schedule(task.optimizers.values(), training, len(self._order), task.better)
        self._engine = Engine(self._step)
        self._early = EarlyStopping(
            patience=training.patience or training.epochs + 1,
            score_function=lambda _: self._standing.history[-1]["validation"][task.monitor],
            trainer=self._engine,
            mode="min" if task.better == "lower" else "max",
        )
        # Their remarks repeat what the lines of the epochs, and errors, say.
        for logger in (self._engine.logger, self._early.logger):
            logger.setLevel(logging.CRITICAL)
        self._standing = Standing(task.better)
        self._since = clock()
        self._saved = clock()
        self._validation_takes = 0.0
        self._ended: Literal["finished", "deadline", "interrupted"] = "finished"
        for network in task.networks.values():
            synchronise_batch_norms(network)

    def go(self, deadline: float | None, asked: Callable[[], bool]) -> Fitted:
        self._deadline = math.inf if deadline is None else deadline
        self._asked = asked
        if self._run.checkpoint_file.exists():
            self._load()
        same_weights(self._task.networks.values())
        engine = self._engine
        engine.load_state_dict(
            {
                "iteration": self._standing.iteration,
                "epoch_length": len(self._order),
                "max_epochs": self._training.epochs,
            }
        )
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin_epoch)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._look_up)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._end_epoch)
        board = self._show()
        try:
            if self._unvalidated():
                engine.fire_event(Events.EPOCH_COMPLETED)
            if not self._over() and self._ended == "finished":
                engine.run()
        finally:
            if board is not None:
                board.close()
        standing = self._standing
        return Fitted(
            self._ended,
            standing.best_epoch,
            standing.best,
            tuple(standing.history),
            self._spent(),
        )

    def _batches(self, epoch: int) -> Sequence[NDArray[np.int64]]:
        order = self._task.batches(epoch)[: self._training.steps_per_epoch]
        if not order:
            raise Misconfigured("an epoch has no step: fewer images or pairs than one batch")
        return order

    def _begin_epoch(self, engine: Engine) -> None:
        order = self._batches(engine.state.epoch)
        if len(order) != len(self._order):
            raise ValueError(f"epoch {engine.state.epoch} has another number of steps")
        self._order = order

    def _step(self, engine: Engine, _: None) -> None:
        iteration = engine.state.iteration
        rows = share(self._order[(iteration - 1) % len(self._order)], self._process)
        self._standing.iteration = iteration
        if not len(rows):
            return
        self._schedule.before(iteration)
        moment = Moment(
            seed=self._training.seed,
            epoch=engine.state.epoch,
            iteration=iteration,
            rank=self._process.rank,
            world=self._process.world,
        )
        self._standing.add(self._task.step(rows, moment), len(rows))

    def _look_up(self, engine: Engine) -> None:
        """See whether it is time to stop or to save."""
        # Asking the other processes costs a message, so not after each step.
        iteration = self._standing.iteration
        last = iteration % len(self._order) == 0
        if self._process.world > 1 and iteration % _AGREE_EVERY and not last:
            return
        now = self._clock()
        # A validation that would not end in time is left to the next start, which begins with it.
        late = now + (self._validation_takes if last else 0.0) >= self._deadline
        old = now - self._saved >= self._training.checkpoint_seconds
        asked, late, old = whether_any((self._asked(), late, old))
        if asked or late:
            self._ended = "interrupted" if asked else "deadline"
            self._save()
            engine.terminate()
        elif old and not last:
            self._save()

    def _end_epoch(self, engine: Engine) -> None:
        task, standing = self._task, self._standing
        epoch = standing.iteration // len(self._order)
        train = standing.means()
        began = self._clock()
        # The first process's measures count: no two may disagree about when to stop.
        measures: dict[str, float] = broadcast(dict(task.validate()))
        self._validation_takes = self._clock() - began
        for name, value in (*train.items(), *measures.items()):
            if not math.isfinite(value):
                raise Diverged(f"{self._run.path}: epoch {epoch}: {name} is {value}; stopped")
        entry: dict[str, Any] = {
            "epoch": epoch,
            "train": train,
            "validation": measures,
            "learning_rates": {
                name: optimizer.param_groups[0]["lr"] for name, optimizer in task.optimizers.items()
            },
            "seconds": round(self._spent(), 2),
        }
        engine.state.metrics = {
            f"{part} {name}": value
            for part in ("train", "validation")
            for name, value in entry[part].items()
        }
        monitored = measures[task.monitor]
        best = standing.close(entry, monitored)
        if best and self._process.first:
            weights = {
                name: kept_as(self._training.kept, network.state_dict())
                for name, network in task.networks.items()
            }
            self._run.save_best(weights, epoch=epoch, monitor=task.monitor, value=monitored)
        self._schedule.after(monitored)
        task.end_epoch(epoch, measures)
        self._early(engine)
        self._save()
        _log.info("%s", _line(entry, best=best))
        if self._over():
            return
        asked, late = whether_any((self._asked(), self._clock() >= self._deadline))
        if asked or late:
            self._ended = "interrupted" if asked else "deadline"
            engine.terminate()

    def _over(self) -> bool:
        """Whether nothing is left to train; only between two epochs."""
        patience = self._training.patience
        return self._standing.iteration >= len(self._order) * self._training.epochs or (
            patience is not None and self._early.counter >= patience
        )

    def _unvalidated(self) -> bool:
        """Whether the run was stopped between the last step of an epoch and its validation."""
        return self._standing.iteration // len(self._order) > len(self._standing.history)

    def _spent(self) -> float:
        return self._standing.seconds + self._clock() - self._since

    def _save(self) -> None:
        standing = self._standing.state_dict()
        self._saved = self._clock()
        if not self._process.first:
            return
        task = self._task
        save_checkpoint(
            self._run.checkpoint_file,
            {
                "version": _VERSION,
                "steps_per_epoch": len(self._order),
                "networks": {name: net.state_dict() for name, net in task.networks.items()},
                "optimizers": {name: one.state_dict() for name, one in task.optimizers.items()},
                "task": task.extra_state(),
                "schedule": self._schedule.state_dict(),
                "early_stopping": dict(self._early.state_dict()),
                "standing": standing,
                "seconds": self._spent(),
            },
        )
        self._run.write_history(self._standing.history)
        self._saved = self._clock()

    def _load(self) -> None:
        path = self._run.checkpoint_file
        state = load_checkpoint(path)
        if state.get("version") != _VERSION:
            raise Damaged(f"{path}: was written by another version; use another --run folder")
        if state["steps_per_epoch"] != len(self._order):
            raise Damaged(f"{path}: its epochs have another number of steps")
        task = self._task
        try:
            for name, network in task.networks.items():
                network.load_state_dict(state["networks"][name])
            for name, optimizer in task.optimizers.items():
                optimizer.load_state_dict(state["optimizers"][name])
        except (KeyError, RuntimeError, ValueError) as error:
            raise Damaged(f"{path}: does not fit these networks: {error}") from error
        task.load_extra_state(state["task"])
        self._schedule.load_state_dict(state["schedule"])
        self._early.load_state_dict(state["early_stopping"])
        self._standing.load_state_dict(state["standing"], self._process)
        self._standing.seconds = state["seconds"]
        if self._process.first:
            self._run.write_history(self._standing.history)

    def _show(self) -> TensorboardLogger | None:
        """Show progress, on the first process: a bar on a terminal, curves for TensorBoard."""
        if not self._process.first:
            return None
        ProgressBar(persist=False, disable=None).attach(self._engine)
        board = TensorboardLogger(
            log_dir=str(self._run.tensorboard), purge_step=len(self._standing.history) + 1
        )
        board.attach_output_handler(
            self._engine, Events.EPOCH_COMPLETED, tag="epoch", metric_names="all"
        )
        return board


def _line(entry: Mapping[str, Any], *, best: bool) -> str:
    values = [
        f"{part} {name} {value:.4g}"
        for part in ("train", "validation")
        for name, value in entry[part].items()
    ]
    return f"epoch {entry['epoch']}: {', '.join(values)}{' (best)' if best else ''}"
