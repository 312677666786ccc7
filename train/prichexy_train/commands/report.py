"""``prichexy-train report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["report"]


def report(
    runs: Annotated[
        Path, typer.Argument(help="A folder; every run and record anywhere below it counts.")
    ],
    to: Annotated[Path, typer.Option("--to", help="The folder for report.html and report.md.")],
    title: Annotated[str, typer.Option(help="What the page is called.")] = "PriCheXy-Net, measured",
    data: Annotated[
        list[Path] | None,
        typer.Option(
            "--data",
            help="A folder that `prepare` made, for its sizes and for --examples. Several: each "
            "with its --data.",
            show_default=False,
        ),
    ] = None,
    examples: Annotated[
        list[str] | None,
        typer.Option(
            "--examples",
            metavar="SET",
            help="Show test images of this set; its licence must allow it.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write tables, plots and what they can and cannot show, from the records of runs.

    One page that needs nothing else, and the same as Markdown. Every figure is read from records;
    those of the paper are marked as published. Exit codes: 0 written; 1 an error, such as a
    record that cannot be read; 2 wrong use.
    """
    from prichexy_train.data.prepared import PreparedSet  # noqa: PLC0415 - torch
    from prichexy_train.errors import Misconfigured  # noqa: PLC0415
    from prichexy_train.report.evidence import gather  # noqa: PLC0415
    from prichexy_train.report.examples import draw_examples  # noqa: PLC0415
    from prichexy_train.report.page import compose, write_page  # noqa: PLC0415

    evidence = gather(runs)
    sets = {one.name: one for one in map(PreparedSet.open, data or ())}
    if unknown := sorted(set(examples or ()) - sets.keys()):
        raise Misconfigured(f"--examples {unknown[0]}: give the set's folder by --data")
    page = compose(
        evidence,
        title,
        sets={name: one.summary for name, one in sets.items()},
        examples=draw_examples(evidence, [sets[name] for name in examples or ()]),
    )
    for path in write_page(page, to):
        typer.echo(path)
