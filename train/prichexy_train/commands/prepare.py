"""``prichexy-train prepare``: from a folder of radiographs to all that training reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from prichexy_train.commands.options import Set

__all__ = ["prepare"]


def prepare(
    config: Annotated[Path, typer.Argument(help="One of train/configs/data, or your own.")],
    to: Annotated[Path, typer.Option(help="The folder to write; it needs nothing else later.")],
    source: Annotated[
        Path | None, typer.Option(help="The folder with the images and tables.")
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=0, help="Decoding processes; 0: one for each processor.")
    ] = 0,
    changes: Set = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Only read a prepared folder again and compare digests."),
    ] = False,
) -> None:
    """Read, check and decode a set of radiographs once, split it and choose its pairs.

    A run that was stopped goes on where it was when the same command is given again. What is
    wrong with the set is told all at once, and nothing is passed over in silence.
    """
    from prichexy_train.data.prepared import PreparedSet  # noqa: PLC0415 - imports torch
    from prichexy_train.data.preparing import prepare_set  # noqa: PLC0415
    from prichexy_train.data.settings import PrepareSettings  # noqa: PLC0415
    from prichexy_train.errors import Misconfigured  # noqa: PLC0415
    from prichexy_train.settings import read_settings  # noqa: PLC0415

    settings = read_settings(config, PrepareSettings, changes or ())
    if not verify:
        if source is None:
            raise Misconfigured("prepare: --source is needed, unless you only --verify")
        prepare_set(settings, source, to, jobs=jobs or processors(), progress=True)
    opened = PreparedSet.open(to, verify=verify)
    for line in told(opened.summary):
        typer.echo(line)
    done = "is as it was written" if verify else "prepared"
    typer.echo(f"{to}: {opened.name} {done}, digest {opened.digest[:16]}")


def processors() -> int:
    """Give how many processors this process may use."""
    import os  # noqa: PLC0415

    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def told(summary: Mapping[str, Any]) -> Iterator[str]:
    """Give a prepared set's summary as lines of text."""
    for part, counted in {"all": summary["all"], **summary["parts"]}.items():
        yield (
            f"{part:13} {counted['images']:9,} images of {counted['patients']:7,} patients "
            f"({counted['patients_with_several']:,} with several)"
        )
    for name, pairs in summary["pairs"].items():
        yield (
            f"pairs {name:13} {pairs['pairs']:7,}, {pairs['same']:,} of one patient "
            f"(from {pairs['patients_behind_same']:,} patients, {pairs['share_of_top_50']:.0%} of "
            f"them from 50); sex, age and view alone: AUC {pairs['demographics_auc']:.3f}"
        )
    labels = summary["labels"]
    yield "labels        " + (", ".join(f"{name} {n:,}" for name, n in labels.items()) or "none")
    for reason, number in summary["left_out"].items():
        yield f"left out      {number:,} {reason}"
