"""``prichexy-train official-lists``: what ChestX-ray14's tables say with no image at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prichexy_train.commands.options import Set

__all__ = ["official_lists"]


def official_lists(
    config: Annotated[Path, typer.Argument(help="train/configs/data/chestxray14.toml.")],
    source: Annotated[
        Path, typer.Option(help="The folder of the tables and published pairs; .gz will do.")
    ],
    to: Annotated[Path, typer.Option(help="The folder for official-lists.md and .json.")],
    changes: Set = None,
) -> None:
    """Read ChestX-ray14's tables and the published pairs, without its images, and write a page.

    Split, overlaps, pairs, and how far sex, age and view alone get on the published test pairs.
    The same tables give the same page. Takes about a minute.
    """
    import json  # noqa: PLC0415

    from prichexy_train.checkpoints import write_whole  # noqa: PLC0415 - imports torch
    from prichexy_train.data.official import survey  # noqa: PLC0415
    from prichexy_train.data.settings import PrepareSettings  # noqa: PLC0415
    from prichexy_train.report.official_page import official_page  # noqa: PLC0415
    from prichexy_train.settings import read_settings  # noqa: PLC0415

    found = survey(read_settings(config, PrepareSettings, changes or ()), source)
    to.mkdir(parents=True, exist_ok=True)
    texts = {
        "official-lists.md": official_page(found),
        "official-lists.json": json.dumps(found, indent=2, ensure_ascii=False) + "\n",
    }
    for name, text in texts.items():
        write_whole(to / name, text.encode())
        typer.echo(to / name)
