"""``prichexy-train export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["export"]


def export(
    anonymizer: Annotated[
        Path,
        typer.Option("--anonymizer", help="The finished run of `anonymizer` (or `pretrain`)."),
    ],
    to: Annotated[Path, typer.Option("--to", help="The bundle's folder, which is made.")],
    verifier: Annotated[
        Path | None,
        typer.Option(
            "--verifier",
            help="The run of a strong verifier; with --records, one that attacked in them.",
            show_default=False,
        ),
    ] = None,
    classifier: Annotated[
        Path | None,
        typer.Option(
            "--classifier",
            help="The run of a classifier; with --records, one that measured utility in them.",
            show_default=False,
        ),
    ] = None,
    records: Annotated[
        Path | None,
        typer.Option(
            "--records",
            "--report",
            help="A folder; the records of attacks and utility anywhere below it give the "
            "figures, and decide whether the evidence is `measured`.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="The bundle's name.")] = "prichexy-generator",
    version: Annotated[
        str | None,
        typer.Option(
            help="Its version, which results name. Default: follows from weights, settings and "
            "figures.",
            show_default=False,
        ),
    ] = None,
    data_source: Annotated[
        str,
        typer.Option(
            help="A sentence on the training images and their licence.", show_default=False
        ),
    ] = "",
    template: Annotated[
        Path | None,
        typer.Option(
            help="The bundle whose licence, schema and inference are taken. Default: the "
            "checkout's model/untrained.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Make a MONAI bundle of trained networks, with digests, provenance, figures and limits.

    The evidence is `measured` when records on one data set hold the ladder's rungs 1 to 5 and 8,
    five seeds of those that train, a strong attacker of real images beside them, and utility; else
    `trained`. No figure is typed in. Exit codes: 0 made; 1 an error; 2 wrong use.
    """
    from prichexy_train.bundle_export import (  # noqa: PLC0415 - torch takes seconds
        DEFAULT_TEMPLATE,
        export_bundle,
    )

    made = export_bundle(
        anonymizer,
        to,
        verifier=verifier,
        classifier=classifier,
        records=records,
        name=name,
        version=version,
        data_source=data_source,
        template=template or DEFAULT_TEMPLATE,
    )
    figures = made.figures
    typer.echo(f"{made.folder}: {name} {made.version}, {figures.evidence}")
    typer.echo(figures.statement)
    if figures.missing:
        typer.echo(f"For `measured` there lacks: {'; '.join(figures.missing)}.")
    typer.echo(f"Half precision moves a displacement by {made.moved:.4f} pixels at most.")
