"""What several commands take on their command lines, and how they end."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel

    from prichexy_train.loop import Fitted

__all__ = ["Config", "Data", "Minutes", "Run", "Set", "deadline_in", "run_stage", "sources_of"]

Config = Annotated[Path, typer.Argument(help="The stage's configuration file (TOML).")]
Data = Annotated[
    list[Path],
    typer.Option(
        "--data", help="A folder that `prepare` made. Several, each with its --data, are one pool."
    ),
]
Run = Annotated[
    Path,
    typer.Option("--run", help="The run's folder; a run that lies there already is taken up."),
]
Minutes = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="Stop after so many minutes with exit code 75; the same command then goes on.",
        show_default=False,
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Put a value in place of the file's, as in training.seed=3.",
        show_default=False,
    ),
]


def deadline_in(minutes: float | None) -> float | None:
    """Give when ``minutes`` from now are over, on ``time.monotonic``'s clock."""
    return None if minutes is None else time.monotonic() + 60 * minutes


def sources_of(texts: Sequence[str]) -> Mapping[str, Path]:
    """Give sets and their folders from texts NAME=FOLDER. Raises Misconfigured."""
    from prichexy_train.errors import Misconfigured  # noqa: PLC0415

    found = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if not equals or not name or not folder:
            raise Misconfigured(f"--source {text}: not of the form NAME=FOLDER")
        found[name] = Path(folder)
    return found


Settings = TypeVar("Settings", bound="BaseModel")


def run_stage(
    settings_class: type[Settings],
    run: Callable[..., Fitted],
    config: Path,
    data: Sequence[Path],
    run_folder: Path,
    minutes: float | None,
    changes: Sequence[str] | None,
) -> None:
    """Read the settings, run the stage as one of torchrun's processes or alone, and end.

    Ends the process with exit code 75 where the time was not enough, 130 after a signal.
    """
    from prichexy_train.parallel import connected  # noqa: PLC0415 - torch takes seconds
    from prichexy_train.settings import read_settings  # noqa: PLC0415
    from prichexy_train.stopping import INTERRUPTED, NOT_FINISHED  # noqa: PLC0415

    deadline = deadline_in(minutes)
    settings = read_settings(config, settings_class, changes or ())
    with connected() as process:
        logging.basicConfig(
            level=logging.INFO if process.first else logging.WARNING,
            format="%(message)s",
            stream=sys.stdout,
        )
        fitted = run(settings, data, run_folder, deadline=deadline)
        if not process.first:
            return
    if fitted.ended == "interrupted":
        typer.echo(f"{run_folder}: stopped; the same command goes on from here")
        raise typer.Exit(INTERRUPTED)
    if fitted.ended == "deadline":
        typer.echo(f"{run_folder}: not finished; run the same command again")
        raise typer.Exit(NOT_FINISHED)
    typer.echo(
        f"{run_folder}: finished after {len(fitted.history)} epochs; "
        f"best: epoch {fitted.best_epoch}, {fitted.best:.4g}"
    )
