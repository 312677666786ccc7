"""``prichexy backup`` and ``prichexy restore``: what the gateway must not lose."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prichexy_gateway.commands.options import HomeOption, home_at, tell_the_trail
from prichexy_gateway.errors import Misconfigured

if TYPE_CHECKING:
    from prichexy_gateway.backup import Manifest

__all__ = ["backup", "restore"]


def backup(
    to: Annotated[Path, typer.Argument(help="The folder to write; it must not be there yet.")],
    recipient: Annotated[
        list[str] | None,
        typer.Option(
            help="Who can read the passwords and the pseudonyms' key in it: an age public key "
            "(age1…). Several times for several people.",
            show_default=False,
        ),
    ] = None,
    without_secrets: Annotated[
        bool, typer.Option("--without-secrets", help="Leave passwords and key out.")
    ] = False,
    without_ledger: Annotated[
        bool,
        typer.Option("--without-ledger", help="Leave the ledger out: it is on PostgreSQL."),
    ] = False,
    home: HomeOption = None,
) -> None:
    """Copy the ledger, the model store and the secrets of the gateway in --home, running or not.

    The originals are not in it. Exit codes: 0; 1 it cannot be written, or is there already;
    2 wrong use.
    """
    from prichexy_gateway.backup import back_up  # noqa: PLC0415

    if without_secrets == bool(recipient):
        raise Misconfigured("name a --recipient for the secrets, or say --without-secrets")
    place = home_at(home)
    manifest = back_up(
        place,
        to.expanduser().resolve(),
        recipients=recipient,
        now=datetime.now(UTC),
        with_ledger=not without_ledger,
    )
    typer.echo(f"Backup written: {_sentence(manifest)}")
    tell_the_trail(place)
    _warn_of_key(manifest)


def restore(
    source: Annotated[Path, typer.Argument(help="A folder that `prichexy backup` wrote.")],
    identity: Annotated[
        Path | None,
        typer.Option(help="The file of your age key, for the secrets.", show_default=False),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Keep what is there aside, as *.replaced.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Only compare the backup with its manifest.")
    ] = False,
    keep_place: Annotated[
        bool,
        typer.Option(
            "--keep-place",
            help="The ingest Orthanc's database was not replaced: go on in its changes where the "
            "backup's ledger stood. Without this all of them are read again.",
        ),
    ] = False,
    home: HomeOption = None,
) -> None:
    """Put a backup in place in --home, where no gateway may run.

    Start the gateway afterwards, and send again what came since the backup: what was exported
    already is recognised. Exit codes: 0; 1 damaged, or in the way; 2 wrong use, or another key.
    """
    from prichexy_gateway.backup import read_manifest  # noqa: PLC0415
    from prichexy_gateway.backup import restore as put_back  # noqa: PLC0415
    from prichexy_gateway.deeds import note  # noqa: PLC0415

    folder = source.expanduser().resolve()
    if check:
        manifest = read_manifest(folder)
        typer.echo(f"The backup is whole: {_sentence(manifest)}")
        _warn_of_key(manifest)
        return
    place = home_at(home)
    done = put_back(
        place,
        folder,
        now=datetime.now(UTC),
        identity_file=identity,
        replace=replace,
        keep_place=keep_place,
    )
    note(place, "restore", key_id=done.key_id, studies=done.manifest.studies)
    typer.echo(f"Restored: {_sentence(done.manifest)}")
    typer.echo(f"The pseudonyms' key in place is {done.key_id}.")
    for path in done.aside:
        typer.echo(f"Kept aside: {path}")
    if done.manifest.has_ledger:
        typer.echo(
            f"What people decided since {done.manifest.taken} (exports withdrawn, no consent) is "
            "not in it, and has to be decided again: see docs/operating.md.",
            err=True,
        )
    if done.former_key_id:
        typer.echo(
            f"The key here was {done.former_key_id}. If anything was exported under it, name its "
            "file in pseudonyms.retired_key_files: else those studies will be there twice.",
            err=True,
        )
    _warn_of_key(done.manifest)


def _sentence(manifest: Manifest) -> str:
    secrets = "with" if manifest.has_secrets else "without"
    studies = f"{manifest.studies} studies" if manifest.has_ledger else "no ledger,"
    return f"{studies} as of {manifest.taken}, key {manifest.key_id}, {secrets} secrets."


def _warn_of_key(manifest: Manifest) -> None:
    if manifest.keyed:
        typer.echo(
            "The audit trail is under a key (PriCheXy.Audit.KeyFile), which is not in the backup: "
            "keep a copy of its file elsewhere. Without it the lines cannot be verified.",
            err=True,
        )
