"""``prichexy explain``: what would become of each attribute of a DICOM file, and why."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from prichexy_gateway.errors import Failed

__all__ = ["explain"]

_VALUES = ("before", "after")


def explain(
    file: Annotated[Path, typer.Argument(help="A DICOM file.", exists=True, dir_okay=False)],
    profile: Annotated[
        Path | None,
        typer.Option(
            help="A project profile. Default: the Basic Profile.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(
            help="The key of all pseudonyms, for --values. Default: a key of the moment, whose "
            "pseudonyms are no others'.",
            show_default=False,
        ),
    ] = None,
    values: Annotated[
        bool, typer.Option("--values", help="Show the values, too: they identify the patient.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """Show what would become of each attribute, by which rule, and the row of Table E.1-1.

    The pixels are not looked at, and nothing is written. Values are shown only with --values.

    Exit codes: 0; 1 the header alone would send the object to quarantine (where it is of no chest,
    after all is shown), or it is not readable; 2 wrong use, or a profile that does not fit.
    """
    from prichexy_worker import inspection  # noqa: PLC0415
    from prichexy_worker.errors import Rejected  # noqa: PLC0415
    from prichexy_worker.header.explain import explain as explained  # noqa: PLC0415
    from prichexy_worker.project import read_project  # noqa: PLC0415
    from prichexy_worker.pseudonyms import Pseudonyms  # noqa: PLC0415

    wanted = read_project(profile).profile
    key = Pseudonyms.from_key_file(key_file) if key_file else Pseudonyms.of_the_moment()
    try:
        source = inspection.read(file.read_bytes())
        found = explained(source, wanted.pseudonyms(key), wanted)
    except OSError as error:
        raise Failed(f"The file cannot be read ({error.strerror}).") from None
    except Rejected as error:
        raise Failed(f"This object would go to quarantine: {error}") from None
    rows = [asdict(one) for one in found]
    if not values:
        rows = [{key: row[key] for key in row if key not in _VALUES} for row in rows]
    if as_json:
        typer.echo(json.dumps({"profile": wanted.to_json(), "attributes": rows}, indent=2))
    else:
        _print(rows, values=values)
        typer.echo(f"Profile {wanted.name}, SHA-256 {wanted.digest[:16]}.")
    try:
        inspection.inspect(source)
    except Rejected as error:
        raise Failed(f"This object would go to quarantine all the same: {error}") from None


def _print(rows: Sequence[Mapping[str, str]], *, values: bool) -> None:
    # No markup: a value may look like it.
    console = Console(highlight=False, markup=False, soft_wrap=not values)
    table = Table(box=None, pad_edge=False)
    for title in ("Attribute", "", "VR", "What happens", "Why", "Table E.1-1"):
        table.add_column(title, overflow="fold")
    if values:
        table.add_column("Before", overflow="fold")
        table.add_column("After", overflow="fold")
    for row in rows:
        table.add_row(*row.values())
    console.print(table)
    counts = Counter(row["fate"] for row in rows)
    console.print(", ".join(f"{number} {fate}" for fate, number in sorted(counts.items())) + ".")
