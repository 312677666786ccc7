"""``prichexy-train table``: a whole experiment, from radiographs to its report."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prichexy_train.commands.options import Minutes, Set, deadline_in, sources_of

if TYPE_CHECKING:
    from prichexy_train.progress import Progress

__all__ = ["table"]


def table(
    experiment: Annotated[Path, typer.Argument(help="One of train/configs/experiments.")],
    data: Annotated[
        Path,
        typer.Option(
            "--data", help="The folder that holds, or will hold, the prepared sets by name."
        ),
    ],
    runs: Annotated[Path, typer.Option("--runs", help="The folder for all run folders.")],
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--source",
            metavar="NAME=FOLDER",
            help="Where the radiographs of a set lie, to prepare it first.",
            show_default=False,
        ),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", help="The folder for the report; RUNS/report if left out."),
    ] = None,
    minutes: Minutes = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list the steps, each with its state.")
    ] = False,
    changes: Set = None,
) -> None:
    """Do all that a table takes: prepare, train, anonymise, attack, measure, report.

    Each step is what its subcommand does, one after the other in this process; started several
    times at once, it shares the steps. What is finished is not done again, what was begun goes on;
    so the same command, given again and again, comes to the end, by slices of --minutes if need
    be. A training that another command did in its run folder counts. Exit codes: 0 finished; 1 a
    step failed; 2 wrong use or configuration; 75 the minutes are over: run the same command
    again; 130 stopped by Ctrl-C.
    """
    from prichexy_train.commands.prepare import processors  # noqa: PLC0415
    from prichexy_train.errors import Misconfigured  # noqa: PLC0415
    from prichexy_train.experiment import Experiment, Places, steps_of  # noqa: PLC0415 - torch
    from prichexy_train.performing import Stages  # noqa: PLC0415
    from prichexy_train.progress import Progress  # noqa: PLC0415
    from prichexy_train.settings import read_settings  # noqa: PLC0415
    from prichexy_train.stopping import INTERRUPTED, NOT_FINISHED  # noqa: PLC0415

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise Misconfigured(
            "table runs in one process; train with torchrun by the stage's own command, into the "
            "run folder that --dry-run names, and table counts it as done"
        )
    deadline = deadline_in(minutes)
    settings = read_settings(experiment, Experiment, changes or ())
    places = Places(experiment, data, runs, to or runs / "report", sources_of(source or ()))
    steps = steps_of(settings, places)
    progress = Progress(
        steps,
        Stages(settings, runs, jobs=processors()),
        typer.echo,
        spare=frozenset()
        if settings.keep_anonymised
        else frozenset(step.anonymised for step in steps if step.anonymised),
    )
    if dry_run:
        _show(progress)
        return
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    outcome = progress.carry_on(deadline)
    if outcome.ended == "interrupted":
        typer.echo(f"{outcome.step}: stopped; the same command goes on from here")
        raise typer.Exit(INTERRUPTED)
    if outcome.ended == "deadline":
        typer.echo(f"{outcome.step}: not finished; run the same command again")
        raise typer.Exit(NOT_FINISHED)
    typer.echo(f"{settings.name}: finished; {places.report / 'report.html'}")


def _show(progress: Progress) -> None:
    width = max(len(step.name) for step in progress.steps)
    for step in progress.steps:
        # The report is written anew whenever all else is done.
        state = progress.state(step)
        typer.echo(f"{state:9} {step.name:{width}}  {step.folder}")
