"""``prichexy crosswalk``: who stands behind the pseudonyms, for those who may know."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from prichexy_gateway.commands.options import (
    HomeOption,
    WorkerConfigOption,
    home_at,
    tell_the_trail,
)
from prichexy_gateway.errors import Failed, Misconfigured
from prichexy_gateway.home import Home, read_secret

if TYPE_CHECKING:
    from prichexy_gateway.client import OrthancClient
    from prichexy_worker.settings import Settings

__all__ = ["crosswalk"]


def crosswalk(
    to: Annotated[Path, typer.Argument(help="The file to write; it must not be there yet.")],
    recipient: Annotated[
        list[str],
        typer.Option(
            help="Who can read it: an age public key (age1…). Several times for several people."
        ),
    ],
    source: Annotated[
        Path | None,
        typer.Option(
            help="Files or a folder of originals. Default: all that the ingest Orthanc holds.",
            exists=True,
            show_default=False,
        ),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(help="The key of all pseudonyms, with --source.", show_default=False),
    ] = None,
    profile: Annotated[
        Path | None, typer.Option(help="The project profile, with --source.", show_default=False)
    ] = None,
    home: HomeOption = None,
    worker_config: WorkerConfigOption = None,
    user: Annotated[
        str | None,
        typer.Option(
            help="A user of the ingest Orthanc who may read its studies, for a gateway that "
            "`prichexy serve` did not start. The worker's may not.",
            show_default=False,
        ),
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(
            help="The file of that user's password.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write which patient and study stands behind which pseudonym, encrypted.

    It is computed from the originals and the key, and kept nowhere else. Only the recipients can
    read it (age --decrypt); whoever can undoes the pseudonyms.

    Exit codes: 0; 1 Orthanc does not answer, or the file cannot be written; 2 wrong use.
    """
    from prichexy_gateway.anonymizing import default_key_file  # noqa: PLC0415
    from prichexy_gateway.crosswalk import (  # noqa: PLC0415
        Skipped,
        encrypted,
        of_files,
        of_orthanc,
        write_new,
    )
    from prichexy_gateway.deeds import note  # noqa: PLC0415
    from prichexy_gateway.dicom_files import find_dicom_files  # noqa: PLC0415
    from prichexy_gateway.sealed import check_recipients  # noqa: PLC0415
    from prichexy_gateway.services import worker_configuration  # noqa: PLC0415
    from prichexy_gateway.worker_settings import load_settings_at  # noqa: PLC0415
    from prichexy_worker.project import read_project  # noqa: PLC0415
    from prichexy_worker.pseudonyms import Pseudonyms  # noqa: PLC0415

    if source is None and (key_file is not None or profile is not None):
        raise Misconfigured("--key-file and --profile go with --source; the gateway has its own")
    if (user is None) != (password_file is None):
        raise Misconfigured("--user and --password-file go together")
    check_recipients(recipient)  # before anything is read
    skipped = Skipped()
    if source is not None:
        wanted = read_project(profile).profile
        key = Pseudonyms.from_key_file(key_file or default_key_file())
        files = find_dicom_files(source).files
        rows = list(of_files(files, wanted.pseudonyms(key), wanted, skipped))
    else:
        settings = load_settings_at(worker_config or worker_configuration(home_at(home)))
        wanted = read_project(settings.profile.file).profile
        key = Pseudonyms.from_key_file(settings.pseudonyms.key_file)
        with _reader(settings, home, user, password_file) as client:
            rows = list(of_orthanc(client, wanted.pseudonyms(key), wanted, skipped))
    sealed = encrypted(rows, recipient)
    place = _gateway(home)
    if place is not None:
        # Before it is there to be read: what cannot be noted is not made.
        note(place, "crosswalk", key_id=key.key_id, studies=len(rows), recipients=recipient)
        tell_the_trail(place)
    else:
        typer.echo("prichexy: there is no gateway here: no audit trail has this.", err=True)
    write_new(to, sealed)
    console = Console(highlight=False)
    console.print(f"{len(rows)} studies, for {len(recipient)} recipients, under key {key.key_id}.")
    if skipped.count:
        console.print(f"{skipped.count} objects lack what a pseudonym is made of.")


def _reader(
    settings: Settings, home: Path | None, user: str | None, password_file: Path | None
) -> OrthancClient:
    """Give a client of the ingest Orthanc that may read all studies: a worker reads only its own.

    Raises Failed, Misconfigured.
    """
    from prichexy_gateway.client import ingest_of  # noqa: PLC0415
    from prichexy_gateway.services import ingest_client  # noqa: PLC0415

    if password_file is not None:
        return ingest_of(settings, user, read_secret(password_file))
    place = home_at(home)
    return ingest_client(place, place.addresses())


def _gateway(home: Path | None) -> Home | None:
    """Give the gateway's folder, if there is one: originals in files need none."""
    try:
        place = home_at(home)
    except Failed:
        return None
    return place if place.root.is_dir() else None
