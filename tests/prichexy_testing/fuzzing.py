"""Sends damaged files through the pipeline in processes of their own, and judges what comes out.

A mutant may be turned away, or be released when nothing planted is in it. Anything else is a
finding, and names the mutant's number: ``numbered(number)`` gives its bytes again.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import resource
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset

from prichexy_testing.canaries import Specimen, specimens, survivors
from prichexy_testing.finders import Finds
from prichexy_testing.generators import Unjudged
from prichexy_testing.headers import KEY, MODEL
from prichexy_testing.mutations import mutant
from prichexy_worker.errors import Rejected
from prichexy_worker.header.allowlist import allow_lists
from prichexy_worker.pipeline import Tools, anonymize
from prichexy_worker.pseudonyms import Pseudonyms

__all__ = ["Verdict", "judge", "numbered", "run", "still_tools"]

#: Bytes of address space: more than any radiograph needs, far less than a bomb takes.
_MEMORY: Final = 4 << 30
#: Seconds for one mutant; whole files take a tenth of a second. Long, for the machine may be busy.
PATIENCE: Final = 120.0
#: Specimens that mutants are made of, each with few values, so that one takes milliseconds.
_SPECIMENS: Final = 66
_HANDS: Final = 160


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of mutant ``number``.

    ``outcome`` is "released", "turned away" (``detail``: the reason) or "released with a moved
    number": the damage put a time or number in the place of one that is kept, such as a window,
    which ``release`` does not promise to tell. All else is a finding: "crashed", "leaked",
    "malformed", "hung", "died".
    """

    number: int
    outcome: str
    detail: str = ""

    @property
    def finding(self) -> bool:
        """Whether it is something to mend."""
        return self.outcome not in ("released", "turned away", "released with a moved number")


#: What may read as a decimal number. Dates that do are found by the release check.
_NUMBERS: Final = frozenset({"TM", "DS", "IS"})


class _Still(Unjudged):
    model = MODEL
    input_size = 64

    def displacement(self, view: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.zeros((2, *view.shape), np.float32)


def still_tools() -> Tools:
    """Give tools that move nothing and search for no text: the pixels come out as they went in."""
    return Tools(_Still(), Pseudonyms(KEY), Finds())


@cache
def _specimens() -> tuple[Specimen, ...]:
    return tuple(specimens(_SPECIMENS, seed="fuzz", hands=_HANDS, long=False))


def numbered(number: int, seed: str = "0") -> tuple[Specimen, bytes]:
    """Give the specimen that mutant ``number`` is made of, and its damaged bytes."""
    specimen = _specimens()[number % _SPECIMENS]
    return specimen, mutant(specimen.content, f"{seed}/{number}")


def judge(number: int, specimen: Specimen, content: bytes, tools: Tools) -> Verdict:
    """Send one file through the pipeline."""
    try:
        result = anonymize(content, tools)
    except Rejected as rejected:
        return Verdict(number, "turned away", rejected.reason.value)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - what may not happen is what is looked for
        place = traceback.extract_tb(error.__traceback__)[-1]
        ours = [f for f in traceback.extract_tb(error.__traceback__) if "prichexy" in f.filename]
        where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
        detail = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno} via {where}"
        return Verdict(number, "crashed", detail)
    try:
        found = survivors(result.content, specimen.canaries)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(BytesIO(result.content))
            _ = dataset.pixel_array  # all pixels are there
    except Exception as error:  # noqa: BLE001 - a result that cannot be read is a finding
        return Verdict(number, "malformed", type(error).__name__)
    numbers = " ".join(str(e.value) for e in dataset if e.VR in ("DS", "IS") and e.value).encode()
    moved = [c for c in found if c.vr in _NUMBERS and any(form in numbers for form in c.forms)]
    if found and found == moved:
        return Verdict(number, "released with a moved number", found[0].vr)
    if found:
        return Verdict(number, "leaked", "; ".join(f"{c.place} {c.path} {c.vr}" for c in found))
    strange = _not_on_a_list(dataset)
    if strange:
        return Verdict(number, "leaked", f"tags on no list: {strange}")
    return Verdict(number, "released")


def run(
    numbers: Iterable[int],
    *,
    jobs: int = 1,
    seed: str = "0",
    patience: float = PATIENCE,
    work: Work | None = None,
) -> Iterator[Verdict]:
    """Give the verdict on each mutant, as they come, from ``jobs`` processes.

    One that takes longer than ``patience`` seconds is killed and hung; one whose process ends has
    died. Both cost a new process and no other mutant. ``work`` is what the processes run.
    """
    waiting = iter(numbers)
    hands: list[_Hand] = [_Hand(seed, work or _work) for _ in range(jobs)]
    try:
        for hand in hands:
            hand.take(next(waiting, None))
        while any(hand.number is not None for hand in hands):
            busy = [hand for hand in hands if hand.number is not None]
            wait([hand.pipe for hand in busy], timeout=1.0)
            for hand in busy:
                verdict = hand.verdict(patience)
                if verdict is not None:
                    yield verdict
                    hand.take(next(waiting, None))
    finally:
        for hand in hands:
            hand.end()


#: Gets a pipe and the seed. Sends None when it is ready, then for each number its Verdict.
Work = Callable[[Connection, str], None]


class _Hand:
    """One process that judges, and the mutant that it has in hand."""

    def __init__(self, seed: str, work: Work) -> None:
        self._seed = seed
        self._work = work
        self.number: int | None = None
        self._since = 0.0
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process: BaseProcess = context.Process(
            target=self._work, args=(theirs, self._seed), daemon=True
        )
        self._process.start()
        theirs.close()
        self.pipe.recv()  # it has made its specimens

    def take(self, number: int | None) -> None:
        self.number, self._since = number, time.monotonic()
        if number is not None:
            self.pipe.send(number)

    def verdict(self, patience: float) -> Verdict | None:
        """Give the verdict when there is one."""
        number = self.number
        assert number is not None
        try:
            if self.pipe.poll():
                verdict: Verdict = self.pipe.recv()
                return verdict
        except (EOFError, ConnectionError):
            self._process.join()
            code = self._process.exitcode
            self._start()
            return Verdict(number, "died", f"exit code {code}")
        if time.monotonic() - self._since < patience:
            return None
        self.end()
        self._start()
        return Verdict(number, "hung")

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self.pipe.close()


def _work(pipe: Connection, seed: str) -> None:
    faulthandler.enable()
    tools = still_tools()
    _specimens()
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    pipe.send(None)
    while True:
        number = pipe.recv()
        pipe.send(judge(number, *numbered(number, seed), tools))


def _not_on_a_list(dataset: Dataset) -> str:
    """Give the tags of a result that no allow-list names and no mark of ours is."""
    known = {rule.tag for rules in allow_lists().values() for rule in rules} | _MARKS
    return " ".join(str(tag) for tag in sorted(dataset.keys()) if tag not in known)


#: What a result says of itself: header/marks.py, and the pixels with the lossy history.
_MARKS: Final = frozenset(
    {0x00080005, 0x00082111, 0x00082112, 0x00089215, 0x0018A001, 0x00120062, 0x00120063}
    | {0x00120064, 0x00280301, 0x00280303, 0x00282110, 0x00282112, 0x00282114, 0x7FE00010}
)
