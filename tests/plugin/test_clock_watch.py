"""A clock that is ahead deletes nothing for good."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from prichexy_plugin.clock_jumps import Jump, uncounted
from prichexy_plugin.clock_watch import RESTS, ClockWatch
from prichexy_testing.plugin_fakes import FakeClock

DAY, HOUR = 86400.0, 3600.0


class Remembers:
    """What a ledger would keep."""

    def __init__(self, last: datetime | None) -> None:
        self.last = last
        self.seen: datetime | None = None
        self.rests = timedelta()
        self.jumps: list[Jump] = []
        self.fails = False

    def clock_seen(self) -> datetime | None:
        return self.seen

    def clock_rests(self) -> timedelta:
        return self.rests

    def last_written(self) -> datetime | None:
        return self.last

    def note_clock(self, seen: datetime, rests: timedelta, jump: Jump | None = None) -> None:
        if self.fails:
            raise OSError
        self.seen, self.rests = seen, rests
        self.jumps += [] if jump is None else [jump]


class Machine:
    """A clock that somebody may set, and the time that runs whatever it shows."""

    def __init__(self, *, off_for: timedelta | None = None) -> None:
        self.clock = FakeClock()
        self.ran = 100.0
        self.said: list[str] = []
        self.memory = Remembers(None if off_for is None else self.clock() - off_for)
        self.start()

    def start(self) -> None:
        self.watch = ClockWatch(self.clock, lambda: self.ran, self.memory, self.said.append)

    def runs(self, seconds: float, *, every: float = 600.0) -> bool:
        """Run for so long, with a look each so often; give the last answer."""
        answer = True
        while seconds > 0:
            step = min(every, seconds)
            self.clock.move(step)
            self.ran += step
            answer = self.watch.may_delete()
            seconds -= step
        return answer


def test_a_clock_that_goes_right_is_believed() -> None:
    machine = Machine(off_for=timedelta(hours=23))
    assert machine.runs(10 * DAY)
    assert machine.said == []


@pytest.mark.parametrize("ahead", [2 * HOUR, 11 * 365 * DAY])
def test_after_a_jump_nothing_is_deleted_for_a_day_of_running_time(ahead: float) -> None:
    machine = Machine()
    assert machine.runs(HOUR)
    machine.clock.move(ahead)
    assert not machine.runs(600)
    assert not machine.runs(RESTS.total_seconds() - 1200)
    assert machine.runs(1200)
    assert [text.partition(":")[0] for text in machine.said] == [
        "the clock jumped ahead",
        "what is old enough is deleted again",
    ]


def test_a_clock_that_is_set_right_again_is_believed_after_the_rest_alone() -> None:
    machine = Machine()
    machine.clock.move(400 * DAY)
    assert not machine.runs(600)
    machine.clock.move(-400 * DAY)
    assert not machine.runs(HOUR)
    assert machine.runs(RESTS.total_seconds())


def test_who_was_off_for_long_rests_first() -> None:
    machine = Machine(off_for=timedelta(days=30))
    assert not machine.watch.may_delete()
    assert not machine.runs(23 * HOUR)
    assert machine.runs(2 * HOUR)


def test_a_new_ledger_has_nothing_to_wait_for() -> None:
    assert Machine().watch.may_delete()


def test_a_rest_goes_on_over_a_restart() -> None:
    machine = Machine()
    assert machine.runs(HOUR)
    machine.clock.move(365 * DAY)
    assert not machine.runs(600)
    machine.memory.last = machine.clock()
    for _ in range(5):
        machine.runs(HOUR)
        machine.start()
        assert not machine.watch.may_delete()
    assert not machine.runs(18 * HOUR)
    assert machine.runs(2 * HOUR), "a restart does not begin it anew"


def test_a_jump_that_could_not_be_written_down_is_found_again() -> None:
    machine = Machine()
    assert machine.runs(HOUR)
    machine.clock.move(365 * DAY)
    machine.memory.fails = True
    with pytest.raises(OSError, match=r"^$"):
        machine.watch.may_delete()
    machine.memory.fails = False
    assert not machine.watch.may_delete()
    assert machine.memory.jumps == [Jump(timedelta(days=365), watched=True)]


def test_a_kill_before_the_jump_was_noticed_makes_nothing_believable() -> None:
    machine = Machine()
    assert machine.runs(HOUR)
    machine.clock.move(365 * DAY)
    machine.memory.last = machine.clock()
    machine.start()
    assert not machine.watch.may_delete()


def _days(*jumps: tuple[int, bool]) -> float:
    return uncounted(Jump(timedelta(days=by), watched=seen) for by, seen in jumps) / timedelta(
        days=1
    )


WATCHED, OFF = True, False


@pytest.mark.parametrize(
    ("jumps", "days"),
    [
        ([], 0),
        ([(9000, WATCHED)], 9000),  # it was behind and was set right, or it is ahead now
        ([(9000, WATCHED), (-9000, WATCHED)], 0),
        ([(30, OFF)], 0),  # the gateway was off
        ([(1500, OFF), (-1500, WATCHED)], 0),  # no: the clock was ahead, and was set right
        ([(1500, OFF), (-1500, WATCHED), (2, WATCHED)], 2),
        ([(-9000, OFF), (9000, WATCHED)], 0),  # it began in 2000, and was set right
        ([(-9000, OFF)], 0),
        ([(365, WATCHED), (-364, OFF)], 1),
    ],
)
def test_ages_leave_out_what_did_not_pass(jumps: list[tuple[int, bool]], days: float) -> None:
    assert _days(*jumps) == days
