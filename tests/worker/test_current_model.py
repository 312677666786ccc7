"""A moved link is followed between two studies; what cannot be loaded changes nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from prichexy_testing.fakes_worker import (
    FakeLedger,
    FakeSource,
    FakeTarget,
    anonymized,
    instance_id,
    study_message,
)
from prichexy_testing.finders import Finds
from prichexy_testing.generators import Unjudged
from prichexy_worker.contract import ModelInfo, State
from prichexy_worker.current_model import CurrentModel
from prichexy_worker.destinations import Destinations
from prichexy_worker.engine import Engine
from prichexy_worker.errors import Misconfigured
from prichexy_worker.pipeline import Anonymized, Tools
from prichexy_worker.pseudonyms import Pseudonyms
from prichexy_worker.study import process_study

FINDER = Finds()


@dataclass(frozen=True)
class FakeEngine(Unjudged):
    """An engine that knows which folder it was loaded from."""

    folder: Path

    @property
    def model(self) -> ModelInfo:
        digest = self.folder.name * 64
        return ModelInfo(
            "generator", "1", digest[:64], "trained", f"The one in {self.folder.name}."
        )

    input_size = 256

    def displacement(self, view: np.ndarray) -> np.ndarray:
        raise AssertionError("nothing is deformed here")


@dataclass
class Place:
    """Bundles by one letter, a link to one of them, and what happened."""

    folder: Path
    seconds: float = 0.0
    loads: list[str] = field(default_factory=list)
    announced: list[str] = field(default_factory=list)
    broken: dict[str, Exception] = field(default_factory=dict)

    @property
    def link(self) -> Path:
        return self.folder / "current"

    def point(self, name: str) -> None:
        (self.folder / name).mkdir(exist_ok=True)
        draft = self.folder / "draft"
        draft.symlink_to(name)
        draft.replace(self.link)

    def load(self, folder: Path) -> Engine:
        self.loads.append(folder.name)
        if folder.name in self.broken:
            raise self.broken[folder.name]
        return cast("Engine", FakeEngine(folder))

    def model(self, bundle: Path | None = None) -> CurrentModel:
        bundle = bundle or self.link
        engine = cast("Engine", FakeEngine(bundle.resolve()))
        tools = Tools(
            engine=engine,
            pseudonyms=Pseudonyms(b"k" * 32),
            text_finder=FINDER,
            syntax="rle-lossless",
        )
        return CurrentModel(
            bundle,
            tools,
            engine,
            self.load,
            lambda engine: self.announced.append(engine.folder.name),
            clock=lambda: self.seconds,
        )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.point("a")
    return place


def used(model: CurrentModel) -> str:
    return model.tools().engine.model.digest[0]


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line.getMessage() for line in caplog.records if line.levelno >= logging.ERROR]


def test_a_moved_link_is_followed_once_and_announced(place: Place) -> None:
    model = place.model()
    assert used(model) == "a"
    place.point("b")
    assert [used(model) for _ in range(3)] == ["b", "b", "b"]
    assert (place.loads, place.announced) == (["b"], ["b"])


def test_a_worker_without_a_study_follows_as_well(place: Place) -> None:
    model = place.model()
    place.point("b")
    model.look()
    assert place.announced == ["b"]


def test_nothing_but_the_model_is_exchanged(place: Place) -> None:
    model = place.model()
    before = model.tools()
    place.point("b")
    after = model.tools()
    assert after.pseudonyms is before.pseudonyms
    assert (after.syntax, after.text_finder) == ("rle-lossless", FINDER)


def test_a_plain_folder_is_loaded_once_and_for_all(place: Place) -> None:
    model = place.model(place.folder / "a")
    place.point("b")
    assert used(model) == "a"
    assert place.loads == []


@pytest.mark.parametrize(
    "error",
    [Misconfigured("model.bundle: damaged"), RuntimeError("DOE^JANE"), MemoryError("no room")],
)
def test_what_cannot_be_loaded_is_said_loudly_and_the_old_one_goes_on(
    place: Place, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    model = place.model()
    place.broken["b"] = error
    place.point("b")
    assert used(model) == "a"
    (said,) = errors(caplog)
    assert "THE MODEL IN USE STAYS aaaaaaaaaaaa" in said
    assert str(place.folder / "b") in said
    assert "damaged" in said or type(error).__name__ in said
    assert "DOE" not in said
    assert place.announced == []


def test_what_could_not_be_loaded_is_tried_and_complained_of_each_minute(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    model = place.model()
    place.broken["b"] = Misconfigured("model.bundle: damaged")
    place.point("b")
    for place.seconds in range(0, 125, 5):
        assert used(model) == "a"
    assert place.loads == ["b", "b", "b"]
    assert len(errors(caplog)) == 3
    del place.broken["b"]
    place.seconds = 180
    assert used(model) == "b"


def test_another_bundle_is_tried_at_once_and_so_is_the_way_back(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    model = place.model()
    place.broken["b"] = Misconfigured("model.bundle: damaged")
    place.point("b")
    assert used(model) == "a"
    place.point("c")
    assert used(model) == "c"
    place.point("b")
    assert used(model) == "c"
    place.point("c")
    assert used(model) == "c"
    place.point("a")
    assert used(model) == "a"
    assert place.loads == ["b", "c", "b", "a"]
    assert len(errors(caplog)) == 2


def _remove(link: Path) -> None:
    link.unlink()


def _loop(link: Path) -> None:
    link.unlink()
    link.symlink_to(link.name)


@pytest.mark.parametrize("spoil", [_remove, _loop])
def test_a_link_that_leads_nowhere_is_said_loudly_and_the_old_one_goes_on(
    place: Place, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], None]
) -> None:
    model = place.model()
    spoil(place.link)
    assert [used(model) for _ in range(3)] == ["a", "a", "a"]
    (said,) = errors(caplog)
    assert "cannot be found" in said
    place.point("b")
    assert used(model) == "b"


def test_a_study_that_has_begun_keeps_its_model(place: Place) -> None:
    model = place.model()
    seen: list[str] = []

    def anonymize(content: bytes, tools: Tools) -> Anonymized:
        # Promoted, and even taken up by this worker, within the study.
        place.point("b")
        model.look()
        seen.append(tools.engine.model.digest[0])
        return anonymized(content, sop_uid=f"2.25.{len(seen)}")

    def process() -> Any:
        source = FakeSource(
            {instance_id(n): one for n, one in enumerate((b"one", b"two", b"three"))}
        )
        return process_study(
            study_message(),
            source,
            Destinations.only(FakeTarget()),
            FakeLedger(),
            model.tools(),
            anonymize=anonymize,
        )

    assert process().state is State.EXPORTED
    assert process().state is State.EXPORTED
    assert seen == ["a", "a", "a", "b", "b", "b"]
