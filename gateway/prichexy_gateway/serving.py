"""The work of ``prichexy serve``: runs the gateway, sends a study through it, tells of it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pydicom.data
from rich.console import Console
from rich.table import Table

from prichexy_gateway.client import OrthancClient, StudyRow
from prichexy_gateway.dicom_files import DicomFile, Found, find_dicom_files
from prichexy_gateway.errors import Failed, Interrupted
from prichexy_gateway.following import exit_code, follow, ids_of, latest_rows
from prichexy_gateway.home import Home
from prichexy_gateway.keeping import Keeper, ReceptionEnded
from prichexy_gateway.native import CALLING_AET, NativeGateway, Options, running_gateway
from prichexy_gateway.sending import send
from prichexy_gateway.services import ingest_client
from prichexy_gateway.waiting import stopped_by_signals
from prichexy_worker.contract import State
from prichexy_worker.logs import where

__all__ = ["Request", "run", "sample"]

_SAMPLE = "RG1_UNCR.dcm"
_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asked for; without ``source`` the sample is sent.

    ``sends`` False: nothing is, and the gateway serves at once.
    """

    home: Home
    options: Options
    source: Path | None
    once: bool
    sends: bool = True


def sample() -> Path:
    """Give a real chest radiograph: 1955 by 1841 pixels, 15 bits, MONOCHROME1 (NEMA WG-04).

    Raises Failed when the package pydicom-data is not installed.
    """
    found = pydicom.data.get_testdata_file(_SAMPLE, download=False)
    if not found:
        raise Failed("The sample radiograph is missing. Run script/bootstrap, or name a SOURCE.")
    return Path(str(found))


def run(request: Request, console: Console) -> int:
    """Run the gateway; give the exit code.

    Once it serves, only an ingest Orthanc that does not start any more ends it, unless ``once``.
    Raises Failed, Misconfigured.
    """
    stop = threading.Event()
    started = time.monotonic()

    def tell(sentence: str) -> None:
        console.print(f"  {time.monotonic() - started:5.1f} s  {sentence}")

    found = find_dicom_files(request.source or sample()) if request.sends else None
    if found is not None and not found.files:
        raise Failed("SOURCE holds no DICOM object.")
    options = replace(request.options, all_must_start=request.once)
    console.print(f"Starting the gateway in {request.home.root}")
    code = _INTERRUPTED
    with stopped_by_signals(stop):
        try:
            with running_gateway(request.home, options, stop, tell) as gateway:
                _show_addresses(gateway, console)
                look = partial(_look_after, Keeper(gateway.supervisor, tell), gateway)
                code = 0
                if found is not None:
                    code = _sent_through(gateway, look, found, stop, console, request)
                if not request.once:
                    console.print("\nServing. Ctrl-C stops all of it.")
                    _keep_serving(look, stop)
                console.print("Stopping …")
        except Interrupted:
            console.print("Stopped.")
            return code
    console.print("Stopped.")
    return code


def _show_addresses(gateway: NativeGateway, console: Console) -> None:
    home, addresses = gateway.home, gateway.addresses
    password = home.password_file("admin")
    console.print(
        f"\nDashboard  {addresses.ingest_url}/prichexy/   user admin, password in {password}\n"
        f"C-STORE    to {addresses.dicom_aet} at port {addresses.dicom_port}, from the senders "
        "that ingest.json lists\n"
        f"Export     {_export_place(gateway)}\n",
        soft_wrap=True,
    )


def _export_place(gateway: NativeGateway) -> str:
    """Say where results go."""
    if gateway.exports_here:
        return f"{gateway.addresses.export_url}   user admin, the same password"
    return ", ".join(target.place for target in gateway.settings.export_targets().values())


def _look_after(keeper: Keeper, gateway: NativeGateway) -> None:
    """See who died, and whether a plugin that could not work can by now. Raises ReceptionEnded."""
    keeper.look()
    gateway.plugin.look()


def _keep_serving(look: Callable[[], None], stop: threading.Event) -> None:
    """Return when told to stop. Raises ReceptionEnded."""
    while not stop.wait(0.5):
        look()


def _sent_through(
    gateway: NativeGateway,
    look: Callable[[], None],
    found: Found,
    stop: threading.Event,
    console: Console,
    request: Request,
) -> int:
    """Send the files through the gateway; give the exit code.

    What goes wrong with them ends no gateway that is to serve others. Raises Failed.
    """
    is_sample = request.source is None
    try:
        return _send_through(gateway, look, found, stop, console, is_sample=is_sample)
    except ReceptionEnded:
        raise
    except (Failed, OSError) as error:
        if request.once:
            raise
        text = str(error) if isinstance(error, Failed) else f"It cannot be shown: {where(error)}"
        console.print(text, soft_wrap=True)
        return 1


def _send_through(
    gateway: NativeGateway,
    look: Callable[[], None],
    found: Found,
    stop: threading.Event,
    console: Console,
    *,
    is_sample: bool,
) -> int:
    """Send the files through the gateway and tell what happened; give the exit code."""
    home, addresses = gateway.home, gateway.addresses
    with ingest_client(home, addresses) as ingest:
        # What has arrived before is known, and sending it again changes nothing.
        uids = dict.fromkeys(file.study_uid for file in found.files if file.study_uid)
        known = latest_rows(ingest, ids_of(ingest, list(uids)))
        start = time.monotonic()
        sent = send(
            found.files,
            addresses.dicom_host,
            addresses.dicom_port,
            addresses.dicom_aet,
            CALLING_AET,
        )
        what = "the sample radiograph" if is_sample else f"{sent.stored} DICOM objects"
        console.print(f"Sent {what} by C-STORE ({time.monotonic() - start:.1f} s).")
        if found.unreadable:
            console.print(found.unread_sentence())
        if sent.refused:
            console.print(sent.refused_sentence())
        if not sent.stored:
            return 1 if found.unreadable else exit_code({}, sent.refused)
        study_ids = ids_of(ingest, sent.study_uids)
        with console.status("Waiting for the export …") as waiting:
            rows = follow(
                ingest,
                study_ids,
                stop,
                look,
                lambda rows: waiting.update(f"Waiting for the export … {_counted(rows)}"),
            )
        elapsed = time.monotonic() - start
        if known == rows:
            console.print(
                f"The gateway has had all of this since an earlier time: {_counted(rows)}."
            )
        else:
            console.print(f"Ended after {elapsed:.1f} s: {_counted(rows)}.")
        _show_rows(rows, console)
        _show_steps([rows[i] for i in rows if rows[i] != known.get(i)], elapsed, console)
        _make_picture(gateway, found.files, rows, ingest, console)
    return 1 if found.unreadable else exit_code(rows, sent.refused)


def _counted(rows: Mapping[str, StudyRow]) -> str:
    counts = Counter(row.state.value for row in rows.values())
    return ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))


def _show_rows(rows: Mapping[str, StudyRow], console: Console) -> None:
    """Tell what became of each study that was not exported."""
    for row in rows.values():
        if row.state is not State.EXPORTED:
            console.print(f"  study {row.job_id}: {row.state.value}. {row.reason_sentence or ''}")


def _show_steps(rows: Sequence[StudyRow], elapsed: float, console: Console) -> None:
    """Tell how long each step took over all studies exported just now, and how far they moved."""
    exported = [row for row in rows if row.state is State.EXPORTED]
    if not exported:
        return
    seconds: Counter[str] = Counter()
    for row in exported:
        seconds.update(row.durations)
    several = f", {len(exported)} studies" if len(exported) > 1 else ""
    table = Table(title=f"Where the time went{several}", title_justify="left")
    table.add_column("Step")
    table.add_column("Seconds", justify="right")
    waited = elapsed - seconds.total()
    if waited > 0:
        table.add_row("wait until the study is complete; queue", f"{waited:.2f}")
    for step, spent in seconds.items():
        table.add_row(step, f"{spent:.2f}")
    console.print(table)
    means = [row.measures["mean_displacement_px"] for row in exported if row.measures]
    most = [row.measures["max_displacement_px"] for row in exported if row.measures]
    if means:
        mean = sum(means) / len(means)
        console.print(f"Pixels moved by {mean:.1f} px on average, {max(most):.1f} px at most.")


def _make_picture(
    gateway: NativeGateway,
    files: tuple[DicomFile, ...],
    rows: Mapping[str, StudyRow],
    ingest: OrthancClient,
    console: Console,
) -> None:
    """Make the picture of the first file of a study that was exported, if there is one."""
    for file in files:
        ids = ids_of(ingest, [file.study_uid]) if file.study_uid else []
        if any(rows[i].state is State.EXPORTED for i in ids if i in rows):
            break
    else:
        return
    # Loads torch: only where there is something to show.
    from prichexy_gateway.showing import picture_of  # noqa: PLC0415

    place = gateway.home.folder("pictures") / f"{rows[ids[0]].job_id}.png"
    model = picture_of(file, gateway.settings, place)
    console.print(f"Model: {model.evidence}. {model.statement}")
    console.print(f"Before, after and displacement: {place}", soft_wrap=True)
