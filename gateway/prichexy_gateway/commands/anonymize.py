"""``prichexy anonymize``: files and folders, with no server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

__all__ = ["anonymize"]


def anonymize(
    source: Annotated[Path, typer.Argument(help="A DICOM file, or a folder to any depth.")],
    destination: Annotated[
        Path, typer.Argument(metavar="DEST", help="The folder for the results. Made if missing.")
    ],
    key_file: Annotated[
        Path | None,
        typer.Option(
            help="The key of all pseudonyms. The same key gives the same pseudonyms; without it "
            "nobody can link results to patients. Default: ~/.config/prichexy/pseudonyms.key, "
            "made at the first use.",
            show_default=False,
        ),
    ] = None,
    quarantine: Annotated[
        Path | None,
        typer.Option(
            help="The folder for originals that could not be made safe, with the reason. It holds "
            "patients' data. Default: DEST-quarantine beside DEST.",
            show_default=False,
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Write what became of each study here, as JSON.", show_default=False),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    jobs: Annotated[int, typer.Option(min=1, help="Studies worked on at a time.")] = 1,
    model: Annotated[
        Path | None,
        typer.Option(help="A MONAI bundle. Default: the checkout's.", show_default=False),
    ] = None,
    profile: Annotated[
        Path | None,
        typer.Option(
            help="A project profile: what is kept of the headers. Default: the Basic Profile.",
            show_default=False,
        ),
    ] = None,
    syntax: Annotated[
        Literal["explicit-little-endian", "rle-lossless", "jpeg-ls-lossless"],
        typer.Option(help="How the results' pixels are encoded; all are lossless."),
    ] = "explicit-little-endian",
) -> None:
    """Anonymise DICOM files: header, burned-in text, anatomy. A study leaves whole or not at all.

    What could not be made safe goes to quarantine. The same input, key and model give the same
    bytes. A study that was exported to DEST before and is not now is removed from there.

    Exit codes: 0 all studies were exported; 1 an error, a study failed, or a file could not be
    read; 2 wrong use or configuration; 3 some studies are in quarantine; 4 no DICOM object was
    found; 130 stopped by Ctrl-C (the studies finished until then have been exported).
    """
    # Loads torch: seconds that no other command should take.
    from prichexy_gateway.anonymizing import Request, run  # noqa: PLC0415

    request = Request(
        source=source,
        destination=destination,
        key_file=key_file,
        quarantine=quarantine,
        report=report,
        device=device,
        jobs=jobs,
        bundle=model,
        syntax=syntax,
        profile=profile,
    )
    raise typer.Exit(run(request, Console(highlight=False)))
