"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prichexy_gateway.home import Home, default_home

__all__ = ["HomeOption", "WorkerConfigOption", "home_at"]

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home",
        help="The gateway's folder. Default: $PRICHEXY_HOME, else .gateway in the checkout.",
        file_okay=False,
        show_default=False,
    ),
]

WorkerConfigOption = Annotated[
    Path | None,
    typer.Option(
        help="A worker's settings file, for a gateway that `prichexy serve` did not start. "
        "Default: $PRICHEXY_WORKER_CONFIG, else the one in --home.",
        exists=True,
        dir_okay=False,
        envvar="PRICHEXY_WORKER_CONFIG",
        show_default=False,
    ),
]


def home_at(folder: Path | None) -> Home:
    """Give the home that the option names, or the default one. Raises Failed."""
    return Home(folder.expanduser().resolve() if folder else default_home())
