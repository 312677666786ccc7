"""``prichexy-train pack``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prichexy_train.commands.options import Set, sources_of

__all__ = ["pack"]


def pack(
    experiment: Annotated[Path, typer.Argument(help="One of train/configs/experiments.")],
    to: Annotated[Path, typer.Option("--to", help="A new folder for the parts.")],
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--source", metavar="NAME=FOLDER", help="Where the radiographs of a set lie: all sets."
        ),
    ] = None,
    runs: Annotated[
        Path | None,
        typer.Option(
            "--runs",
            help="Runs to go on from; what is finished is not done again.",
            show_default=False,
        ),
    ] = None,
    has: Annotated[
        Path | None,
        typer.Option(
            "--has",
            help="What `pip list --format=freeze` says on the machine: all else is carried as "
            "wheels. Left out: it has torch and numpy.",
            show_default=False,
        ),
    ] = None,
    python: Annotated[str, typer.Option(help="The machine's Python.")] = "3.12",
    limit: Annotated[int, typer.Option(min=1, help="The most MiB in a part.")] = 45,
    changes: Set = None,
) -> None:
    """Pack an experiment for a machine with a GPU, torch and no network, lent for minutes.

    In --to lie then the parts and a script, lent.sh, that says how they are used there and how
    the runs come back. A file that a --set names is taken along. Exit codes: 0 packed; 1 an
    error, such as a package that cannot be fetched; 2 wrong use.
    """
    import tempfile  # noqa: PLC0415

    from prichexy_train.lent import packing  # noqa: PLC0415 - torch takes seconds
    from prichexy_train.lent.distributions import lacking  # noqa: PLC0415
    from prichexy_train.lent.wheels import fetch_wheels, names_in  # noqa: PLC0415

    there = {"torch", "numpy"} if has is None else names_in(has)
    with tempfile.TemporaryDirectory() as folder:
        wheels = Path(folder)
        fetch_wheels(lacking(there), wheels, python)
        packed = packing.pack(
            experiment,
            to,
            sources=sources_of(source or ()),
            changes=changes or (),
            wheels=wheels,
            runs=runs,
            limit_mib=limit,
        )
    for part in packed.parts:
        typer.echo(f"{part}  {part.stat().st_size / 2**20:.1f} MiB")
    typer.echo(f"how they are used there: {to / packing.SCRIPT}")
