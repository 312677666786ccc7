"""Where an experiment stands, read from its folders, and carrying on with it from there.

A step is finished when its run folder says so and was made from what it would be made from now:
the same settings, the same data, the same runs before it. All else is begun, or taken up again,
and the stage itself refuses what does not fit together. Several processes may carry on with one
experiment: each step's folder is locked, and who finds it so does another one.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from prichexy_train.checkpoints import write_whole
from prichexy_train.data.prepared import PREPARED
from prichexy_train.errors import Failed, InUse, Misconfigured
from prichexy_train.experiment import Step
from prichexy_train.runs import RunFolder
from prichexy_train.settings import flat

__all__ = ["Ended", "Outcome", "Performer", "Progress", "State"]

Ended = Literal["finished", "deadline", "interrupted"]

#: "finished": nothing to do. "begun": to be taken up. "to do": not begun. "again": has a result,
#: of other settings, data or runs before it, or one that nobody has compared yet.
State = Literal["finished", "begun", "to do", "again"]

#: Beside a run's result: what the step was made from, and a digest of what came of it.
_MARK: Final = "step.json"
#: Seconds between two looks at what another process is at.
_LOOK_AGAIN: Final = 1.0


class Performer(Protocol):
    """What carries out a step; the one for real is ``performing.Stages``."""

    def settings(self, step: Step) -> Mapping[str, Any]:
        """Give the settings that a step's result depends on. Raises Misconfigured."""
        ...

    def perform(self, step: Step, deadline: float | None) -> Ended:
        """Do the step, from wherever its folder stands, until the deadline.

        Raises Failed, or a class that the command line does not expect.
        """
        ...


@dataclass(frozen=True)
class Outcome:
    """How a call ended: with which step, when it was not the last."""

    ended: Ended
    step: str = ""


@dataclass
class Progress:
    """The steps of an experiment, and how far they are.

    ``tell`` is given a line for each step. ``spare`` holds folders that may be removed once all
    steps that use them are finished. ``wait`` passes the time until another process may have
    finished what is needed.
    """

    steps: Sequence[Step]
    performer: Performer
    tell: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    spare: frozenset[Path] = frozenset()
    wait: Callable[[], None] = lambda: time.sleep(_LOOK_AGAIN)
    _known: dict[str, Step] = field(init=False)

    def __post_init__(self) -> None:
        self._known = {step.name: step for step in self.steps}

    def state(self, step: Step) -> State:
        """Give where a step stands. Raises Misconfigured when its settings cannot be read."""
        if step.stage == "report":
            return "to do"
        if step.stage == "prepare":
            about = _read(step.folder / PREPARED)
            if not about:
                return "to do"
            before, now = flat(about.get("settings", {})), dict(self.performer.settings(step))
            return "finished" if _text(before) == _text(now) else "again"
        run = RunFolder(step.folder)
        if not run.finished:
            return "begun" if run.settings_file.is_file() else "to do"
        made_from = self._made_from(step)
        mark = _read(step.folder / _MARK)
        return "finished" if made_from and mark.get("made_from") == made_from else "again"

    def carry_on(self, deadline: float | None) -> Outcome:
        """Do what is not finished, step by step, until the end or the deadline.

        A step that another process is at is left to it, with all that rests on it; when nothing
        else is left, it is waited for, and taken over where that process ended before the step.
        Raises Failed, naming the step and the cause, when one fails, and Misconfigured before
        anything is done when the settings of any cannot be read. An error that nobody foresaw goes
        through, with a note of the step.
        """
        self._check()
        others_at: set[str] = set()
        left = list(self.steps)
        while left:
            again: list[Step] = []
            for step in left:
                if {one.name for one in again} & set(step.needs):
                    again.append(step)
                    continue
                ended = self._carry_out(step, deadline, others_at)
                if ended == "in use":
                    again.append(step)
                elif ended != "finished":
                    return Outcome(ended, step.name)
            left = again
            if left:
                self.wait()
        return Outcome("finished")

    def _carry_out(
        self, step: Step, deadline: float | None, others_at: set[str]
    ) -> Ended | Literal["in use"]:
        """Do one step, if need be; ``others_at`` are those that other processes were at."""
        place = f"[{self.steps.index(step) + 1}/{len(self.steps)}] {step.name}"
        if step.name in others_at and self.state(step) == "again":
            self.wait()  # its result is there, and who made it is about to mark it as done
        if self.state(step) == "finished":
            how = "finished by another process" if step.name in others_at else "finished before"
            self.tell(f"{place}: {how}")
            self._clear(step)
            return "finished"
        if deadline is not None and self.clock() >= deadline:
            return "deadline"
        if step.name not in others_at:
            self.tell(f"{place}: {step.stage}")
        ended = self._perform(step, deadline)
        if ended == "finished":
            self._mark(step)
            self._clear(step)
        elif ended == "in use" and step.name not in others_at:
            self.tell(f"{place}: another process is at it")
            others_at.add(step.name)
        return ended

    def _check(self) -> None:
        """Read all settings: what is wrong with the last step's need not wait for the others."""
        for step in self.steps:
            if step.stage == "report":
                continue
            try:
                self.performer.settings(step)
            except Misconfigured as error:
                raise Misconfigured(f"step {step.name}: {error}") from error

    def _perform(self, step: Step, deadline: float | None) -> Ended | Literal["in use"]:
        try:
            return self.performer.perform(step, deadline)
        except InUse:
            return "in use"
        except Misconfigured as error:
            raise Misconfigured(f"step {step.name}: {error}") from error
        except Failed as error:
            raise Failed(f"step {step.name}: {error}") from error
        except Exception as error:
            error.add_note(f"in step {step.name} of the experiment")
            raise

    def _mark(self, step: Step) -> None:
        if step.stage in {"prepare", "report"}:
            return
        mark = {"made_from": self._made_from(step), "product": _product(step)}
        write_whole(step.folder / _MARK, (json.dumps(mark, indent=2) + "\n").encode())

    def _made_from(self, step: Step) -> str | None:
        """Give a digest of all that a step's result depends on; None while that is not there."""
        products = {}
        for name in step.needs:
            needed = self._known[name]
            product = (
                _read(needed.folder / PREPARED).get("digest")
                if needed.stage == "prepare"
                else _read(needed.folder / _MARK).get("product")
            )
            if product is None:
                return None
            products[name] = product
        # Of a trained method the digests of its run say more than the place that it lies in.
        method = "" if step.method.startswith("run:") else step.method
        text = _text([step.stage, method, dict(self.performer.settings(step)), products])
        return hashlib.sha256(text.encode()).hexdigest()

    def _clear(self, step: Step) -> None:
        """Remove a spare folder that this step was the last to use."""
        folder = step.anonymised
        if folder not in self.spare or folder is None or not folder.is_dir():
            return
        if all(self.state(one) == "finished" for one in self.steps if one.anonymised == folder):
            # Another process may find the same at the same time.
            shutil.rmtree(folder, ignore_errors=True)


def _product(step: Step) -> str:
    """Give a digest of what came of a finished run: of its weights, or else of its result."""
    run = RunFolder(step.folder)
    file = run.best_file if run.best_file.is_file() else run.result_file
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _read(path: Path) -> dict[str, Any]:
    """Give a JSON object; an empty one where there is no readable file."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
