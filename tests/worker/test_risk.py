"""What is left of the patient and of the findings is measured, and may keep a result back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from pydicom.dataset import Dataset

from prichexy_testing.bundles import judging_bundle
from prichexy_testing.dicoms import radiograph_dataset, write
from prichexy_testing.finders import Finds
from prichexy_worker import risk
from prichexy_worker.chosen import Strengthened
from prichexy_worker.contract import Reason
from prichexy_worker.engine import Engine
from prichexy_worker.errors import Misconfigured, Rejected
from prichexy_worker.pipeline import Tools, anonymize
from prichexy_worker.pixels import Radiograph
from prichexy_worker.pseudonyms import Pseudonyms
from prichexy_worker.risk import Tolerated

BOTH = {"max_recognised": 0.9, "max_finding_change": 0.2}


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    engine = Engine.load(judging_bundle(tmp_path_factory.mktemp("risk") / "bundle"), "cpu")
    return Tools(engine, Pseudonyms(bytes(32)), Finds())


class Eyes:
    """Sees what it is shown."""

    judges = frozenset({risk.RECOGNISED})
    input_size = 32

    def __init__(self) -> None:
        self.seen: list[npt.NDArray[np.float32]] = []

    def judged(
        self, before: npt.NDArray[np.float32], after: npt.NDArray[np.float32]
    ) -> Mapping[str, float]:
        self.seen += [before, after]
        return {risk.RECOGNISED: 0.5}


class NoNumber(Eyes):
    """Says what JSON has no word for."""

    def judged(
        self, before: npt.NDArray[np.float32], after: npt.NDArray[np.float32]
    ) -> Mapping[str, float]:
        return {risk.RECOGNISED: float("nan"), risk.FINDINGS_MOVED: 0.25}


@pytest.mark.parametrize(
    ("tolerated", "reason"),
    [
        (Tolerated(), None),
        (Tolerated(0.9, 0.2), None),
        (Tolerated(recognised=0.8), Reason.RECOGNISABLE),
        (Tolerated(finding_change=0.1), Reason.FINDINGS_CHANGED),
        (Tolerated(0, 0), Reason.RECOGNISABLE),
    ],
)
def test_what_is_above_its_limit_is_kept_back(tolerated: Tolerated, reason: Reason | None) -> None:
    if reason is None:
        tolerated.check(BOTH)
        return
    with pytest.raises(Rejected) as caught:
        tolerated.check(BOTH)
    assert caught.value.reason is reason


@pytest.mark.parametrize("measures", [{}, {"max_recognised": float("nan")}])
def test_a_figure_that_is_to_be_small_and_is_not_there_keeps_the_result_back(
    measures: dict[str, float],
) -> None:
    Tolerated().check(measures)
    with pytest.raises(Rejected) as caught:
        Tolerated(recognised=0.999).check(measures)
    assert caught.value.reason is Reason.CHECK_IMPOSSIBLE


def test_a_figure_that_is_no_number_is_not_told() -> None:
    image = Radiograph(np.arange(4096, dtype=np.uint16).reshape(64, 64), 12)
    assert risk.measured(NoNumber(), image, image, Dataset()) == {risk.FINDINGS_MOVED: 0.25}


def test_a_limit_needs_a_network_that_measures_it() -> None:
    Tolerated(recognised=0.5).check_judges(Eyes.judges)
    Tolerated().check_judges(Eyes.judges)
    with pytest.raises(Misconfigured, match=r"risk\.finding_change: .* no classifier"):
        Tolerated(finding_change=0.5).check_judges(Eyes.judges)


def test_the_pipelines_figures_are_of_the_image_before_and_after(
    tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]] = []
    real = Engine.judged

    def judged(
        engine: Engine, before: npt.NDArray[np.float32], after: npt.NDArray[np.float32]
    ) -> dict[str, float]:
        seen.append((before, after))
        return real(engine, before, after)

    monkeypatch.setattr(Engine, "judged", judged)
    moved = anonymize(write(radiograph_dataset()), tools)
    ((before, after),) = seen
    assert before.shape == after.shape == (256, 256)
    assert not np.array_equal(before, after)
    assert 0 < moved.measures["max_recognised"] < 1
    assert 0 < moved.measures["max_finding_change"] < 1
    assert "judge" in moved.durations


def test_a_result_in_which_the_patient_is_recognised_does_not_leave(tools: Tools) -> None:
    content = write(radiograph_dataset())
    figure = anonymize(content, tools).measures["max_recognised"]
    passes = replace(tools, tolerated=Tolerated(recognised=figure + 1e-6))
    assert anonymize(content, passes).content == anonymize(content, tools).content
    with pytest.raises(Rejected) as caught:
        anonymize(content, replace(tools, tolerated=Tolerated(recognised=figure - 1e-6)))
    assert caught.value.reason is Reason.RECOGNISABLE
    assert caught.value.doubts == ()


def test_a_stronger_deformation_is_judged_by_the_same_networks(tools: Tools) -> None:
    content = write(radiograph_dataset())
    strong = replace(tools, engine=Strengthened(tools.engine, 2.0), strength=2.0)
    figures = anonymize(content, strong).measures
    assert figures["max_finding_change"] != anonymize(content, tools).measures["max_finding_change"]


def test_a_still_generator_leaves_the_findings_as_they_were(tools: Tools, tmp_path: Path) -> None:
    still = replace(tools, engine=Strengthened(tools.engine, 0.0), strength=0.0)
    measures = anonymize(write(radiograph_dataset()), still).measures
    assert measures["max_finding_change"] == 0
