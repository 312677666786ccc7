"""``prichexy audit``: whether the audit trail is as it was written, and what it says."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from prichexy_gateway.commands.options import (
    HomeOption,
    KeyFilesOption,
    LedgerOption,
    chain_keys,
    ledger_at,
)
from prichexy_gateway.errors import Misconfigured

if TYPE_CHECKING:
    from prichexy_plugin.chain import Damaged, Line, Verdict

__all__ = ["audit_app"]

#: The exit code of a trail that is not as it was written.
_BROKEN: Final = 3
#: The exit code of a trail of which noted heads are missing, and that tells of a restore.
_LOST: Final = 4
#: The exit code of a trail of which more was deleted at its beginning than --pruned allows for.
_PRUNED: Final = 5
_COLUMNS: Final = (
    *("number", "at", "deed", "actor", "job_id", "from_state", "to_state", "reason"),
    *("details", "key_id", "digest"),
)

JobOption = Annotated[
    str | None, typer.Option(help="Only the lines of this study.", show_default=False)
]


class Format(StrEnum):
    """How lines are written."""

    JSONL = "jsonl"
    CSV = "csv"


def audit_app() -> typer.Typer:
    """Give the commands of ``prichexy audit``."""
    app = typer.Typer(no_args_is_help=True, help="The audit trail: verify it, and read it.")
    app.command()(verify)
    app.command()(export)
    return app


def verify(
    ledger: LedgerOption = None,
    home: HomeOption = None,
    head: Annotated[
        list[str] | None,
        typer.Option(
            help="A line's number and digest that were noted earlier, NUMBER:DIGEST.",
            show_default=False,
        ),
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            help="A file in which heads were noted: Orthanc's log, a syslog server's file, what "
            "this command printed. All that stand in it are compared.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    key_file: KeyFilesOption = None,
    pruned: Annotated[
        int | None,
        typer.Option(
            help="The line up to which your retention rule (LedgerDays) has deleted the trail. "
            "Default with noted heads: none.",
            min=0,
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """Verify that no line of the audit trail was altered, taken out, put in or cut off.

    It reads the ledger itself, also while the gateway writes to it. What is cut off at the end, and
    a chain that was computed anew, only shows against heads that were noted elsewhere (--head,
    --against) or under a key. Exit codes: 0 the trail is whole; 2 it cannot be read; 3 it is
    broken, or studies do not stand where it says; 4 it was restored from a backup, and heads that
    were noted are not in it; 5 it is whole, but older lines were deleted than --pruned says.
    """
    from prichexy_gateway.audit_trail import opened  # noqa: PLC0415
    from prichexy_plugin import chain  # noqa: PLC0415

    noted = [_head(text) for text in head or ()]
    for path in against or ():
        noted += chain.heads_in(path.read_text(encoding="utf-8", errors="replace"))
    if against and not noted:
        raise Misconfigured("--against: no head of an audit trail stands in there")
    keys = chain_keys(key_file)
    with opened(ledger_at(ledger, home)) as trail:
        try:
            verdict = chain.verify(
                trail.lines(),
                checkpoint=trail.checkpoint,
                head=trail.head,
                keys=keys,
                noted=noted,
            )
            verdict = replace(verdict, standing=trail.contradicted())
        except chain.UnknownKey as error:
            raise Misconfigured(
                f"line {error.number} is under the key {error}, which no --key-file holds: name "
                "the key. If there never was such a key, the line is altered"
            ) from None
    typer.echo(json.dumps(_as_json(verdict)) if as_json else "\n".join(_told(verdict)))
    if verdict.broken is not None or verdict.standing:
        raise typer.Exit(_BROKEN)
    if verdict.lost:
        raise typer.Exit(_LOST)
    if verdict.checkpoint.number > (pruned or 0) and (verdict.pruned or pruned is not None):
        gone = verdict.checkpoint.number
        typer.echo(
            f"Lines up to number {gone} are gone. Was that your rule? Who can write to the ledger "
            f"can do it as well. If it was: --pruned {gone}",
            err=True,
        )
        raise typer.Exit(_PRUNED)


def export(
    form: Annotated[
        Format, typer.Option("--format", help="JSON, a line each, or CSV.")
    ] = Format.JSONL,
    job: JobOption = None,
    ledger: LedgerOption = None,
    home: HomeOption = None,
) -> None:
    """Write the lines of the audit trail to standard output, the oldest first.

    They name jobs, workers and Orthanc's users, and no patient. Nothing is verified. Exit codes: 0;
    2 the ledger cannot be read.
    """
    from prichexy_gateway.audit_trail import opened  # noqa: PLC0415

    with opened(ledger_at(ledger, home)) as trail:
        rows = (_row(line) for line in _sound(trail.lines()) if job is None or line.job_id == job)
        if form is Format.CSV:
            _write_csv(rows)
        else:
            for row in rows:
                typer.echo(json.dumps(row))


def _sound(lines: Iterator[Line | Damaged]) -> Iterator[Line]:
    """Give the lines, as far as they are some. Raises Misconfigured."""
    from prichexy_plugin.chain import Damaged  # noqa: PLC0415

    for line in lines:
        if isinstance(line, Damaged):
            raise Misconfigured(
                f"line {line.number} of the audit trail cannot be written: its {line.where} is "
                "altered. See: prichexy audit verify"
            )
        yield line


def _head(text: str) -> Any:
    from prichexy_plugin.chain import heads_in  # noqa: PLC0415

    number, _, digest = text.partition(":")
    found = heads_in(f"line {number}, digest {digest}")
    if len(found) != 1:
        raise typer.BadParameter("--head is no NUMBER:DIGEST with a digest of 64 digits")
    return found[0]


def _told(verdict: Verdict) -> Iterator[str]:
    """Say it to people; the last line is what --against reads."""
    if verdict.whole:
        yield f"The audit trail is whole: {verdict.lines} lines."
    elif verdict.broken is None and verdict.standing:
        yield (
            f"The audit trail fits together: {verdict.lines} lines. But studies do not stand where "
            f"it says, somebody altered the ledger's tables: {', '.join(verdict.standing)}."
        )
    elif verdict.broken is None:
        yield (
            f"The audit trail fits together: {verdict.lines} lines. Line {verdict.restored} tells "
            f"of a restore from a backup, and {len(verdict.lost)} noted heads are not in it, of "
            f"lines {verdict.lost[0]} to {verdict.lost[-1]}. Were they noted before the restore, "
            "it lost them; was one noted after it, the trail is forged."
        )
    else:
        yield (
            f"The audit trail is broken at line {verdict.broken}: {verdict.trouble}. "
            f"{verdict.lines} lines were read."
        )
    if verdict.checkpoint.number:
        yield f"It begins after {verdict.checkpoint}; older lines were deleted."
    if verdict.compared or verdict.pruned:
        pruned = f", {verdict.pruned} are of lines that were deleted"
        yield f"Heads compared: {verdict.compared}{pruned if verdict.pruned else ''}."
    if verdict.unkeyed and verdict.unkeyed < verdict.lines:
        yield f"Under no key: the first {verdict.unkeyed}."
    yield f"{'Head' if verdict.broken is None else 'Whole up to'}: {verdict.head}"


def _as_json(verdict: Verdict) -> dict[str, object]:
    return {
        "whole": verdict.whole,
        "lines": verdict.lines,
        "broken": verdict.broken,
        "trouble": verdict.trouble,
        "head": {"number": verdict.head.number, "digest": verdict.head.digest},
        "checkpoint": {
            "number": verdict.checkpoint.number,
            "digest": verdict.checkpoint.digest,
        },
        "unkeyed": verdict.unkeyed,
        "compared": verdict.compared,
        "pruned": verdict.pruned,
        "restored": verdict.restored,
        "lost": list(verdict.lost),
        "standing": list(verdict.standing),
    }


def _row(line: Line) -> dict[str, object]:
    row = {name: getattr(line, name) for name in _COLUMNS}
    return {**row, "at": line.at.isoformat(), "details": dict(line.details)}


def _write_csv(rows: Iterator[dict[str, object]]) -> None:
    writer = csv.DictWriter(sys.stdout, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({**row, "details": json.dumps(row["details"], sort_keys=True)})
