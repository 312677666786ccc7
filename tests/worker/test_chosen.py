"""A study is made with the model and the strength that were asked for, or not at all."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from prichexy_testing.fakes_worker import (
    FakeLedger,
    FakeSource,
    FakeTarget,
    IdleDeformer,
    anonymized,
    instance_id,
    study_message,
)
from prichexy_testing.finders import Finds
from prichexy_testing.generators import Unjudged
from prichexy_worker.chosen import Choice, Strengthened, folds
from prichexy_worker.contract import MOST_MODELS, Available, ModelInfo, Reason, State, StudyMessage
from prichexy_worker.destinations import Destinations
from prichexy_worker.errors import Misconfigured, Rejected, Retryable
from prichexy_worker.pipeline import Anonymized, Tools
from prichexy_worker.pseudonyms import Pseudonyms
from prichexy_worker.study import Outcome, process_study

TOOLS = Tools(engine=IdleDeformer(), pseudonyms=Pseudonyms(bytes(range(32))), text_finder=Finds())


@dataclass(frozen=True)
class FakeEngine(Unjudged):
    folder: Path
    input_size: int = 64

    @property
    def model(self) -> ModelInfo:
        return read(self.folder)

    def displacement(self, view: np.ndarray) -> np.ndarray:
        return wave(0.4)


def wave(slope: float, size: int = 64) -> np.ndarray:
    """Give a field whose displacement along the rows changes by ``slope`` a sample at most."""
    field = np.zeros((2, size, size), np.float32)
    places = np.arange(size)
    field[0] = slope * np.sin(places)[None] * 2 / (size - 1)
    return field


def read(folder: Path) -> ModelInfo:
    if (folder / "broken").exists():
        raise Misconfigured("model.bundle: broken")
    return ModelInfo("generator", folder.name[:1], folder.name, "trained", "One of the store.")


def load(folder: Path) -> Any:
    read(folder)
    return FakeEngine(folder)


def store(folder: Path, *digests: str) -> Choice:
    for digest in digests:
        (folder / "versions" / digest).mkdir(parents=True)
    (folder / "versions" / ".incoming").mkdir()
    (folder / "current").symlink_to(folder / "versions" / digests[0])
    return Choice(folder / "current", load, read)


A, B = "a" * 64, "b" * 64


def test_the_models_of_the_store_are_offered_and_no_others(tmp_path: Path) -> None:
    choice = store(tmp_path, A, B)
    (tmp_path / "versions" / B / "broken").touch()
    versions = tmp_path / "versions"
    assert choice.available() == (Available(A, read(versions / A)),)
    alone = Choice(versions / "elsewhere", load, read)
    assert alone.available() == ()
    many = store(tmp_path / "many", *(f"{number:064x}" for number in range(MOST_MODELS + 3)))
    assert len(many.available()) == MOST_MODELS


def test_a_study_gets_the_model_that_its_message_names(tmp_path: Path) -> None:
    choice = store(tmp_path, A, B)
    assert choice.tools(study_message(), TOOLS) is TOOLS
    chosen = choice.tools(replace(study_message(), bundle=B), TOOLS)
    assert chosen.made_with()["model"] == B
    for bundle in ("c" * 64, A):
        (tmp_path / "versions" / A / "broken").touch()
        with pytest.raises(Retryable) as caught:
            choice.tools(replace(study_message(), bundle=bundle), TOOLS)
        assert caught.value.reason is Reason.MODEL_UNAVAILABLE


def test_a_strength_is_a_factor_on_the_displacement(tmp_path: Path) -> None:
    choice = store(tmp_path, A)
    chosen = choice.tools(replace(study_message(), bundle=A, strength=1.5), TOOLS)
    view = np.zeros((64, 64), np.float32)
    assert np.allclose(chosen.engine.displacement(view), wave(0.6))
    assert (chosen.strength, chosen.engine.input_size) == (1.5, 64)
    assert chosen.engine.model == read(tmp_path / "versions" / A)


@pytest.mark.parametrize(
    ("slope", "folded"), [(0.0, False), (0.5, False), (0.95, False), (1.3, True), (5.0, True)]
)
def test_a_field_folds_where_its_samples_overtake_each_other(slope: float, folded: bool) -> None:
    field = wave(slope)
    assert folds(field) is folded
    assert folds(np.ascontiguousarray(field[::-1].transpose(0, 2, 1))) is folded
    places = np.arange(64) + field[0, 0] * 63 / 2
    assert bool((np.diff(places) <= 0).any()) is folded


def test_a_turn_does_not_fold_and_a_mirror_does() -> None:
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    turn = np.stack([-0.3 * y, 0.3 * x]).astype(np.float32)
    mirror = np.stack([-2 * x, 0 * y]).astype(np.float32)
    assert not folds(turn)
    assert folds(mirror)


def test_a_deformation_that_would_fold_is_refused(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path / A)
    with pytest.raises(Rejected) as caught:
        Strengthened(engine, 2.0 / 0.4).displacement(np.zeros((64, 64), np.float32))
    assert caught.value.reason is Reason.FOLDS


def attempt(message: StudyMessage, ledger: FakeLedger, **values: Any) -> Outcome:
    def made(_content: bytes, tools: Tools) -> Anonymized:
        return anonymized(tools.engine.model.digest.encode())

    return process_study(
        message,
        FakeSource({instance_id(0): b"original 0"}, study_uid=values.pop("uid", "")),
        Destinations.only(values.pop("target", FakeTarget())),
        ledger,
        TOOLS,
        anonymize=made,
        **values,
    )


def test_the_report_names_the_model_that_was_chosen(tmp_path: Path) -> None:
    choice, ledger, target = store(tmp_path, A, B), FakeLedger(), FakeTarget()
    message = replace(study_message(), bundle=B)
    assert attempt(message, ledger, choose=choice.tools, target=target).state is State.EXPORTED
    assert ledger.reports[-1].model == B
    assert list(target.held.values()) == [B.encode()]


def test_without_the_model_a_study_is_given_back_and_exported_with_no_other(tmp_path: Path) -> None:
    choice, target = store(tmp_path, A), FakeTarget()
    message = replace(study_message(), bundle=B)
    for values in ({"choose": choice.tools}, {}):
        outcome = attempt(message, FakeLedger(), target=target, **cast("Any", values))
        assert outcome == Outcome(State.QUEUED, Reason.MODEL_UNAVAILABLE, again=True)
    outcome = attempt(message, FakeLedger(left=1), choose=choice.tools, target=target)
    assert outcome == Outcome(State.FAILED, Reason.MODEL_UNAVAILABLE)
    assert target.held == {}
    uid = TOOLS.study_uid("1.2.3")
    target = FakeTarget(held={"2.25.3": b"of before"}, study_uid=uid)
    ledger = FakeLedger(left=1)
    attempt(replace(message, revision=2), ledger, choose=choice.tools, target=target, uid="1.2.3")
    assert (target.held, ledger.reports[-1].left_at) == ({}, ()), "what failed is not there"
