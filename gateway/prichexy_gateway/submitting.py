"""The work of ``prichexy submit``."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from prichexy_gateway.dicom_files import find_dicom_files
from prichexy_gateway.following import exit_code, follow, ids_of
from prichexy_gateway.home import Home
from prichexy_gateway.native import CALLING_AET
from prichexy_gateway.sending import send
from prichexy_gateway.services import ingest_client
from prichexy_gateway.waiting import stopped_by_signals

__all__ = ["run"]

_NOTHING_FOUND = 4


def run(home: Home, source: Path, console: Console, *, wait: bool) -> int:
    """Send the source; give the exit code. Raises Failed, Interrupted."""
    addresses = home.addresses()
    found = find_dicom_files(source)
    if not found.files:
        console.print(f"No DICOM object was found ({found.not_dicom} other files).")
        if found.unreadable:
            console.print(found.unread_sentence())
        return 1 if found.unreadable else _NOTHING_FOUND
    with Progress(console=console) as progress:
        task = progress.add_task("Sending", total=len(found.files))
        sent = send(
            found.files,
            addresses.dicom_host,
            addresses.dicom_port,
            addresses.dicom_aet,
            CALLING_AET,
            lambda done: progress.update(task, completed=done),
        )
    console.print(
        f"{sent.stored} objects of {len(sent.study_uids)} studies were taken, {sent.refused} "
        f"refused; {found.not_dicom} other files were skipped."
    )
    if sent.refused:
        console.print(sent.refused_sentence())
    if found.unreadable:
        console.print(found.unread_sentence())
    if not wait or not sent.stored:
        return 1 if found.unreadable else exit_code({}, sent.refused)
    stop = threading.Event()
    with (
        stopped_by_signals(stop),
        ingest_client(home, addresses) as client,
        console.status("Waiting for the export …"),
    ):
        rows = follow(client, ids_of(client, sent.study_uids), stop, lambda: None)
    for row in rows.values():
        console.print(f"{row.job_id}  {row.state.value}  {row.reason_sentence or ''}")
    counts = Counter(row.state.value for row in rows.values())
    console.print(", ".join(f"{count} {state}" for state, count in sorted(counts.items())))
    return 1 if found.unreadable else exit_code(rows, sent.refused)
