"""``prichexy-train attack``."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from prichexy_train.commands.options import Config, Data, Minutes, Run, Set, deadline_in

__all__ = ["Anonymised", "Method", "attack", "end", "show_progress"]

Method = Annotated[
    str,
    typer.Option(
        "--method", help="real, dp-pix:b=4, random:mu=0.01, run:FOLDER, or bundle:FOLDER."
    ),
]
Anonymised = Annotated[
    Path | None,
    typer.Option(
        "--anonymised",
        help="Where the method's images are, or will be; RUN/anonymised if left out. Attack and "
        "utility can share them.",
        show_default=False,
    ),
]

#: Exit codes by how a run ended; "finished" is 0.
_UNFINISHED: Final = {
    "interrupted": "stopped; the same command goes on from here",
    "deadline": "not finished; run the same command again",
}


def attack(
    config: Config,
    data: Data,
    run: Run,
    method: Method,
    verifier: Annotated[
        list[Path] | None,
        typer.Option(
            "--verifier",
            help="The run of a strong verifier, trained on real images. Several are an ensemble.",
            show_default=False,
        ),
    ] = None,
    anonymised: Anonymised = None,
    rungs: Annotated[
        str | None,
        typer.Option(
            help="Of the ladder, as in 1,3,4; 0 stands for baselines and controls.",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Trainings of each attacker.", show_default=False)
    ] = None,
    minutes: Minutes = None,
    changes: Set = None,
) -> None:
    """Attack a method of anonymisation, rung by rung of the ladder, seed by seed.

    Attempts that have their record in the run folder are not made again: with more rungs or seeds
    the same command makes those that are missing. Exit codes: 0 finished; 1 an error; 2 wrong use
    or configuration; 75 the minutes are over: run the same command again; 130 stopped by Ctrl-C.
    """
    from prichexy_train.attacks.running import run_attack  # noqa: PLC0415 - torch takes seconds
    from prichexy_train.attacks.settings import AttackSettings  # noqa: PLC0415
    from prichexy_train.settings import read_settings  # noqa: PLC0415

    changed = [
        *(changes or ()),
        *([f"rungs=[{rungs}]"] if rungs is not None else ()),
        *([f"seeds={seeds}"] if seeds is not None else ()),
    ]
    settings = read_settings(config, AttackSettings, changed)
    show_progress()
    climbed = run_attack(
        settings,
        data,
        run,
        method=method,
        verifiers=verifier or (),
        anonymised=anonymised,
        deadline=deadline_in(minutes),
    )
    for rung, reason in climbed.left_out.items():
        typer.echo(f"rung {rung}: left out: {reason}")
    end(run, climbed.ended, f"finished; {climbed.records} new records")


def end(run: Path, ended: str, finished: str) -> None:
    """Say how the run ended, and end the process with its exit code unless it is finished."""
    from prichexy_train.stopping import INTERRUPTED, NOT_FINISHED  # noqa: PLC0415

    typer.echo(f"{run}: {_UNFINISHED.get(ended, finished)}")
    if ended in _UNFINISHED:
        raise typer.Exit(INTERRUPTED if ended == "interrupted" else NOT_FINISHED)


def show_progress() -> None:
    """Let what is measured be told on standard output as it comes."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
