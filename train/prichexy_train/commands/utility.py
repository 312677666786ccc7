"""``prichexy-train utility``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prichexy_train.commands.attack import Anonymised, Method, end, show_progress
from prichexy_train.commands.options import Config, Data, Minutes, Run, Set, deadline_in

__all__ = ["utility"]


def utility(
    config: Config,
    data: Data,
    run: Run,
    method: Method,
    classifier: Annotated[
        Path,
        typer.Option("--classifier", help="The run of a classifier, trained on real images."),
    ],
    anonymised: Anonymised = None,
    minutes: Minutes = None,
    changes: Set = None,
) -> None:
    """Measure what a classifier still reads in anonymised test images, and in the real ones.

    Exit codes: 0 finished; 1 an error; 2 wrong use or configuration; 75 the minutes are over: run
    the same command again.
    """
    from prichexy_train.settings import read_settings  # noqa: PLC0415
    from prichexy_train.utility import UtilitySettings, run_utility  # noqa: PLC0415 - torch

    settings = read_settings(config, UtilitySettings, changes or ())
    show_progress()
    finished = run_utility(
        settings,
        data,
        run,
        method=method,
        classifier=classifier,
        anonymised=anonymised,
        deadline=deadline_in(minutes),
    )
    end(run, "finished" if finished else "deadline", "finished")
