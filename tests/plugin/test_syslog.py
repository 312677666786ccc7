"""DICOM audit messages at a real syslog server, over TLS and UDP."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from prichexy_plugin.audit_messages import AuditMessage, Source, message_of, study_uid
from prichexy_plugin.chain import Deed, Line, heads_in
from prichexy_plugin.database import open_database
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.settings import read_settings
from prichexy_plugin.syslog import (
    Address,
    Sender,
    SyslogUnavailable,
    TlsSender,
    UdpSender,
    framed,
    packet,
)
from prichexy_plugin.teller import BATCH, LONGEST_PAUSE, Teller
from prichexy_testing.certificates import Authority
from prichexy_testing.plugin_fakes import FakeClock
from prichexy_testing.servers import free_port, wait_until
from prichexy_testing.syslog_servers import SyslogServer, running_syslog

SCHEMA = Path(__file__).parents[1] / "prichexy_testing" / "audit_message.rng"
NOW = datetime(2026, 3, 1, 8, 0, 0, 250_000, tzinfo=UTC)
JOB = "0123456789abcdef" * 2
SOURCE = Source("gateway", "clinic")
STEP = Line(
    number=7,
    at=NOW,
    deed=Deed.STEP.value,
    actor="host-4711",
    job_id=JOB,
    from_state="processing",
    to_state="exported",
    details={"revision": 1, "attempt": 1, "instances": 2, "model": "f" * 64, "targets": "research"},
    digest="ab" * 32,
)


def told(line: Line) -> AuditMessage:
    message = message_of(line, SOURCE)
    assert message is not None
    return message


def every_line() -> list[Line]:
    """Give a line for each deed, and for each state that a study steps to."""
    lines = [
        replace(STEP, to_state=state, reason="unexpected") for state in ("processing", "failed")
    ]
    lines += [STEP, replace(STEP, to_state="quarantined", reason="burned_in_text")]
    for deed in Deed:
        of_study = deed.value.startswith(("originals", "pictures", "forgotten"))
        details: dict[str, int | str] = {"deleted": 1, "originals": 2} if of_study else {"lines": 3}
        job = JOB if of_study else None
        lines.append(Line(8, NOW, deed.value, "anna", job, details=details, digest="cd" * 32))
    by_user = replace(STEP, actor="user anna", to_state="rejected", reason="no_consent")
    return [*lines, by_user, replace(by_user, deed=Deed.ORIGINALS_DELETING.value)]


def test_every_message_fits_the_schema_of_the_standard(tmp_path: Path) -> None:
    if shutil.which("xmllint") is None:
        pytest.skip("xmllint is not installed (libxml2-utils)")
    files = []
    for number, line in enumerate(every_line()):
        message = message_of(line, SOURCE)
        if message is not None:
            files.append(tmp_path / f"{number}-{line.deed}.xml")
            files[-1].write_text(message.xml, encoding="utf-8")
    assert len(files) >= 10
    command = ["xmllint", "--noout", "--relaxng", str(SCHEMA), *map(str, files)]
    judged = subprocess.run(command, capture_output=True, text=True, check=False)
    assert judged.returncode == 0, judged.stderr
    broken = tmp_path / "broken.xml"
    broken.write_text(told(STEP).xml.replace('UserIsRequestor="true"', ""))
    again = subprocess.run([*command[:4], str(broken)], capture_output=True, check=False)
    assert again.returncode != 0, "the judge does judge"


def test_what_a_person_does_to_a_study_is_told_by_the_name() -> None:
    tried = replace(STEP, actor="user anna", from_state="failed", to_state="pending")
    turned = replace(STEP, actor="user anna", to_state="rejected", reason="no_consent")
    ordered = replace(tried, deed=Deed.ORIGINALS_DELETING.value, reason="deleted_done")
    for line in (tried, turned, ordered):
        root = ET.fromstring(told(line).xml)
        assert _codes(root, "EventIdentification/EventTypeCode") == ["110132"]
        assert "user anna" in [one.attrib["UserID"] for one in root.iterfind("ActiveParticipant")]
        assert study_uid(JOB) in [
            one.attrib["ParticipantObjectID"]
            for one in root.iterfind("ParticipantObjectIdentification")
        ]
    by_rule = replace(ordered, actor="plugin")
    assert message_of(by_rule, SOURCE) is None, "it is told when it is done"


def _codes(root: ET.Element, path: str) -> list[str]:
    return [found.attrib["csd-code"] for found in root.iterfind(path)]


def test_an_export_says_who_exported_what_and_where_to() -> None:
    message = told(STEP)
    root = ET.fromstring(message.xml)
    event = root[0]
    assert event.attrib == {
        "EventActionCode": "R",
        "EventDateTime": "2026-03-01T08:00:00.250Z",
        "EventOutcomeIndicator": "0",
    }
    assert _codes(root, "EventIdentification/EventID") == ["110106"]
    users = [one.attrib["UserID"] for one in root.iterfind("ActiveParticipant")]
    assert users == ["host-4711", "research"]
    assert _codes(root, "ActiveParticipant/RoleIDCode") == ["110153", "110154"]
    source = root.find("AuditSourceIdentification")
    assert source is not None
    assert source.attrib == {"AuditSourceID": "gateway", "AuditEnterpriseSiteID": "clinic"}
    study, patient, line = root.iterfind("ParticipantObjectIdentification")
    assert study.attrib["ParticipantObjectID"] == study_uid(JOB) == f"2.25.{int(JOB, 16)}"
    assert study.attrib["ParticipantObjectDataLifeCycle"] == "7"
    assert study.find("ParticipantObjectDescription/SOPClass") is not None
    assert patient.attrib["ParticipantObjectID"] == "withheld"
    assert line.findtext("ParticipantObjectName") == f"line 7, digest {STEP.digest}"
    assert heads_in(message.xml) == (STEP.head,), "a server's file can be verified against"


@pytest.mark.parametrize(
    ("line", "event", "outcome"),
    [
        (replace(STEP, to_state="quarantined", reason="burned_in_text"), "110106", "8"),
        (replace(STEP, to_state="processing"), "110103", "0"),
        (Line(1, NOW, Deed.STARTED.value, "plugin"), "110100", "0"),
        (Line(1, NOW, Deed.STOPPED.value, "plugin"), "110100", "0"),
        (Line(1, NOW, Deed.ORIGINALS_DELETED.value, "plugin", JOB), "110105", "0"),
        (
            Line(1, NOW, Deed.ORIGINALS_KEPT.value, "plugin", JOB, details={"deleted": 1}),
            "110105",
            "4",
        ),
        (Line(1, NOW, Deed.MODEL_TAKEN_UP.value, "host-1"), "110113", "0"),
        (Line(1, NOW, Deed.BACKFILL_STARTED.value, "anna"), "110113", "0"),
    ],
)
def test_each_deed_is_the_event_that_dicom_has_for_it(line: Line, event: str, outcome: str) -> None:
    message = told(line)
    assert _codes(ET.fromstring(message.xml), "EventIdentification/EventID") == [event]
    assert message.outcome == outcome


def test_what_dicom_has_no_event_for_is_not_told() -> None:
    for state in ("watched", "pending", "queued", "rejected"):
        assert message_of(replace(STEP, to_state=state), SOURCE) is None
    assert message_of(Line(1, NOW, "of newer software", "x"), SOURCE) is None
    kept = Line(1, NOW, Deed.ORIGINALS_KEPT.value, "plugin", JOB, details={"deleted": 0})
    assert message_of(kept, SOURCE) is None, "nothing was deleted"


def test_a_packet_is_as_rfc_5424_has_it() -> None:
    content = packet(told(STEP), host="höst name")
    head, bom, xml = content.partition(b"\xef\xbb\xbf")
    assert head.startswith(b"<85>1 2026-03-01T08:00:00.250000Z hstname prichexy ")
    assert head.endswith(b" DICOM+RFC3881 - ")
    assert bom
    assert xml.decode() == told(STEP).xml
    assert framed(content) == str(len(content)).encode() + b" " + content
    failed = packet(told(replace(STEP, to_state="failed", reason="unexpected")))
    assert failed.startswith(b"<83>1 ")


# --- At a server ------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def server(authority: Authority) -> Iterator[SyslogServer]:
    with running_syslog(authority) as one:
        yield one


def _sender(port: int, folder: Path, **syslog: Any) -> Sender:
    """Give the sender that these settings make."""
    url = {"Url": f"tls://127.0.0.1:{port}", **syslog}
    section = {"WorkerUser": "worker", "Audit": {"Syslog": url}}
    whole = {"AuthenticationEnabled": True, "RegisteredUsers": {"worker": "x"}, "PriCheXy": section}
    sender = read_settings(whole, folder).audit.sender
    assert sender is not None
    return sender


def _teller(ledger: Ledger, sender: Sender, clock: FakeClock) -> Teller:
    return Teller(ledger, sender, SOURCE, clock)


def test_all_lines_arrive_in_order_over_tls(
    server: SyslogServer, authority: Authority, ledger: Ledger, clock: FakeClock, tmp_path: Path
) -> None:
    sender = _sender(server.port, tmp_path, CAFile=str(authority.certificate))
    ledger.begin({}, tells=True)
    for _ in range(BATCH + 20):
        ledger.record(Deed.BACKFILL_STARTED, by="anna")
    teller = _teller(ledger, sender, clock)
    assert teller.run_once(), "more than one batch waits"
    assert not teller.run_once()
    assert teller.state.reachable
    assert ledger.told() == BATCH + 21
    wait_until(lambda: len(server.messages()) == BATCH + 21, what="the server has written all")
    numbers = [head.number for line in server.messages() for head in heads_in(line)]
    assert numbers == [*range(1, BATCH + 22)]
    first = server.messages()[0].split(" ", 5)
    assert first[0] == "85"
    assert first[3:5] == ["prichexy", "DICOM+RFC3881"]
    ET.fromstring(first[5].lstrip("\ufeff "))


def test_while_the_server_is_away_lines_wait_and_none_is_lost(
    server: SyslogServer, authority: Authority, ledger: Ledger, clock: FakeClock, tmp_path: Path
) -> None:
    sender = _sender(server.port, tmp_path, CAFile=str(authority.certificate))
    ledger.begin({}, tells=True)
    teller = _teller(ledger, sender, clock)
    teller.run_once()
    server.stop()
    ledger.record(Deed.BACKFILL_STOPPED, by="ben")
    pauses = 0.0
    for _ in range(9):
        assert not teller.run_once()
        assert not teller.state.reachable
        before = teller._next_at
        assert before is not None
        pauses = (before - clock()).total_seconds()
        assert not teller.run_once(), "not before its time"
        assert teller._next_at == before
        clock.move(pauses)
    assert pauses == LONGEST_PAUSE.total_seconds()
    assert ledger.told() == 1
    server.start()
    assert not teller.run_once()
    assert ledger.told() == 2
    wait_until(lambda: len(server.messages()) == 2, what="the server has written all")
    assert [head.number for line in server.messages() for head in heads_in(line)] == [1, 2]


def test_a_server_is_asked_at_once_after_a_clock_that_was_ahead_was_set_right(
    server: SyslogServer, authority: Authority, ledger: Ledger, clock: FakeClock, tmp_path: Path
) -> None:
    sender = _sender(server.port, tmp_path, CAFile=str(authority.certificate))
    ledger.begin({}, tells=True)
    teller = _teller(ledger, sender, clock)
    server.stop()
    clock.move(86_400)
    assert not teller.run_once()
    assert not teller.state.reachable
    clock.move(-86_400)
    server.start()
    assert not teller.run_once()
    assert teller.state.reachable
    assert ledger.told() == 1


def test_a_server_without_our_authoritys_certificate_is_told_nothing(
    server: SyslogServer, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other", "other")
    sender = _sender(server.port, tmp_path, CAFile=str(other.certificate))
    with pytest.raises(SyslogUnavailable, match="SSLCertVerificationError"):
        sender.send([packet(told(STEP))])
    assert server.messages() == []


def test_a_server_that_asks_who_we_are_is_shown_our_certificate(
    authority: Authority, tmp_path: Path
) -> None:
    own = authority.pair("gateway", host="")
    with running_syslog(authority, asks=True) as server:
        trusted = {"CAFile": str(authority.certificate)}
        with pytest.raises(SyslogUnavailable):
            _sender(server.port, tmp_path, **trusted).send([packet(told(STEP))])
        named = {"CertificateFile": str(own.certificate), "KeyFile": str(own.key)}
        _sender(server.port, tmp_path, **trusted, **named).send([packet(told(STEP))])
        wait_until(lambda: len(server.messages()) == 1, what="the server has it")


def test_over_udp_a_message_arrives_too() -> None:
    with running_syslog(None) as server:
        UdpSender(Address("udp", "127.0.0.1", server.port)).send([packet(told(STEP))])
        wait_until(lambda: len(server.messages()) == 1, what="the server has it")
        assert heads_in(server.messages()[0]) == (STEP.head,)


class _Listener:
    """A TLS server that takes one connection and does to it what ``act`` does."""

    def __init__(self, authority: Authority, act: Any) -> None:
        pair = authority.pair("listener")
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pair.certificate, pair.key)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._act = act
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        with self._context.wrap_socket(connection, server_side=True) as channel:
            self._act(channel)
        self._socket.close()


def test_a_line_that_somebody_altered_keeps_no_other_from_the_server(tmp_path: Path) -> None:
    class Keeps:
        def __init__(self) -> None:
            self.packets: list[bytes] = []

        def send(self, packets: Sequence[bytes]) -> None:
            self.packets += packets

    engine = open_database(f"sqlite:///{tmp_path}/ledger.sqlite")
    clock = FakeClock()
    ledger = Ledger(engine, clock)
    for _ in range(3):
        ledger.begin({}, tells=True)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER events_are_not_altered")
        connection.exec_driver_sql("UPDATE events SET details = '5' WHERE number = 2")
    server = Keeps()
    teller = Teller(ledger, server, SOURCE, clock)
    assert not teller.run_once()
    assert [head.number for text in server.packets for head in heads_in(text.decode())] == [1, 3]
    assert ledger.told() == 3
    engine.dispose()


def test_a_server_that_dies_before_it_has_read_all_has_not_got_it(authority: Authority) -> None:
    def dies(channel: ssl.SSLSocket) -> None:
        channel.recv(1)
        # An end with unread data in the buffer, as of a killed process: the system sends RST.
        plain = channel.detach()
        socket.socket(fileno=plain).close()

    context = ssl.create_default_context(cafile=str(authority.certificate))
    listener = _Listener(authority, dies)
    sender = TlsSender(Address("tls", "127.0.0.1", listener.port), context)
    content: Sequence[bytes] = [packet(told(STEP))] * 2000
    with pytest.raises(SyslogUnavailable):
        sender.send(content)


def test_nobody_listens_or_answers_and_that_is_told_soon(authority: Authority) -> None:
    context = ssl.create_default_context(cafile=str(authority.certificate))
    with pytest.raises(SyslogUnavailable, match="ConnectionRefusedError"):
        TlsSender(Address("tls", "127.0.0.1", free_port()), context).send([b"x"])
    silent = socket.create_server(("127.0.0.1", 0))
    moments = iter([0.0, 100.0])
    sender = TlsSender(
        Address("tls", "127.0.0.1", silent.getsockname()[1]), context, lambda: next(moments)
    )
    with pytest.raises(SyslogUnavailable, match="TimeoutError"):
        sender.send([b"x"])
    connection, _ = silent.accept()
    with connection:
        assert connection.recv(1) == b"", "with no time left no handshake is begun"
    silent.close()
    with pytest.raises(SyslogUnavailable, match="gaierror"):
        UdpSender(Address("udp", "no-such-host.invalid", 514)).send([b"x"])


class _Receives:
    """A sender whose server has all that it is sent."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []

    def send(self, packets: Sequence[bytes]) -> None:
        self.packets += packets

    def numbers(self) -> list[int]:
        return [head.number for text in self.packets for head in heads_in(text.decode())]


def _put_mark(ledger: Ledger, number: int) -> None:
    with ledger._engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE facts SET number = {number} WHERE name = 'syslog'")


def test_a_mark_beyond_the_last_line_keeps_no_line_from_the_server(
    ledger: Ledger, clock: FakeClock
) -> None:
    for _ in range(3):
        ledger.begin({}, tells=True)
    _put_mark(ledger, 1_000_000)
    assert ledger.told() == 0
    state = ledger.chain_state()
    assert (state.told, state.untold_since) == (0, clock()), "it is no word, and lines wait"
    clock.move(60)
    assert ledger.prune(clock(), told=ledger.told(), most=100) == 0, "none goes that was not told"
    server = _Receives()
    teller = Teller(ledger, server, SOURCE, clock)
    assert not teller.run_once()
    assert server.numbers() == [1, 2, 3, 4]
    line = ledger.lines()[-1]
    assert (line.deed, line.details) == ("action", {"action": "tell syslog again", "after": 0})
    assert not teller.run_once()
    assert len(ledger.lines()) == 4, "it is said once"


@pytest.mark.parametrize("mark", [0, 4, 1_000_000])
def test_a_mark_that_is_moved_while_the_plugin_runs_is_put_right(
    ledger: Ledger, clock: FakeClock, mark: int
) -> None:
    server = _Receives()
    teller = Teller(ledger, server, SOURCE, clock)
    for _ in range(2):
        ledger.begin({}, tells=True)
    assert not teller.run_once()
    ledger.begin({}, tells=True)
    ledger.begin({}, tells=True)
    _put_mark(ledger, mark)
    assert not teller.run_once()
    assert server.numbers() == [1, 2, 3, 4, 5]
    assert ledger.lines()[-1].details == {"action": "tell syslog again", "after": 2}
    assert ledger.told() == 5
