"""A real syslog server, rsyslog, that writes what it gets into a file, a message a line."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from prichexy_testing.certificates import Authority, Pair
from prichexy_testing.servers import _running, _Server, free_port

__all__ = ["SyslogServer", "running_syslog"]

_TLS = """
global(
    workDirectory="{folder}"
    defaultNetstreamDriverCAFile="{ca}"
    defaultNetstreamDriverCertFile="{certificate}"
    defaultNetstreamDriverKeyFile="{key}"
)
module(
    load="imtcp" maxSessions="50"
    streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="{auth}"
)
input(type="imtcp" port="{port}" address="127.0.0.1" ruleset="kept")
"""
_UDP = """
global(workDirectory="{folder}")
module(load="imudp")
input(type="imudp" port="{port}" address="127.0.0.1" ruleset="kept")
"""
_KEPT = """
template(
    name="line" type="string"
    string="%pri% %timestamp:::date-rfc3339% %hostname% %app-name% %msgid% %msg%\\n"
)
ruleset(name="kept") {{
    action(
        type="omfile" file="{folder}/messages" template="line"
        asyncWriting="off" flushOnTXEnd="on"
    )
}}
"""


class SyslogServer(_Server):
    """An rsyslog by RFC 5425 with ``authority``, without one by RFC 5426 (UDP).

    With ``asks`` only who has a certificate of the authority may send.
    """

    def __init__(self, folder: Path, authority: Authority | None, *, asks: bool = False) -> None:
        super().__init__(folder)
        self.port = free_port()
        self._pair: Pair | None = None if authority is None else authority.pair("syslog")
        self._authority = authority
        self._asks = asks

    def _command(self) -> list[str]:
        head = _UDP
        values = {"folder": self.folder, "port": self.port}
        if self._authority is not None and self._pair is not None:
            head = _TLS
            values |= {
                "ca": self._authority.certificate,
                "certificate": self._pair.certificate,
                "key": self._pair.key,
                "auth": "x509/certvalid" if self._asks else "anon",
            }
        configuration = self.folder / "rsyslog.conf"
        configuration.write_text('global(maxMessageSize="64k")\n' + (head + _KEPT).format(**values))
        program = shutil.which("rsyslogd") or "/usr/sbin/rsyslogd"
        return [program, "-n", "-f", str(configuration), "-i", str(self.folder / "pid")]

    def _answers(self) -> bool:
        if self._authority is None:
            # Its port is taken once it listens.
            with socket.socket(type=socket.SOCK_DGRAM) as probe:
                try:
                    probe.bind(("127.0.0.1", self.port))
                except OSError:
                    return True
            return False
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5):
            return True
        return False

    def messages(self) -> list[str]:
        """Give what was received so far: priority, moment, host, program, MSGID and text each."""
        file = self.folder / "messages"
        return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


@contextmanager
def running_syslog(authority: Authority | None, *, asks: bool = False) -> Iterator[SyslogServer]:
    """Run an rsyslog for the block; skips where there is none."""
    if shutil.which("rsyslogd") is None and not Path("/usr/sbin/rsyslogd").exists():
        pytest.skip("rsyslog is not installed")
    gnutls = list(Path("/usr/lib").glob("*/rsyslog/lmnsd_gtls.so"))
    if authority is not None and not gnutls:
        pytest.skip("rsyslog-gnutls is not installed")
    with _running(lambda folder: SyslogServer(folder, authority, asks=asks)) as server:
        yield server
