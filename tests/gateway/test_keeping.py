"""A native gateway goes on receiving whatever else dies, and starts it anew."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from prichexy_gateway.errors import Failed
from prichexy_gateway.keeping import Keeper, ReceptionEnded
from prichexy_gateway.supervisor import Death


@dataclass
class FakeSupervisor:
    """Services that run, are ready, cannot be started, or died, by name."""

    dead: list[str] = field(default_factory=list)
    ready: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    restarted: list[str] = field(default_factory=list)

    def deaths(self) -> list[Death]:
        return [Death(name, -9, Path("log")) for name in self.dead]

    def is_ready(self, name: str) -> bool:
        return name in self.ready

    def restart(self, name: str) -> None:
        if name in self.dead:
            self.dead.remove(name)
        if name in self.refused:
            raise Failed(f"{name} cannot be started (no memory).")
        self.restarted.append(name)


@dataclass
class Play:
    """A keeper at a clock that stands until it is moved."""

    supervisor: FakeSupervisor = field(default_factory=FakeSupervisor)
    said: list[str] = field(default_factory=list)
    now: float = 0.0
    keeper: Keeper = field(init=False)

    def __post_init__(self) -> None:
        fake: Any = self.supervisor
        self.keeper = Keeper(fake, self.said.append, clock=lambda: self.now)

    def dies(self, name: str, *, after: float = 0.0) -> float:
        """Have a service die; give the seconds until it is started anew."""
        self.now += after
        self.supervisor.dead.append(name)
        begin, starts = self.now, len(self.supervisor.restarted)
        self.keeper.look()
        while name not in self.supervisor.restarted[starts:]:
            self.now += 0.5
            self.keeper.look()
        return self.now - begin


@pytest.fixture
def play() -> Play:
    return Play()


@pytest.mark.parametrize("name", ["worker", "redis", "export", "ingest"])
def test_who_dies_is_started_anew_after_a_pause_and_it_is_said(play: Play, name: str) -> None:
    play.keeper.look()
    assert play.said == []
    assert play.dies(name) == 1.0
    assert play.supervisor.restarted == [name]
    said = f"{name} was killed by SIGKILL; its log is log. It is started anew in 1 s"
    assert play.said == [f"{said}; all else goes on."]
    play.supervisor.ready.append(name)
    play.keeper.look()
    play.keeper.look()
    assert play.said[1:] == [f"{name} is ready again"]


@pytest.mark.parametrize("name", ["worker", "redis", "export"])
def test_who_dies_again_and_again_is_never_given_up_and_the_pauses_grow(
    play: Play, name: str
) -> None:
    pauses = [play.dies(name, after=5.0) for _ in range(100)]
    assert pauses[:8] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert set(pauses[8:]) == {60.0}
    assert play.dies(name, after=700.0) == 1.0, "it had run for long"


def test_pauses_of_one_service_are_not_those_of_another(play: Play) -> None:
    assert [play.dies("worker") for _ in range(3)] == [1.0, 2.0, 4.0]
    play.supervisor.dead += ["redis", "export"]
    assert play.dies("worker") == 8.0
    assert play.supervisor.restarted[3:5] == ["redis", "export"], "they waited for nobody"


def test_what_cannot_be_started_is_tried_again(play: Play) -> None:
    play.supervisor.refused.append("redis")
    play.supervisor.dead.append("redis")
    for _ in range(20):
        play.now += 1.0
        play.keeper.look()
    assert "redis cannot be started (no memory). It is started anew in 4 s; all else goes on." in (
        play.said
    )
    play.supervisor.refused.clear()
    play.now += 60.0
    play.keeper.look()
    assert play.supervisor.restarted == ["redis"]


def test_an_ingest_orthanc_that_does_not_start_any_more_ends_all(play: Play) -> None:
    play.dies("ingest")
    for _ in range(7):
        play.dies("ingest")
    with pytest.raises(ReceptionEnded, match="8 times in vain"):
        play.dies("ingest")


def test_an_ingest_orthanc_that_answers_between_its_deaths_is_never_given_up(play: Play) -> None:
    play.supervisor.ready.append("ingest")
    for _ in range(100):
        play.dies("ingest")
        play.keeper.look()
    assert len(play.supervisor.restarted) == 100
