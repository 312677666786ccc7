"""``prichexy status``: what became of the studies of a running gateway."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from prichexy_gateway.commands.backfill import sentence
from prichexy_gateway.commands.options import HomeOption, home_at

__all__ = ["status"]

#: So much of a job id is shown in the list: enough to tell millions apart, most of the time.
_SHORT: Final = 8


def status(
    job: Annotated[
        str | None,
        typer.Argument(
            help="A study's job id, or as much of it as the list shows, for its whole history.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
    limit: Annotated[
        int, typer.Option(help="Studies shown, the last changed first.", min=1, max=500)
    ] = 20,
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
            row, events = client.study(client.job_id(job))
            _show_one({**asdict(row), "events": list(events)}, as_json=as_json)
            return
        health = client.health()
        total, rows = client.studies(limit=limit)
        shown = [asdict(row) for row in rows]
    if as_json:
        whole = {"total": total, "counts": dict(health.counts), "studies": shown}
        typer.echo(
            json.dumps(
                {
                    **whole,
                    "circuits": [*health.circuits],
                    "pauses": [*health.pauses],
                    "targets": [*health.targets],
                    "late": [*health.late],
                    "backfill": health.backfill,
                }
            )
        )
        return
    console = Console(highlight=False)
    console.print(_table(shown, datetime.now(UTC)))
    counts = ", ".join(f"{count} {state}" for state, count in health.counts.items() if count)
    studies = "1 study" if total == 1 else f"{total} studies"
    console.print(f"{studies}: {counts}" if total else "No study has arrived yet.")
    for pause in health.pauses:
        console.print(_paused(pause))
    for circuit in health.circuits:
        console.print(_stopped(circuit))
    if health.targets:
        away = {name for circuit in health.circuits for name in circuit.get("targets") or ()}
        said = (f"{name} (stopped)" if name in away else name for name in health.targets)
        console.print(f"Export targets that the rules name: {', '.join(said)}")
    if health.backfill and health.backfill.get("running"):
        console.print(sentence(health.backfill))
    for group in health.late:
        oldest = group["oldest"]
        console.print(
            f"{group['count']} {group['state']} for unusually long, the longest since "
            f"{_ago(oldest['since'], datetime.now(UTC))} (job {oldest['job_id'][:_SHORT]}): "
            f"{group['sentence']}"
        )


def _paused(pause: Mapping[str, Any]) -> str:
    """Say what somebody paused, since when and why."""
    which = "The intake" if pause.get("stage") == "intake" else "The export"
    if pause.get("stage") == "target":
        named = pause.get("target")
        which += f" to {named}" if named else " of studies whose rule names no export target"
    since = _ago(str(pause.get("since") or ""), datetime.now(UTC))
    return f"{which} is paused since {since}. {pause.get('reason_sentence') or ''}"


def _stopped(circuit: Mapping[str, Any]) -> str:
    """Say of which studies the handing out is stopped, and why."""
    names = circuit.get("targets") or ()
    which = "The handing out"
    if names:
        which += f" of studies for {' and '.join(map(str, names))}"
    elif circuit.get("blame") == "target":
        which += " of studies whose rule names no export target"
    return f"{which} is stopped: {circuit.get('reason_sentence') or ''}"


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
    for key in ("key_id", "profile"):
        console.print(f"{key.replace('_', ' '):16} {study[key]}")
    for event in study["events"]:
        reason = f"  ({event['reason']})" if event.get("reason") else ""
        console.print(f"{event['at']}  {event.get('from') or 'new'} → {event['to']}{reason}")


def _table(rows: Sequence[Mapping[str, Any]], now: datetime) -> Table:
    """Give the list; each row fits on a line of 80 columns."""
    table = Table(box=None, pad_edge=False)
    for title in ("Job", "State", "Why", "Tries", "Images", "Updated"):
        table.add_column(title, no_wrap=True)
    for row in rows:
        table.add_row(
            row["job_id"][:_SHORT],
            str(row["state"]),
            (row["reason"] or "").replace("_", " "),
            str(row["attempts"]),
            str(row["instances"]),
            _ago(row["updated"], now),
        )
    return table


def _ago(moment: str, now: datetime) -> str:
    """Say how long ago an ISO moment was; after a day, its local date."""
    try:
        then = datetime.fromisoformat(moment)
    except ValueError:
        return ""
    passed = now - (then if then.tzinfo else then.replace(tzinfo=UTC))
    if passed < timedelta(minutes=1):
        return "just now"
    if passed < timedelta(hours=1):
        return f"{passed // timedelta(minutes=1)} min ago"
    if passed < timedelta(days=1):
        return f"{passed // timedelta(hours=1)} h ago"
    return then.astimezone().date().isoformat()
