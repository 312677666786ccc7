"""``prichexy serve``: the whole gateway on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from prichexy_gateway.commands.options import HomeOption, home_at
from prichexy_gateway.errors import Misconfigured
from prichexy_gateway.unfailing import unfailing

__all__ = ["serve"]


def serve(
    source: Annotated[
        Path | None,
        typer.Argument(
            help="A DICOM file or folder to send through the gateway. Default: a sample "
            "radiograph of the package pydicom-data.",
            exists=True,
            show_default=False,
        ),
    ] = None,
    once: Annotated[
        bool,
        typer.Option(
            "--once", help="Stop after SOURCE went through; the exit code says how it went."
        ),
    ] = False,
    nothing: Annotated[
        bool,
        typer.Option("--no-source", help="Send nothing through it at the start: only serve."),
    ] = False,
    home: HomeOption = None,
    http_port: Annotated[
        int,
        typer.Option(help="Ingest Orthanc, dashboard. 0: the last one, or any.", min=0, max=65535),
    ] = 0,
    dicom_port: Annotated[int, typer.Option(help="Ingest Orthanc, C-STORE.", min=0, max=65535)] = 0,
    export_port: Annotated[int, typer.Option(help="Export Orthanc.", min=0, max=65535)] = 0,
    redis_port: Annotated[int, typer.Option(help="Redis.", min=0, max=65535)] = 0,
    stable_age: Annotated[
        int,
        typer.Option(
            help="Seconds without a new instance until a study counts as complete. Give a slow "
            "sender more; a late instance makes the study be processed anew.",
            min=1,
        ),
    ] = 5,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    model: Annotated[
        Path | None,
        typer.Option(
            help="A MONAI bundle to be promoted before the start, as `prichexy model promote` "
            "does. Default: the model in use; at the first start the checkout's.",
            show_default=False,
        ),
    ] = None,
    worker_config: Annotated[
        Path | None,
        typer.Option(
            help="A TOML file with more settings for the worker, such as a section [export] for "
            "another export peer. See docs/settings.md.",
            dir_okay=False,
            exists=True,
            show_default=False,
        ),
    ] = None,
    orthanc_config: Annotated[
        Path | None,
        typer.Option(
            help="A folder with ingest.json and export.json. Default: orthanc-config of the "
            "checkout.",
            file_okay=False,
            exists=True,
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run Redis, the ingest and the export Orthanc and a worker until Ctrl-C.

    First a sample radiograph (or SOURCE) is sent through all of it, and a picture of it before
    and after is made.

    A part that dies is started anew while the others go on; only when the ingest Orthanc does not
    start any more all is stopped.

    Exit codes: 0 it worked, or stopped by Ctrl-C after it did; 1 something failed;
    2 wrong use or configuration; 3 not every study of SOURCE was exported (with --once);
    130 stopped by Ctrl-C before it was done.
    """
    from prichexy_gateway.native import Options  # noqa: PLC0415
    from prichexy_gateway.ports import Ports  # noqa: PLC0415
    from prichexy_gateway.serving import Request, run  # noqa: PLC0415
    from prichexy_gateway.worker_settings import read_sections  # noqa: PLC0415

    if nothing and (once or source is not None):
        raise Misconfigured("--no-source goes with neither SOURCE nor --once")
    options = Options(
        ports=Ports(http_port, dicom_port, export_port, redis_port),
        stable_age=stable_age,
        device=device,
        orthanc_config=orthanc_config,
        model_bundle=model,
        worker_settings=read_sections(worker_config) if worker_config else {},
    )
    request = Request(home_at(home), options, source, once=once, sends=not nothing)
    # A full disk under its log, or a pipe that nobody reads any more, ends no gateway.
    console = Console(highlight=False, file=unfailing(sys.stdout))
    raise typer.Exit(run(request, console))
