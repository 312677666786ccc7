"""``prichexy serve`` and its companions on real parts: what people get from script/server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image
from pydicom.dataset import FileDataset
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from prichexy_gateway.home import PASSWORDS, Home, Record
from prichexy_gateway.supervisor import is_running
from prichexy_gateway.waiting import wait_until
from prichexy_plugin.database import open_database
from prichexy_plugin.ledger import Ledger
from prichexy_testing.dicoms import canary_values, radiograph_dataset, write
from prichexy_testing.gateway import needs_native_parts

pytestmark = [pytest.mark.orthanc, pytest.mark.redis]

START = 600.0  # seconds in which a gateway serves, on a busy machine
STOP = 300.0  # and in which it has ended


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "prichexy_gateway", *map(str, arguments)]


def environment() -> dict[str, str]:
    return dict(os.environ) | {"PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "200"}


def prichexy(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=START,
        check=False,
    )


class Serving:
    """A ``prichexy serve`` under way."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self.process = process
        self._output = output

    @property
    def said(self) -> str:
        return self._output.read_text(encoding="utf-8")

    def wait_until_it_serves(self) -> None:
        assert wait_until(
            lambda: "Ctrl-C stops" in self.said or self.process.poll() is not None, START
        )
        assert self.process.poll() is None, self.said

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(STOP)


@contextmanager
def serving(home: Home, source: Path | str, output: Path) -> Iterator[Serving]:
    with output.open("wb") as stream:
        process = subprocess.Popen(
            command("serve", source, "--home", home.root, "--stable-age", 1, "--device", "cpu"),
            env=environment(),
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Serving(process, output)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(STOP)


def record_of(home: Home) -> Record:
    record = home.read_record()
    assert record is not None
    return record


def command_lines() -> str:
    """Give the command lines of all processes, as everybody on the machine can read them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" "))
        except OSError:
            continue  # it has ended
    return b"\n".join(found).decode(errors="replace")


def test_the_gateway_serves_checks_itself_and_leaves_nothing_behind(tmp_path: Path) -> None:
    needs_native_parts()
    home = Home(tmp_path / "home")
    first, second, empty = tmp_path / "a.dcm", tmp_path / "b.dcm", tmp_path / "c.dcm"
    first.write_bytes(write(_radiograph()))
    second.write_bytes(write(_another("1.2.3.9")))
    empty.write_bytes(write(_another("1.2.3.10", PixelData=None)))
    told = ""

    with serving(home, first, tmp_path / "output") as gateway:
        gateway.wait_until_it_serves()
        processes = record_of(home).processes
        assert {process.name for process in processes} == {"redis", "ingest", "export", "worker"}

        # It says what happened, where the dashboard is, and makes the picture.
        assert "1 exported" in gateway.said
        assert record_of(home).addresses.ingest_url + "/prichexy" in gateway.said
        assert str(home.password_file("admin")) in gateway.said
        (picture,) = home.folder("pictures").iterdir()
        with Image.open(picture) as image:
            assert image.width > 600

        # Its checks are passed, and nothing secret stands on a command line.
        healthy = prichexy("doctor", "--home", home.root)
        assert healthy.returncode == 0, healthy.stdout
        assert "FAIL" not in healthy.stdout
        lines = command_lines()
        secrets = [home.password(name) for name in PASSWORDS] + [home.key_file.read_text().strip()]
        assert [secret for secret in secrets if secret in lines] == []

        # More studies can be sent, and looked at.
        sent = prichexy("submit", second, "--wait", "--home", home.root)
        assert sent.returncode == 0, sent.stdout + sent.stderr
        turned_away = prichexy("submit", empty, "--wait", "--home", home.root)
        assert turned_away.returncode == 3, turned_away.stdout + turned_away.stderr
        listed = prichexy("status", "--json", "--home", home.root)
        studies = json.loads(listed.stdout)["studies"]
        states = sorted(study["state"] for study in studies)
        assert states == ["exported", "exported", "quarantined"]
        one = prichexy("status", studies[0]["job_id"], "--home", home.root)
        assert one.returncode == 0
        key_id = studies[0]["key_id"]
        assert len(key_id) == 16
        assert key_id in one.stdout
        assert key_id in healthy.stdout, "the reports name the key that doctor does"
        assert prichexy("status", "0" * 32, "--home", home.root).returncode == 1
        plain = prichexy("status", "--home", home.root)
        assert plain.returncode == 0

        # A second gateway in this home is refused, and does the first no harm.
        refused = prichexy("serve", "--home", home.root)
        assert refused.returncode == 1
        assert "Another gateway" in refused.stderr

        # Doctor notices what is missing.
        home.key_file.chmod(0o644)
        ill = prichexy("doctor", "--home", home.root)
        home.key_file.chmod(0o600)
        assert ill.returncode == 1
        assert "FAIL  Pseudonym key" in ill.stdout

        assert gateway.end(signal.SIGINT) == 0
        assert not any(is_running(process) for process in processes)
        for run in (healthy, sent, turned_away, listed, one, plain, ill, refused):
            told += run.stdout + run.stderr
        told += gateway.said
    assert record_of(home).processes == ()
    assert [value for value in canary_values() if value in told] == []
    assert [secret for secret in secrets if secret in told] == []
    assert prichexy("doctor", "--home", home.root).returncode == 1


def receives(record: Record) -> bool:
    """Say whether the DICOM port takes an association from a known sender (C-ECHO)."""
    entity = AE(ae_title="PRICHEXY-CLI")
    entity.add_requested_context(Verification)
    addresses = record.addresses
    association = entity.associate(
        addresses.dicom_host, addresses.dicom_port, ae_title=addresses.dicom_aet
    )
    if not association.is_established:
        return False
    answer = association.send_c_echo()
    association.release()
    return "Status" in answer and answer.Status == 0


def test_who_dies_is_started_anew_while_the_gateway_goes_on_receiving(tmp_path: Path) -> None:
    needs_native_parts()
    home = Home(tmp_path / "home")
    source, second = tmp_path / "a.dcm", tmp_path / "b.dcm"
    source.write_bytes(write(_radiograph()))
    second.write_bytes(write(_another("1.2.3.9")))
    with serving(home, source, tmp_path / "output") as gateway:
        gateway.wait_until_it_serves()
        first = record_of(home)
        pids = {process.name: process.pid for process in first.processes}
        for name in ("redis", "export", "worker"):
            os.kill(pids[name], signal.SIGKILL)
            assert wait_until(lambda name=name: f"{name} was killed by SIGKILL" in gateway.said, 60)
            assert receives(first)

        def all_again() -> bool:
            running = {one.name: one.pid for one in record_of(home).processes}
            return running.keys() == pids.keys() and all(
                f"{name} is ready again" in gateway.said for name in ("redis", "export", "worker")
            )

        assert wait_until(all_again, STOP)
        running = {one.name: one.pid for one in record_of(home).processes}
        assert {name for name in pids if pids[name] == running[name]} == {"ingest"}
        os.kill(pids["ingest"], signal.SIGKILL)
        assert wait_until(lambda: "ingest is ready again" in gateway.said, STOP)
        assert record_of(home).addresses == first.addresses
        sent = prichexy("submit", second, "--wait", "--home", home.root)
        assert sent.returncode == 0, sent.stdout + sent.stderr
        assert gateway.end(signal.SIGINT) == 0
        assert record_of(home).processes == ()

    # The next start works, at the same address; one killed outright leaves nothing running.
    with serving(home, "--no-source", tmp_path / "output2") as gateway:
        gateway.wait_until_it_serves()
        assert "by C-STORE" not in gateway.said
        later = record_of(home)
        gateway.process.kill()
        gateway.process.wait(STOP)
        assert wait_until(lambda: not any(map(is_running, later.processes)), STOP)
    again = prichexy("serve", source, "--once", "--home", home.root, "--stable-age", 1)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "earlier time" in again.stdout


def test_a_ledger_that_cannot_be_opened_ends_no_reception(tmp_path: Path) -> None:
    needs_native_parts()
    home = Home(tmp_path / "home")
    home.prepare()
    source = tmp_path / "a.dcm"
    source.write_bytes(write(_radiograph()))
    engine = open_database(f"sqlite:///{home.ledger_file}")
    Ledger(engine, lambda: datetime.now(UTC)).begin({}, tells=False, orthanc=815)
    engine.dispose()
    once = prichexy("serve", source, "--once", "--home", home.root, "--device", "cpu")
    assert once.returncode == 1
    assert "belongs to another Orthanc" in once.stderr

    with serving(home, "--no-source", tmp_path / "output") as gateway:
        gateway.wait_until_it_serves()
        assert "belongs to another Orthanc" in gateway.said
        first = record_of(home)
        assert first.ledger == ""
        assert receives(first)
        # It gets the ledger while it runs.
        adopted = prichexy("ledger", "adopt", "--crashed", "--home", home.root)
        assert adopted.returncode == 0, adopted.stdout + adopted.stderr
        assert wait_until(lambda: "the plugin can do its work now" in gateway.said, STOP)
        sent = prichexy("submit", source, "--wait", "--home", home.root)
        assert sent.returncode == 0, sent.stdout + sent.stderr
        assert record_of(home).processes == first.processes
        assert record_of(home).ledger.endswith(home.ledger_file.name)
        assert gateway.end(signal.SIGINT) == 0


def test_results_go_to_the_peer_that_a_worker_config_names(tmp_path: Path) -> None:
    needs_native_parts()
    home = Home(tmp_path / "home")
    source, peer, config = tmp_path / "a.dcm", tmp_path / "peer", tmp_path / "mine.toml"
    source.write_bytes(write(_radiograph()))
    peer.mkdir()
    config.write_text(f'[export]\nkind = "folder"\nfolder = "{peer}"\n[limits]\ninstances = 3\n')
    ran = prichexy(
        "serve", source, "--once", "--home", home.root, "--stable-age", 1,
        "--device", "cpu", "--worker-config", config,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert len(list(peer.rglob("*.dcm"))) == 1
    assert f"Export     {peer}" in ran.stdout
    assert "export is ready" not in ran.stdout
    assert len(list(home.folder("pictures").iterdir())) == 1
    # Doctor, too, looks at that peer.
    told = prichexy("doctor", "--home", home.root).stdout
    assert f"ok    Export target export: {peer} takes what we send" in told

    # A wrong value is said at once, before anything runs.
    config.write_text("[limits]\ninstances = 0\n")
    wrong = prichexy("serve", source, "--once", "--home", home.root, "--worker-config", config)
    assert wrong.returncode == 2
    assert "limits.instances" in wrong.stderr


def _radiograph(**attributes: object) -> FileDataset:
    """Give a radiograph large enough that its noise does not look like lettering."""
    return radiograph_dataset(rows=512, columns=448, window=(2048, 4096), **attributes)


def _another(uid: str, **attributes: object) -> FileDataset:
    """Give a radiograph of another study than the first one."""
    dataset = _radiograph(
        StudyInstanceUID=uid, SeriesInstanceUID=f"{uid}.1", SOPInstanceUID=f"{uid}.2", **attributes
    )
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset
