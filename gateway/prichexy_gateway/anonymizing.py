"""The work of ``prichexy anonymize``: checks the places, runs the studies, tells and reports."""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from prichexy_gateway.dicom_files import Found, find_dicom_files
from prichexy_gateway.errors import Failed, Interrupted, Misconfigured
from prichexy_gateway.home import default_bundle, write_privately
from prichexy_gateway.offline import Places, StudyResult, exit_code, group_studies
from prichexy_gateway.offline_pool import Recipe, anonymize_studies, keep_quiet, load_tools
from prichexy_gateway.waiting import stopped_by_signals
from prichexy_worker.contract import SOFTWARE_VERSION, State
from prichexy_worker.engine import Engine
from prichexy_worker.pipeline import Tools
from prichexy_worker.pseudonyms import Pseudonyms
from prichexy_worker.settings import Syntax

__all__ = ["NOTHING_FOUND", "Request", "default_key_file", "run"]

NOTHING_FOUND: Final = 4
_INTERRUPTED: Final = 130
_REPORT_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asked for; None means the default."""

    source: Path
    destination: Path
    key_file: Path | None = None
    quarantine: Path | None = None
    report: Path | None = None
    device: str = "auto"
    jobs: int = 1
    bundle: Path | None = None
    syntax: Syntax = "explicit-little-endian"
    profile: Path | None = None


def default_key_file() -> Path:
    """Give the place of this user's key."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "prichexy" / "pseudonyms.key"


def run(request: Request, console: Console) -> int:
    """Do it; give the exit code. Raises Misconfigured, Failed."""
    places = _places(request)
    found = find_dicom_files(request.source)
    if not found.files:
        console.print(f"No DICOM object was found ({found.not_dicom} other files).")
        if found.unreadable:
            console.print(found.unread_sentence())
        return 1 if found.unreadable else NOTHING_FOUND
    key_file = _key_file(request, places, console)
    if request.report is not None:
        _check_report(request.report, request.source, key_file)
    keep_quiet()
    recipe = Recipe(
        # Every process loads it: all the same one, even if a link to it is moved meanwhile.
        bundle=(request.bundle or default_bundle()).resolve(),
        key_file=key_file,
        device=request.device,
        # As in a worker: with more threads, sums may be taken in another order.
        threads=1,
        syntax=request.syntax,
        profile=request.profile,
    )
    with console.status("Loading the model …"):
        tools, engine = load_tools(recipe)
    console.print(f"Computing on {engine.device}: {engine.device_reason}")
    console.print(f"Model: {engine.model.evidence}. {engine.model.statement}")
    studies = group_studies(found.files, tools.pseudonyms)
    results: list[StudyResult] = []
    stop = threading.Event()
    interrupted = False
    with places.held():
        try:
            with stopped_by_signals(stop), _progress(console) as progress:
                task = progress.add_task("Anonymising", total=len(found.files))
                for result in anonymize_studies(studies, places, tools, recipe, request.jobs, stop):
                    results.append(result)
                    progress.advance(task, result.files)
        except Interrupted:
            interrupted = True
        finally:
            if request.report is not None:
                report = report_of(found, results, engine, tools)
                _write_report(request.report, report)
    console.print(_summary(found, results))
    if any(result.state is not State.EXPORTED for result in results):
        console.print(f"What was not exported lies in {places.quarantine}, each with its reason.")
    if interrupted:
        console.print(f"Stopped: {len(studies) - len(results)} studies were not begun.")
        return _INTERRUPTED
    return exit_code(results, found.unreadable)


def report_of(
    found: Found,
    results: Sequence[StudyResult],
    engine: Engine,
    tools: Tools,
) -> dict[str, Any]:
    """Give the machine-readable report. No file name of the source is in it: they may identify."""
    return {
        "version": _REPORT_VERSION,
        "software": SOFTWARE_VERSION,
        "key_id": tools.pseudonyms.key_id,
        "profile": tools.profile.to_json(),
        "device": engine.device,
        "model": engine.model.to_json(),
        "files": {
            "dicom": len(found.files),
            "not_dicom": found.not_dicom,
            "dicomdir": found.directories,
            "unreadable": found.unreadable,
        },
        "counts": dict(Counter(result.state.value for result in results)),
        "studies": [
            result.to_json() for result in sorted(results, key=lambda result: result.study)
        ],
    }


def _write_report(path: Path, report: dict[str, Any]) -> None:
    try:
        write_privately(path, json.dumps(report, indent=2) + "\n")
    except OSError as error:
        raise Failed(f"The report cannot be written ({error.strerror}).") from None


def _check_report(report: Path, source: Path, key_file: Path) -> None:
    """Raise Misconfigured where a report cannot be written, or would replace what is needed."""
    place = report.expanduser().resolve()
    if not place.parent.is_dir():
        raise Misconfigured(f"--report: there is no folder {place.parent}")
    if place.is_dir() or place == key_file:
        raise Misconfigured("--report: this is a folder, or the key file; name another file")
    if place.is_relative_to(source.expanduser().resolve()):
        raise Misconfigured("--report lies in SOURCE: it could replace an original.")


def _places(request: Request) -> Places:
    """Give where the results go. Raises Misconfigured when the places would mix."""
    source = request.source.expanduser().resolve()
    destination = request.destination.expanduser().resolve()
    quarantine = (
        request.quarantine.expanduser().resolve()
        if request.quarantine
        else destination.with_name(f"{destination.name}-quarantine")
    )
    if not source.exists():
        raise Misconfigured("SOURCE does not exist.")
    if destination.exists() and not destination.is_dir():
        raise Misconfigured("DEST is not a folder.")
    for inner, outer, text in (
        (destination, source, "DEST lies in SOURCE: results would mix with originals."),
        (source, destination, "SOURCE lies in DEST: originals would mix with results."),
        (quarantine, destination, "The quarantine lies in DEST: it holds originals."),
        (quarantine, source, "The quarantine lies in SOURCE: it would be taken for originals."),
        (destination, quarantine, "DEST lies in the quarantine."),
    ):
        if inner == outer or inner.is_relative_to(outer):
            raise Misconfigured(f"{text} Name another folder.")
    return Places(destination, quarantine)


def _key_file(request: Request, places: Places, console: Console) -> Path:
    """Give the key file; the default one is made at its first use. Raises Misconfigured."""
    path = (request.key_file or default_key_file()).expanduser().resolve()
    if path.is_relative_to(places.destination):
        raise Misconfigured("The key file lies in DEST: who has both can undo the pseudonyms.")
    if not path.exists() and request.key_file is None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Two first uses at once: one makes the key, both use it.
        with suppress(Misconfigured):
            Pseudonyms.create_key_file(path)
            console.print(
                f"Made a new pseudonym key: {path}\n"
                "Keep it, and keep it secret. With it the same patient gets the same pseudonym "
                "next time; without it no result can be linked to a patient or to later results. "
                "Back it up apart from the results."
            )
    Pseudonyms.from_key_file(path)
    return path


def _summary(found: Found, results: Sequence[StudyResult]) -> Table:
    table = Table(title="Result", title_justify="left")
    table.add_column("State")
    table.add_column("Studies", justify="right")
    table.add_column("Files", justify="right")
    table.add_column("Why")
    groups: dict[tuple[str, str], list[StudyResult]] = {}
    for result in results:
        why = result.reason.sentence if result.reason else ""
        groups.setdefault((result.state.value, why), []).append(result)
    for (state, why), members in sorted(groups.items()):
        table.add_row(state, str(len(members)), str(sum(m.files for m in members)), why)
    if found.directories:
        table.add_row("skipped", "", str(found.directories), "DICOMDIR files hold no image.")
    if found.not_dicom:
        table.add_row("skipped", "", str(found.not_dicom), "These files are not DICOM.")
    if found.unreadable:
        table.add_row("unread", "", str(found.unreadable), "The system does not let us read them.")
    return table


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    )
