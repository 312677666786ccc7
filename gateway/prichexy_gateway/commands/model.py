"""``prichexy model``: which generator the workers use, and which they used before."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from prichexy_gateway.bundle_check import store_at
from prichexy_gateway.commands.options import HomeOption, home_at
from prichexy_gateway.deeds import system_user
from prichexy_gateway.errors import Failed, Refused
from prichexy_store.history import Change
from prichexy_store.store import Entry, ModelStore

__all__ = ["model_app"]

#: So much of a version's digest is shown, and of its weights', as in a worker's log.
_SHORT: Final = 8
_SHORT_WEIGHTS: Final = 12
_REFUSED: Final = 3

StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--store",
        help="The store's folder. Default: models/ in --home.",
        file_okay=False,
        show_default=False,
    ),
]
ByOption = Annotated[
    str | None,
    typer.Option(
        help="Who does it, for the history. Default: this system's user.", show_default=False
    ),
]
ReasonOption = Annotated[str, typer.Option(help="Why, for the history.", show_default=False)]


def model_app() -> typer.Typer:
    """Give the commands ``list``, ``add``, ``promote`` and ``rollback``."""
    app = typer.Typer(
        help="List, add, promote and roll back the models that workers deform with.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    app.command("list")(list_versions)
    app.command()(add)
    app.command()(promote)
    app.command()(rollback)
    return app


def list_versions(
    history: Annotated[
        bool, typer.Option("--history", help="Each change: when, who, what and why.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
    home: HomeOption = None,
    store: StoreOption = None,
) -> None:
    """Show the versions that were in use or may be: their names, digests and evidence.

    Results and the dashboard name a model by the digest of its weights.

    Exit codes: 0; 1 the store cannot be read; 2 wrong use.
    """
    place = _store(home, store)
    console = _console()
    if history:
        changes = place.history()
        if as_json:
            typer.echo(json.dumps([change.to_json() for change in changes]))
        else:
            console.print(_history_table(changes))
        return
    entries = place.entries()
    if as_json:
        typer.echo(json.dumps({"link": str(place.current), "versions": list(map(asdict, entries))}))
    elif entries:
        console.print(_table(entries))
        console.print(f"Workers follow {place.current}", soft_wrap=True)
    else:
        console.print(f"No model was in use yet in {place.root}.", soft_wrap=True)


def add(
    bundle: Annotated[Path, typer.Argument(help="A MONAI bundle's folder.", file_okay=False)],
    home: HomeOption = None,
    store: StoreOption = None,
) -> None:
    """Take a bundle into the store without putting it to use: who may, promotes it afterwards.

    It is copied, and all its networks are loaded, as for a promotion. The dashboard offers it to
    administrators, and `prichexy model promote` takes its digest.

    Exit codes: 0 it is there; 1 an error; 2 wrong use; 3 refused: nothing was changed.
    """
    place = _store(home, store)
    try:
        version = place.offer(bundle.expanduser())
    except Refused as error:
        raise _refused(error) from None
    console = _console()
    console.print(f"added: {version.name} {version.version}, {version.known}")
    console.print(f"To put it to use: prichexy model promote {version.digest[:_SHORT]}")


def promote(
    bundle: Annotated[
        str,
        typer.Argument(
            help="A MONAI bundle's folder; or the digest of a version that is in the store, of all "
            "its files or of its weights, or as much of it as the list shows."
        ),
    ],
    force: Annotated[
        bool,
        typer.Option("--force", help="Although its evidence is weaker. Needs a --reason."),
    ] = False,
    reason: ReasonOption = "",
    by: ByOption = None,
    home: HomeOption = None,
    store: StoreOption = None,
) -> None:
    """Put a bundle to use. Workers take it up between two studies; none is lost or done twice.

    The bundle is copied, and all its networks are loaded, before anything changes. A broken one is
    refused, and one whose evidence is weaker than that of the model in use (measured to protect,
    measured, trained, untrained). The former one is kept.

    Exit codes: 0 it is in use; 1 an error; 2 wrong use; 3 refused: nothing was changed.
    """
    place = _store(home, store)
    folder = Path(bundle).expanduser()
    if not folder.is_dir():
        folder = place.find(bundle)
    try:
        change = place.promote(folder, by or system_user(), reason=reason, force=force)
    except Refused as error:
        raise _refused(error) from None
    if change is None:
        _console().print("It is in use already.")
        return
    _tell(change, place)
    _tell_gateway(home, place)


def rollback(
    reason: ReasonOption = "",
    by: ByOption = None,
    home: HomeOption = None,
    store: StoreOption = None,
) -> None:
    """Put the former version to use again, whatever its evidence; a second time: the one before.

    Exit codes: 0 it is in use; 1 an error; 2 wrong use; 3 refused: there is no former version, or
    it is damaged; nothing was changed.
    """
    place = _store(home, store)
    try:
        change = place.rollback(by or system_user(), reason)
    except Refused as error:
        raise _refused(error) from None
    _tell(change, place)
    _tell_gateway(home, place)


def _tell_gateway(home: Path | None, place: ModelStore) -> None:
    """Have the audit trail of the gateway that uses the store say it; one that is down hears later.

    What is done is done: that the trail cannot be told yet is no failure of the change.
    """
    from prichexy_gateway.services import ingest_client  # noqa: PLC0415

    try:
        folder = home_at(home)
        if place.root != folder.models:
            return
        addresses = folder.addresses()
    except Failed:
        return  # none runs here: `prichexy serve` tells it at its start
    try:
        with ingest_client(folder, addresses) as client:
            client.tell_model_changes(place.history())
    except Failed as error:
        typer.echo(f"prichexy: the audit trail is told at the next start: {error}", err=True)


def _store(home: Path | None, store: Path | None) -> ModelStore:
    if store is not None:
        return store_at(store.expanduser().resolve())
    return store_at(home_at(home).models)


def _refused(error: Exception) -> typer.Exit:
    typer.echo(f"prichexy: {error}", err=True)
    return typer.Exit(_REFUSED)


def _console() -> Console:
    # No markup: a bundle's name may hold brackets.
    return Console(highlight=False, markup=False)


def _tell(change: Change, store: ModelStore) -> None:
    version = change.version
    console = _console()
    console.print(f"{change.action}: {version.name} {version.version}, {version.known}")
    console.print(f"  {version.statement}", soft_wrap=True)
    console.print(f"  weights {version.weights}", soft_wrap=True)
    if change.forced:
        console.print(
            "  Its evidence is weaker than that of the model before; the history says why."
        )
    console.print(
        f"Workers that follow {store.current} take it up before their next study; "
        "`prichexy doctor` says which model each one uses.",
        soft_wrap=True,
    )


def _table(entries: list[Entry]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("", "Version", "Weights", "Name", "Evidence", "Put to use, UTC"):
        # Names may be long, and are broken; all else is wanted whole.
        is_name = title == "Name"
        table.add_column(title, no_wrap=not is_name, overflow="fold", ratio=1 if is_name else None)
    for entry in entries:
        version = entry.version
        place = "in use" if entry.in_use else "former" if entry.former else ""
        table.add_row(
            place if entry.whole else f"{place} DAMAGED".strip(),
            version.digest[:_SHORT],
            version.weights[:_SHORT_WEIGHTS],
            f"{version.name} {version.version}",
            version.known,
            _minute(entry.last_used),
        )
    return table


def _minute(moment: str) -> str:
    return moment[:16].replace("T", " ")


def _history_table(changes: list[Change]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("When, UTC", "Who", "What", "Version", "Name", "Evidence", "Why"):
        table.add_column(title)
    for change in changes:
        version = change.version
        table.add_row(
            _minute(change.at),
            change.by,
            f"{change.action}, forced" if change.forced else change.action,
            version.digest[:_SHORT],
            f"{version.name} {version.version}",
            version.known,
            change.reason,
        )
    return table
