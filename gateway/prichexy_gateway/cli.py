"""The command ``prichexy``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from typer.main import get_command

from prichexy_gateway.commands.anonymize import anonymize
from prichexy_gateway.commands.audit import audit_app
from prichexy_gateway.commands.backfill import backfill
from prichexy_gateway.commands.backup import backup, restore
from prichexy_gateway.commands.crosswalk import crosswalk
from prichexy_gateway.commands.doctor import doctor
from prichexy_gateway.commands.explain import explain
from prichexy_gateway.commands.ledger import ledger_app
from prichexy_gateway.commands.model import model_app
from prichexy_gateway.commands.serve import serve
from prichexy_gateway.commands.status import status
from prichexy_gateway.commands.submit import submit
from prichexy_gateway.errors import Failed, Interrupted, Misconfigured, WrongUse
from prichexy_worker.contract import SOFTWARE_VERSION
from prichexy_worker.logs import where

__all__ = ["create_app", "main"]


def create_app() -> typer.Typer:
    """Give the command line with all its commands."""
    app = typer.Typer(
        name="prichexy",
        help="Makes chest radiographs publishable: header, burned-in text and anatomy.",
        no_args_is_help=True,
        add_completion=False,
        # A traceback with local variables would print patients' data.
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_prichexy)
    commands = (serve, anonymize, explain, submit, status, backfill, doctor, crosswalk)
    for command in (*commands, backup, restore):
        app.command()(command)
    app.add_typer(model_app(), name="model")
    app.add_typer(audit_app(), name="audit")
    app.add_typer(ledger_app(), name="ledger")
    return app


def _show_version(asked: bool) -> None:
    if asked:
        # Reads DICOM's data dictionary: a second that no other command should take.
        from prichexy_worker.header.table import (  # noqa: PLC0415
            OPTIONS_SHA256,
            TABLE_EDITION,
            TABLE_SHA256,
        )

        typer.echo(f"prichexy {SOFTWARE_VERSION}")
        typer.echo(
            f"DICOM PS3.15 Table E.1-1, edition {TABLE_EDITION} (SHA-256 {TABLE_SHA256[:16]}, "
            f"option columns {OPTIONS_SHA256[:16]})"
        )
        raise typer.Exit


def _prichexy(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Tell the version."),
    ] = False,
) -> None:
    """Take what concerns no command in particular."""


def main() -> None:
    """Run the command line; ends the process with the command's exit code.

    An unexpected error is shown by its class and place only: its text may hold what identifies
    a patient.
    """
    try:
        get_command(create_app())()
    except (Misconfigured, WrongUse) as error:
        _end(str(error), 2)
    except Failed as error:
        _end(str(error), 1)
    except (Interrupted, KeyboardInterrupt):
        _end("stopped", 130)
    except Exception as error:  # noqa: BLE001 - the last resort; the default prints the text
        _end(f"unexpected error: {where(error)}", 1)


def _end(text: str, code: int) -> None:
    sys.stderr.write(f"prichexy: {text}\n")
    sys.exit(code)
