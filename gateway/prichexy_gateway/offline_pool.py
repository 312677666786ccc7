"""Anonymising many studies on several processors, each process with a generator of its own."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prichexy_gateway.errors import Failed, Interrupted
from prichexy_gateway.offline import FileStudy, Places, StudyResult, anonymize_study
from prichexy_worker import gate
from prichexy_worker.engine import Engine
from prichexy_worker.logs import configure_logging
from prichexy_worker.pipeline import Tools
from prichexy_worker.project import read_project
from prichexy_worker.pseudonyms import Pseudonyms
from prichexy_worker.settings import Syntax
from prichexy_worker.text import TextFinder

__all__ = ["Recipe", "anonymize_studies", "keep_quiet", "load_tools"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What every process needs to load its own tools."""

    bundle: Path
    key_file: Path
    device: str
    threads: int
    syntax: Syntax
    profile: Path | None = None


def load_tools(recipe: Recipe) -> tuple[Tools, Engine]:
    """Load the generator, the key and the text finder; see that the release gate can work.

    Raises Misconfigured.
    """
    gate.installed()
    engine = Engine.load(recipe.bundle, device=recipe.device, threads=recipe.threads)
    project = read_project(recipe.profile)
    tools = Tools(
        engine=engine,
        pseudonyms=project.pseudonyms(Pseudonyms.from_key_file(recipe.key_file)),
        text_finder=TextFinder(),
        syntax=recipe.syntax,
        profile=project.profile,
        masks=project.masks,
    )
    return tools, engine


def keep_quiet() -> None:
    """Silence what libraries say: their logs and warnings hold values of the objects.

    Errors of our own are shown: they name a study by its opaque name and an exception by its
    class and place.
    """
    warnings.simplefilter("ignore")
    configure_logging(level=logging.ERROR)
    logging.captureWarnings(capture=False)
    root = logging.getLogger()
    for handler in root.handlers:
        handler.addFilter(lambda record: record.name.startswith("prichexy_"))


def anonymize_studies(
    studies: Sequence[FileStudy],
    places: Places,
    tools: Tools,
    recipe: Recipe,
    jobs: int,
    stop: threading.Event,
) -> Iterator[StudyResult]:
    """Give the studies' results as they come; in order when ``jobs`` is 1.

    Once ``stop`` is set no further study is begun; those under way come to their end, then
    Interrupted is raised. Raises Failed as ``anonymize_study`` does.
    """
    if jobs == 1:
        for study in studies:
            if stop.is_set():
                raise Interrupted
            yield anonymize_study(study, places, tools)
        return
    # Not forked: after torch has computed with threads, a forked child of that process hangs.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, _start_process, (recipe, places)) as pool:
        yield from _as_they_end(pool, studies, jobs, stop)


def _as_they_end(
    pool: ProcessPoolExecutor, studies: Sequence[FileStudy], jobs: int, stop: threading.Event
) -> Iterator[StudyResult]:
    waiting = iter(studies)
    running: set[Future[StudyResult]] = set()
    while True:
        while len(running) < jobs and not stop.is_set():
            study = next(waiting, None)
            if study is None:
                break
            running.add(pool.submit(_anonymize_one, study))
        if not running:
            break
        ended, running = wait(running, return_when=FIRST_COMPLETED)
        for future in ended:
            try:
                yield future.result()
            except BrokenProcessPool:
                raise Failed("A process ended unexpectedly (out of memory?).") from None
    if stop.is_set():
        raise Interrupted


@dataclass(slots=True)
class _Process:
    """What one process of the pool works with."""

    tools: Tools
    places: Places


_PROCESS: Final[list[_Process]] = []


def _start_process(recipe: Recipe, places: Places) -> None:
    # Ctrl-C reaches every process of the terminal; only the first decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_quiet()
    _PROCESS.append(_Process(load_tools(recipe)[0], places))


def _anonymize_one(study: FileStudy) -> StudyResult:
    process = _PROCESS[0]
    return anonymize_study(study, process.places, process.tools)
