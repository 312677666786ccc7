"""``python -m prichexy_testing.faults.worker_program FOLDER``: the worker of fault tests.

It is ``prichexy_worker.main`` as it stands, and so the claim, the pipeline with header, encoding
and release gate, the export, the reports and Celery. In the place of the parts that take seconds an
image stand a smooth displacement for the generator's and a search for text that finds none. Beside
that:

* it announces itself each second, for the plugin takes it for dead after six here, and pauses
  between two attempts are a second or two; a broker that says nothing is left after seconds;
* codecs are those of ``poisoned_child``, and have 2 seconds;
* where FOLDER/stops has a file that is called as a step, the first worker to come to that step
  renames it to STEP.PID and stays there as long as that file does;
* an image whose ImageComments is one of IN_THE_WORKER does that to this process in the step "text".
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from prichexy_testing.faults import poisoned_child
from prichexy_testing.faults.marks import ENDLESS, READY, SEGFAULT, STOPS
from prichexy_testing.finders import Finds
from prichexy_testing.generators import Unjudged
from prichexy_worker import codestream, main, pipeline
from prichexy_worker.announcer import Announcer
from prichexy_worker.contract import ModelInfo
from prichexy_worker.pipeline import Tools
from prichexy_worker.pseudonyms import Pseudonyms
from prichexy_worker.retry import RetryPolicy
from prichexy_worker.settings import Settings

__all__: list[str] = []


class SmoothDisplacement(Unjudged):
    """A generator that needs no network: the same gentle wave for every view."""

    input_size = 64
    device = "cpu"
    device_reason = "a test"
    model = ModelInfo("wave", "1", "0" * 64, "untrained", "A wave: no privacy is claimed.")

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def displacement(self, view: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        y, x = np.mgrid[0 : view.shape[0], 0 : view.shape[1]].astype(np.float32) / view.shape[0]
        return 0.02 * np.stack([np.sin(6 * x), np.cos(6 * y)]).astype(np.float32)


def _tools(settings: Settings) -> tuple[Tools, Any]:
    engine = SmoothDisplacement(settings.model.bundle.resolve())
    pseudonyms = Pseudonyms.from_key_file(settings.pseudonyms.key_file)
    return Tools(engine, pseudonyms, Finds(), syntax=settings.output.syntax), engine


def _stopping_at(folder: Path) -> None:
    real = pipeline.Stopwatch.step

    @contextmanager
    def step(watch: pipeline.Stopwatch, name: str) -> Iterator[None]:
        mark, pause = folder / f"{name}.{os.getpid()}", threading.Event()
        with suppress(FileNotFoundError):
            (folder / name).rename(mark)
            while mark.exists():
                pause.wait(0.05)
        with real(watch, name):
            yield

    pipeline.Stopwatch.step = step  # type: ignore[method-assign]


def _poisoned() -> None:
    real = pipeline.inspection.speaks_of_text

    def speaks_of_text(dataset: Dataset) -> bool:
        comment = str(dataset.get("ImageComments", ""))
        if comment == SEGFAULT:
            ctypes.string_at(1)
        if comment == ENDLESS:
            re.match(r"(a|aa)+$", "a" * 200 + "b")
        return real(dataset)

    pipeline.inspection.speaks_of_text = speaks_of_text  # type: ignore[assignment]


def _main(folder: Path) -> int:
    _stopping_at(folder / STOPS)
    _poisoned()
    codestream._CHILD = Path(poisoned_child.__file__)  # type: ignore[misc]
    codestream.MOST_SECONDS = 2  # type: ignore[misc]
    main.load_tools = _tools  # type: ignore[assignment]
    main.Announcer = partial(Announcer, interval=1.0)  # type: ignore[misc, assignment]
    main.RetryPolicy.below = staticmethod(  # type: ignore[method-assign]
        lambda _seconds: RetryPolicy(first=1.0, ceiling=2.0)
    )
    create_app = main.create_app

    def create_quick_app(settings: Settings) -> Any:
        app = create_app(settings)
        app.conf.broker_transport_options["health_check_interval"] = 3
        return app

    main.create_app = create_quick_app
    work = main.work

    def ready(*arguments: Any) -> int:
        Path(READY).touch()
        return work(*arguments)

    main.work = ready
    return main.main([])


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1])))
