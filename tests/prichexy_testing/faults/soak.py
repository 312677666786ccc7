"""``python -m prichexy_testing.faults.soak FOLDER``: many studies, some workers, faults by chance.

Writes FOLDER/soak.md, a table of figures, and ends with 1 when anything does not hold in the end.
The same seed gives the same studies and the same order of faults; when they hit is up to the
machine.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

from prichexy_testing.faults.kinds import CLOCK_KINDS, KINDS, Fault
from prichexy_testing.faults.marks import IN_THE_WORKER
from prichexy_testing.faults.poisoned_child import POISONS
from prichexy_testing.faults.report import Figures, table
from prichexy_testing.faults.site import Site, running_site
from prichexy_testing.faults.studies import ENDED_BY_HAND, Study
from prichexy_worker.contract import State

__all__ = ["Soak", "studies_by_chance"]

_QUARANTINED: Final = frozenset({State.QUARANTINED})
#: So many studies are on their way at a time, for each worker.
_OPEN: Final = 3
#: Of so many studies one is of this kind, each kind in turn.
_BAD_CODEC, _UNSAFE, _BAD_WORKER = 60, 60, 400
_PATIENCE: Final = 900.0


def studies_by_chance(
    count: int, chance: random.Random
) -> Iterator[tuple[Study, frozenset[State]]]:
    """Give studies of one to three images with the ends that are allowed for them."""
    for number in range(1, count + 1):
        images = chance.randint(1, 3)
        if number % _BAD_WORKER == 0:
            poison = IN_THE_WORKER[number // _BAD_WORKER % len(IN_THE_WORKER)]
            yield Study(number, images, worker=poison), ENDED_BY_HAND
        elif number % _BAD_CODEC == 0:
            yield Study(number, images, codec=chance.choice(POISONS)), _QUARANTINED
        elif number % _UNSAFE == _UNSAFE // 2:
            yield Study(number, images, unsafe=True), _QUARANTINED
        else:
            yield Study(number, images), frozenset({State.EXPORTED})


@dataclass
class Soak:
    """One run; everything is done by the thread that calls ``run``."""

    site: Site
    chance: random.Random
    waiting: list[tuple[Study, frozenset[State]]]
    stop_sending_at: float
    figures: Figures = field(default_factory=Figures)
    _bag: list[Fault] = field(default_factory=list)
    _pause: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Send everything, with a fault or two at any time; return when all has ended."""
        start = time.monotonic()
        self._pass(lambda: False, 5.0)
        while self.waiting:
            self._one_fault()
            if time.monotonic() > self.stop_sending_at:
                self.waiting.clear()
        self.site.heal()
        self._pass(lambda: not self.site.open_studies(), _PATIENCE)
        self.figures.seconds = time.monotonic() - start
        world = self.site.world()
        self.figures.judge(world)

    def _one_fault(self) -> None:
        """Let a fault or two come and go, and see all that was on its way come to its end."""
        faults = [self._draw()]
        if self.chance.random() < 0.25:
            faults.append(self._draw())
        hit = [fault for fault in faults if fault.inject(self.site, self.chance)]
        longest = max([fault.seconds for fault in hit], default=0.0)
        self._pass(lambda: False, longest * self.chance.uniform(1.0, 2.0))
        for fault in hit:
            fault.heal(self.site)
        healed = time.monotonic()
        affected = self.site.open_studies()
        self._pass(lambda: not affected & self.site.open_studies(), _PATIENCE)
        seconds = time.monotonic() - healed
        rows = self.site.rows()
        claims = [rows[study_id].attempts for study_id in affected if study_id in rows]
        for fault in hit:
            self.figures.note(fault.name, seconds, claims)
        names = " and ".join(fault.name for fault in hit) or "nothing to hit"
        sys.stderr.write(
            f"{len(self.site.sent):5d} sent, {names}: {seconds:.0f} s, {len(affected)} studies\n"
        )

    def _draw(self) -> Fault:
        if not self._bag:
            self._bag = [*KINDS, *(CLOCK_KINDS if self.site.clock is not None else ())]
            self.chance.shuffle(self._bag)
        return self._bag.pop()

    def _pass(self, over: Callable[[], bool], seconds: float) -> None:
        """Send studies and start workers that died until ``over``, at most so long."""
        deadline = time.monotonic() + seconds
        while not over() and time.monotonic() < deadline:
            self._send_some()
            self.figures.worker_deaths += len(self.site.start_dead_workers())
            self._pause.wait(0.2)

    def _send_some(self) -> None:
        if not self.waiting or not self.site.runs("ingest"):
            return
        room = _OPEN * len(self.site.workers) - len(self.site.open_studies())
        for study, ends in self.waiting[: max(0, room)]:
            try:
                self.site.send(study, ends)
            except httpx.HTTPError:
                return  # as a modality does: it is sent again, whole
            self.waiting.pop(0)


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the figures are written")
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--minutes", type=float, default=600.0, help="send for no longer")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clock", action="store_true", help="set clocks, too: libfaketime is slow")
    chosen = parser.parse_args()
    # Also where a shell has it ignored: disks are unmounted and processes stopped on the way out.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    chosen.folder.mkdir(parents=True, exist_ok=True)
    chance = random.Random(chosen.seed)
    disks = ("ledger", "scratch", "export") if os.geteuid() == 0 else ()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        site = stack.enter_context(
            running_site(
                folder, workers=chosen.workers, disks=disks, clock=chosen.clock, patience=2
            )
        )
        end = time.monotonic() + 60 * chosen.minutes
        soak = Soak(site, chance, list(studies_by_chance(chosen.studies, chance)), end)
        try:
            soak.run()
        finally:
            for name in ("ingest", *site.workers):
                (chosen.folder / f"{name}.log").write_text(site.log(name), encoding="utf-8")
    report = table(soak.figures, workers=chosen.workers, seed=chosen.seed)
    (chosen.folder / "soak.md").write_text(report, encoding="utf-8")
    sys.stdout.write(report)
    return 1 if soak.figures.violations else 0


if __name__ == "__main__":
    sys.exit(_main())
