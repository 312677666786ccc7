"""The stages as an experiment calls them: the functions that the subcommands call, too."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from prichexy_train.attacks.running import run_attack
from prichexy_train.attacks.settings import AttackSettings
from prichexy_train.attacks.trial import TrialSettings, run_trial
from prichexy_train.data.prepared import PREPARED, PreparedSet
from prichexy_train.data.preparing import prepare_set
from prichexy_train.data.settings import PrepareSettings
from prichexy_train.errors import Misconfigured
from prichexy_train.experiment import Experiment, Step
from prichexy_train.loop import Fitted
from prichexy_train.progress import Ended
from prichexy_train.report.evidence import gather
from prichexy_train.report.examples import draw_examples
from prichexy_train.report.page import compose, write_page
from prichexy_train.settings import changeable_keys, flat, read_settings
from prichexy_train.stages.adversarial import AdversarialSettings, run_adversarial
from prichexy_train.stages.classifier import ClassifierSettings, run_classifier
from prichexy_train.stages.pretraining import PretrainingSettings, run_pretraining
from prichexy_train.stages.verifier import VerifierSettings, run_verifier
from prichexy_train.utility import UtilitySettings, run_utility

__all__ = ["Stages"]

_log: Final = logging.getLogger(__name__)

_SETTINGS: Final[Mapping[str, type[BaseModel]]] = {
    "prepare": PrepareSettings,
    "verifier": VerifierSettings,
    "classifier": ClassifierSettings,
    "pretrain": PretrainingSettings,
    "anonymizer": AdversarialSettings,
    "attack": AttackSettings,
    "trial": AttackSettings,
    "utility": UtilitySettings,
}
_TRAININGS: Final[Mapping[str, Callable[..., Fitted]]] = {
    "verifier": run_verifier,
    "classifier": run_classifier,
    "pretrain": run_pretraining,
    "anonymizer": run_adversarial,
}
_ENDED: Final[Mapping[str, Ended]] = {
    "finished": "finished",
    "deadline": "deadline",
    "interrupted": "interrupted",
}
#: How much of the ladder is climbed may change between two calls, and decides what is there.
_COUNT: Final = frozenset({"rungs", "seeds", "control_seeds", "shortcuts"})


class Stages:
    """Carries out the steps of ``experiment``, whose runs lie below ``runs``.

    ``jobs`` is how many processes decode images.
    """

    def __init__(self, experiment: Experiment, runs: Path, *, jobs: int = 1) -> None:
        self._experiment = experiment
        self._runs = runs
        self._jobs = jobs

    def settings(self, step: Step) -> Mapping[str, Any]:
        """Give the settings that a step's result depends on, with dotted keys."""
        settings = _read(step)
        if step.stage == "trial" and isinstance(settings, AttackSettings):
            settings = TrialSettings.of(settings)
        hidden = changeable_keys(settings) - _COUNT
        values = flat(settings.model_dump(mode="json"))
        return {key: value for key, value in values.items() if key not in hidden}

    def perform(self, step: Step, deadline: float | None) -> Ended:
        """Do the step; see ``progress.Performer``."""
        if step.stage == "prepare":
            return self._prepare(step)
        if step.stage == "report":
            return self._report(step)
        settings = _read(step)
        if isinstance(settings, AttackSettings) and step.stage == "trial":
            (verifier,) = step.verifiers
            tried = run_trial(
                settings, step.data, step.folder, verifier=verifier, deadline=deadline
            )
            return _ENDED[tried.ended]
        if isinstance(settings, AttackSettings):
            climbed = run_attack(
                settings,
                step.data,
                step.folder,
                method=step.method,
                verifiers=step.verifiers,
                anonymised=step.anonymised,
                deadline=deadline,
            )
            for rung, reason in climbed.left_out.items():
                _log.info("rung %s: left out: %s", rung, reason)
            return _ENDED[climbed.ended]
        if isinstance(settings, UtilitySettings):
            if step.classifier is None:
                raise TypeError("a step of utility has a classifier")
            done = run_utility(
                settings,
                step.data,
                step.folder,
                method=step.method,
                classifier=step.classifier,
                anonymised=step.anonymised,
                deadline=deadline,
            )
            return "finished" if done else "deadline"
        run = _TRAININGS[step.stage]
        return run(settings, step.data, step.folder, deadline=deadline).ended

    def _prepare(self, step: Step) -> Ended:
        settings = _read(step)
        if not isinstance(settings, PrepareSettings):
            raise TypeError("a step of prepare has settings of its own")
        if step.source is None:
            raise Misconfigured(self._not_prepared(step, settings))
        prepare_set(settings, step.source, step.folder, jobs=self._jobs, progress=True)
        return "finished"

    def _not_prepared(self, step: Step, settings: PrepareSettings) -> str:
        name = step.name.removeprefix("prepare-")
        source = f"give --source {name}=FOLDER, the folder of the radiographs"
        if not (step.folder / PREPARED).is_file():
            return (
                f"{step.folder}: holds no prepared set; {source}, or run prichexy-train prepare "
                "before"
            )
        before = flat(json.loads((step.folder / PREPARED).read_bytes())["settings"])
        now = flat(settings.model_dump(mode="json"))
        key = min(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
        return (
            f"{step.folder}: was prepared with {key} = {before.get(key)}, not {now.get(key)}; "
            f"{source}, to prepare it anew, or say so: --set sets.{name}.change.{key}=…"
        )

    def _report(self, step: Step) -> Ended:
        sets = [PreparedSet.open(folder) for folder in step.data]
        evidence = gather(self._runs)
        page = compose(
            evidence,
            self._experiment.title,
            sets={one.name: one.summary for one in sets},
            examples=draw_examples(
                evidence, [one for one in sets if one.name in self._experiment.examples]
            ),
        )
        for path in write_page(page, step.folder):
            _log.info("%s", path)
        return "finished"


def _read(step: Step) -> BaseModel:
    if step.config is None:
        raise TypeError(f"{step.stage} has no settings")
    return read_settings(step.config, _SETTINGS[step.stage], step.changes)
