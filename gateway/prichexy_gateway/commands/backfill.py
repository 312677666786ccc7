"""``prichexy backfill``: takes in what the ingest Orthanc held before the gateway."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from prichexy_gateway.commands.options import HomeOption, home_at

__all__ = ["backfill", "sentence"]

#: The plugin's own limits (prichexy_plugin.backfill), held together by a test.
_DEFAULT_RATE: Final = 60
_MAX_RATE: Final = 6000
_LOOK_SECONDS: Final = 2.0


def backfill(
    rate: Annotated[
        int, typer.Option(help="Studies a minute, at most.", min=1, max=_MAX_RATE)
    ] = _DEFAULT_RATE,
    stop: Annotated[bool, typer.Option("--stop", help="Stop the one that is under way.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Only tell how far it is.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Return when it has ended.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
    home: HomeOption = None,
) -> None:
    """Take in what the ingest Orthanc of the gateway in --home held before the gateway.

    All its studies are gone through: what the ledger does not know, what grew unseen, and what no
    intake rule took in is looked at, and the rules decide. New arrivals go first. It runs in the
    gateway, goes on after a restart, and takes the new rate when it is under way already. Exit
    codes: 0; 1 the gateway does not answer; 2 wrong use.
    """
    from prichexy_gateway.services import ingest_client  # noqa: PLC0415

    if stop and (show or wait):
        raise typer.BadParameter("--stop goes with neither --show nor --wait")
    folder = home_at(home)
    with ingest_client(folder, folder.addresses()) as client:
        if not show:
            state: Mapping[str, Any] | None = client.backfill(0 if stop else rate)
        else:
            state = client.health().backfill
        while wait and state and state.get("running"):
            time.sleep(_LOOK_SECONDS)
            state = client.health().backfill
    typer.echo(json.dumps(dict(state or {})) if as_json else sentence(state))


def sentence(state: Mapping[str, Any] | None) -> str:
    """Say how a backfill is, as the plugin's API tells of it."""
    if not state:
        return "There was no backfill yet."
    if state["running"]:
        how = f"under way, at most {state['per_minute']} studies a minute"
    elif "stopped_by" not in state:
        how = "ended"  # this user is not told whether somebody stopped it
    else:
        how = f"stopped by {state['stopped_by']}" if state["stopped_by"] else "finished"
    return (
        f"Backfill {how}: {state['seen']} of {state['total']} studies read, {state['found']} were "
        f"not in the ledger, {state['again']} looked at again."
    )
