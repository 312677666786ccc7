"""``prichexy ledger``: moving it to another database, and giving it to another Orthanc."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prichexy_gateway.commands.options import (
    HomeOption,
    KeyFilesOption,
    LedgerOption,
    chain_keys,
    home_at,
    ledger_at,
    tell_the_trail,
)
from prichexy_gateway.errors import Failed, Misconfigured

if TYPE_CHECKING:
    from pydantic import SecretStr

    from prichexy_gateway.home import Home

__all__ = ["ledger_app"]


def ledger_app() -> typer.Typer:
    """Give the commands of ``prichexy ledger``."""
    app = typer.Typer(no_args_is_help=True, help="The ledger: move it, or give it away.")
    app.command()(copy)
    app.command()(adopt)
    return app


def copy(
    to: Annotated[
        str,
        typer.Option(
            help="Where to: an SQLAlchemy URL without a password, as Ledger.Url of the plugin's "
            "settings. The database is there and holds no ledger, or an empty one.",
        ),
    ],
    ledger: Annotated[
        Path | None,
        typer.Option(
            help="The SQLite file to copy. Default: that of the gateway in --home.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(
            help="A file with the password of --to.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    key_file: KeyFilesOption = None,
    home: HomeOption = None,
    crashed: Annotated[
        bool,
        typer.Option(
            "--crashed",
            help="Copy although the ledger's last line does not say that its plugin stopped.",
        ),
    ] = False,
) -> None:
    """Copy a SQLite ledger, whole, to another database, such as PostgreSQL.

    Stop the ingest Orthanc first, set Ledger.Url afterwards, and start it again: it goes on as if
    nothing had happened. The audit trail is verified first, and keeps its numbers and digests; each
    of its lines is compared. The SQLite file stays, but for tables of an older version, which are
    brought up to date. Nothing is copied when anything is wrong.
    """
    from prichexy_plugin.closed_ledger import Unusable  # noqa: PLC0415
    from prichexy_plugin.copying import copy_ledger  # noqa: PLC0415

    file = ledger or home_at(home).ledger_file
    if not file.is_file():
        raise Misconfigured(f"there is no ledger at {file}")
    try:
        head = copy_ledger(
            file,
            to,
            _password(password_file),
            keys=chain_keys(key_file),
            even_if_open=crashed,
        )
    except Unusable as error:
        raise Failed(str(error)) from None
    typer.echo(f"Copied. The audit trail ends there as here: {head}.")


def adopt(
    ledger: LedgerOption = None,
    password_file: Annotated[
        Path | None,
        typer.Option(
            help="A file with the password of --ledger.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    home: HomeOption = None,
    keep_place: Annotated[
        bool,
        typer.Option(
            "--keep-place",
            help="The Orthanc that takes it over has the changes of the one before: go on in them "
            "where the ledger stands. Without this all of them are read again.",
        ),
    ] = False,
    crashed: Annotated[
        bool,
        typer.Option(
            "--crashed",
            help="Although the ledger's last line does not say that its plugin stopped. That one "
            "must not come back.",
        ),
    ] = False,
) -> None:
    """Say that a ledger now belongs to another Orthanc: the one that opens it next.

    For an ingest Orthanc with a new database, or another one in its place. Stop the one of before
    for good first; the new one may be running, and goes on by itself. What the ledger knows stays;
    a study that the new Orthanc does not hold ends as gone when something is to be done with it.
    """
    from prichexy_gateway.deeds import note  # noqa: PLC0415
    from prichexy_plugin.adopting import give_away  # noqa: PLC0415
    from prichexy_plugin.closed_ledger import Unusable  # noqa: PLC0415
    from prichexy_worker.pseudonyms import Pseudonyms  # noqa: PLC0415

    try:
        given = give_away(
            ledger_at(ledger, home),
            _password(password_file),
            keep_place=keep_place,
            even_if_open=crashed,
        )
    except Unusable as error:
        raise Failed(str(error)) from None
    typer.echo(
        f"The ledger, of {given.studies} studies, goes on with the ingest Orthanc that opens it "
        f"next. The audit trail ends there: {given.head}."
    )
    place = _gateway_at(home)
    if place is None:
        typer.echo("No gateway's folder is here: no audit trail says who did this.", err=True)
        return
    key_id = Pseudonyms.from_key_file(place.key_file).key_id
    note(place, "adopt", key_id=key_id, studies=given.studies)
    tell_the_trail(place)


def _gateway_at(folder: Path | None) -> Home | None:
    """Give the home in which deeds are noted, None where no gateway ever ran."""
    try:
        home = home_at(folder)
    except Failed:
        return None
    return home if home.key_file.exists() else None


def _password(file: Path | None) -> SecretStr | None:
    from pydantic import SecretStr  # noqa: PLC0415

    return None if file is None else SecretStr(file.read_text(encoding="utf-8").strip())
