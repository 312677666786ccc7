"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prichexy_gateway.errors import Failed, Misconfigured
from prichexy_gateway.home import Home, default_home

if TYPE_CHECKING:
    from prichexy_plugin.chain import ChainKey

__all__ = [
    "HomeOption",
    "KeyFilesOption",
    "LedgerOption",
    "WorkerConfigOption",
    "chain_keys",
    "home_at",
    "ledger_at",
    "tell_the_trail",
]

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home",
        help="The gateway's folder. Default: $PRICHEXY_HOME, else .gateway in the checkout.",
        file_okay=False,
        show_default=False,
    ),
]

LedgerOption = Annotated[
    str | None,
    typer.Option(
        help="The ledger: a file, or an SQLAlchemy URL. Default: the SQLite file of the gateway in "
        "--home.",
        envvar="PRICHEXY_LEDGER",
        show_default=False,
    ),
]

KeyFilesOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--key-file",
        help="The key of the audit trail's chain, where there is one; several where it was "
        "changed.",
        exists=True,
        dir_okay=False,
        show_default=False,
    ),
]

WorkerConfigOption = Annotated[
    Path | None,
    typer.Option(
        help="A worker's settings file, for a gateway that `prichexy serve` did not start. "
        "Default: $PRICHEXY_WORKER_CONFIG, else the one in --home.",
        exists=True,
        dir_okay=False,
        envvar="PRICHEXY_WORKER_CONFIG",
        show_default=False,
    ),
]


def home_at(folder: Path | None) -> Home:
    """Give the home that the option names, or the default one. Raises Failed."""
    return Home(folder.expanduser().resolve() if folder else default_home())


def chain_keys(files: list[Path] | None) -> dict[str, ChainKey]:
    """Read the keys of the audit trail's chain; give them by their ids. Raises Misconfigured."""
    from prichexy_plugin.chain import read_key  # noqa: PLC0415

    found = {}
    for path in files or ():
        try:
            key = read_key(path)
        except (OSError, ValueError) as error:
            why = error if isinstance(error, ValueError) else "cannot be read"
            raise Misconfigured(f"{path}: {why}") from None
        found[key.key_id] = key
    return found


def tell_the_trail(home: Home) -> None:
    """Have the audit trail say what was noted in ``home``; what goes wrong is only said."""
    from prichexy_gateway.telling import tell  # noqa: PLC0415

    try:
        tell(home)
    except Failed as error:
        typer.echo(f"prichexy: the audit trail was not told of all: {error}", err=True)


def ledger_at(ledger: str | None, home: Path | None) -> str:
    """Give the ledger that the options name: a file or a URL. Raises Misconfigured, Failed."""
    if ledger:
        return ledger
    try:
        return str(home_at(home).ledger())
    except Misconfigured as error:
        raise Misconfigured(f"{error}: name it with --ledger") from None
