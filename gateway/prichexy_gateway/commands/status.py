"""``prichexy status``: what became of the studies of a running gateway."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from prichexy_gateway.commands.options import HomeOption, home_at

__all__ = ["status"]


def status(
    job: Annotated[
        str | None,
        typer.Argument(help="A study's job id, for its whole history.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
    limit: Annotated[int, typer.Option(help="Studies shown, the newest first.", min=1)] = 20,
    home: HomeOption = None,
) -> None:
    """Show the studies of the gateway that runs in --home, or one of them.

    Nothing that is shown identifies a patient. Exit codes: 0; 1 the gateway does not answer, or
    there is no such study; 2 wrong use.
    """
    from prichexy_gateway.services import ingest_client  # noqa: PLC0415

    folder = home_at(home)
    with ingest_client(folder, folder.addresses()) as client:
        if job is not None:
            row, events = client.study(job)
            _show_one({**asdict(row), "events": list(events)}, as_json=as_json)
            return
        health = client.health()
        total, rows = client.studies(limit=limit)
        shown = [asdict(row) for row in rows]
    if as_json:
        typer.echo(json.dumps({"total": total, "counts": dict(health.counts), "studies": shown}))
        return
    console = Console(highlight=False)
    console.print(_table(shown))
    counts = ", ".join(f"{count} {state}" for state, count in health.counts.items() if count)
    console.print(f"{total} studies: {counts}" if total else "No study has arrived yet.")


def _show_one(study: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(study))
        return
    console = Console(highlight=False)
    for key in ("job_id", "state", "reason_sentence", "revision", "attempts", "instances"):
        console.print(f"{key.replace('_', ' '):16} {study[key] or ''}")
    for key in ("durations", "measures"):
        figures = ", ".join(f"{name} {value:.3g}" for name, value in study[key].items())
        console.print(f"{key:16} {figures}")
    for event in study["events"]:
        reason = f"  ({event['reason']})" if event.get("reason") else ""
        console.print(f"{event['at']}  {event.get('from') or 'new'} → {event['to']}{reason}")


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table()
    for title in ("Job", "State", "Why", "Attempts", "Instances", "Updated"):
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(
            row["job_id"],
            str(row["state"]),
            row["reason_sentence"] or "",
            str(row["attempts"]),
            str(row["instances"]),
            row["updated"],
        )
    return table
