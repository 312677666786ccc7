"""The command ``prichexy-train``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import metadata
from typing import Annotated

import typer
from typer.main import get_command

from prichexy_train.commands.anonymizer import anonymizer
from prichexy_train.commands.attack import attack
from prichexy_train.commands.classifier import classifier
from prichexy_train.commands.export import export
from prichexy_train.commands.official_lists import official_lists
from prichexy_train.commands.pack import pack
from prichexy_train.commands.prepare import prepare
from prichexy_train.commands.pretrain import pretrain
from prichexy_train.commands.report import report
from prichexy_train.commands.table import table
from prichexy_train.commands.trial import trial
from prichexy_train.commands.utility import utility
from prichexy_train.commands.verifier import verifier
from prichexy_train.errors import Failed, Misconfigured

__all__ = ["create_app", "main"]


def create_app() -> typer.Typer:
    """Give the command line with all its commands."""
    app = typer.Typer(
        name="prichexy-train",
        help="Trains and attacks the networks that anonymise chest radiographs.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_prichexy_train)
    # In the order of the work; table does all of it.
    commands: tuple[Callable[..., None], ...] = (
        *(prepare, verifier, classifier, pretrain, anonymizer),
        *(attack, utility, trial, report, export, table, pack, official_lists),
    )
    for command in commands:
        app.command()(command)
    return app


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"prichexy {metadata.version('prichexy')}")
        raise typer.Exit


def _prichexy_train(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Tell the version."),
    ] = False,
) -> None:
    """Take what concerns no command in particular."""


def main() -> None:
    """Run the command line; ends the process with the command's exit code."""
    try:
        get_command(create_app())()
    except Misconfigured as error:
        _end(str(error), 2)
    except Failed as error:
        _end(str(error), 1)
    except KeyboardInterrupt:
        _end("stopped", 130)


def _end(text: str, code: int) -> None:
    sys.stderr.write(f"prichexy-train: {text}\n")
    sys.exit(code)
