"""``prichexy submit``: sends files to a running gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from prichexy_gateway.commands.options import HomeOption, home_at

__all__ = ["submit"]


def submit(
    source: Annotated[
        Path, typer.Argument(help="A DICOM file, or a folder to any depth.", exists=True)
    ],
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until each study has come to an end.")
    ] = False,
    home: HomeOption = None,
) -> None:
    """Send DICOM files by C-STORE to the gateway that runs in --home.

    Exit codes: 0 all objects were taken (with --wait: all studies were exported); 1 an error, a
    study failed, or a file could not be read; 2 wrong use; 3 some objects were refused, or
    studies not let through; 4 no DICOM object was found; 130 stopped by Ctrl-C.
    """
    from prichexy_gateway.submitting import run  # noqa: PLC0415

    raise typer.Exit(run(home_at(home), source, Console(highlight=False), wait=wait))
