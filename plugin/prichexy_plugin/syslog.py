"""Syslog: how a message is put (RFC 5424) and brought to a server (RFC 5425 and RFC 5426).

Over TLS each batch has a connection of its own, which we close first and the server after it: when
its end comes, it has read all that was sent, and a server that dies before it leaves an error
instead. Syslog itself knows no acknowledgement. Over UDP nobody knows what arrived.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Final, Protocol

from prichexy_plugin.audit_messages import AuditMessage

__all__ = ["Address", "Sender", "SyslogUnavailable", "TlsSender", "UdpSender", "framed", "packet"]

#: Facility 10, "security/authorization messages" (PS3.15 A.6), times 8.
_FACILITY: Final = 80
#: By EventOutcomeIndicator: notice, warning, error, critical.
_SEVERITY: Final = {"0": 5, "4": 4, "8": 3, "12": 2}
_APP_NAME: Final = "prichexy"
_MESSAGE_ID: Final = "DICOM+RFC3881"
_BOM: Final = b"\xef\xbb\xbf"
#: Seconds for one batch, in all.
_PATIENCE: Final = 5.0


class SyslogUnavailable(Exception):
    """The server did not take a batch: it is sent again. The text names the kind of error only."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server listens; ``scheme`` is "tls" or "udp"."""

    scheme: str
    host: str
    port: int


class Sender(Protocol):
    """Brings messages to a server."""

    def send(self, packets: Sequence[bytes]) -> None:
        """Return when the server has all of them, as far as that can be known.

        Raises SyslogUnavailable; it may then have any of them.
        """


def packet(message: AuditMessage, host: str | None = None) -> bytes:
    """Give the SYSLOG-MSG of a message (RFC 5424 6), at the moment of its line."""
    priority = _FACILITY + _SEVERITY[message.outcome]
    at = message.line.at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    name = "".join(one for one in host or socket.gethostname() if "!" <= one <= "~")[:255] or "-"
    header = f"<{priority}>1 {at} {name} {_APP_NAME} {os.getpid()} {_MESSAGE_ID} - "
    return header.encode("ascii") + _BOM + message.xml.encode()


def framed(content: bytes) -> bytes:
    """Give a message with its length before it (RFC 5425 4.3)."""
    return b"%d " % len(content) + content


class TlsSender:
    """A Sender by RFC 5425. ``context`` says whom it trusts, and who we are."""

    def __init__(
        self,
        address: Address,
        context: ssl.SSLContext,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = address
        self._context = context
        self._clock = clock

    def send(self, packets: Sequence[bytes]) -> None:
        """Return when the server has read all of them and has closed the connection."""
        deadline = self._clock() + _PATIENCE
        place = self._address.host, self._address.port
        try:
            with (
                socket.create_connection(place, timeout=_PATIENCE) as plain,
                self._context.wrap_socket(
                    plain, server_hostname=self._address.host, do_handshake_on_connect=False
                ) as channel,
            ):
                self._wait_until(deadline, channel)
                channel.do_handshake()
                for one in packets:
                    self._wait_until(deadline, channel)
                    channel.sendall(framed(one))
                self._close(channel, deadline)
        except OSError as error:
            raise SyslogUnavailable(type(error).__name__) from None

    def _close(self, channel: ssl.SSLSocket, deadline: float) -> None:
        """Say that no more comes, and read to the server's end. Raises OSError."""
        self._wait_until(deadline, channel)
        try:
            rest = channel.unwrap()
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            return  # it closed without a word of farewell, but not before it had read ours
        rest.shutdown(socket.SHUT_WR)
        while True:
            self._wait_until(deadline, rest)
            if not rest.recv(4096):
                return

    def _wait_until(self, deadline: float, channel: socket.socket) -> None:
        left = deadline - self._clock()
        if left <= 0:
            raise TimeoutError
        channel.settimeout(left)


class UdpSender:
    """A Sender by RFC 5426: one packet a message, and no word of what became of it."""

    def __init__(self, address: Address) -> None:
        self._address = address

    def send(self, packets: Sequence[bytes]) -> None:
        """Return when this machine has sent all of them."""
        place = self._address.host, self._address.port
        try:
            family, kind, protocol, _, target = socket.getaddrinfo(*place, type=socket.SOCK_DGRAM)[
                0
            ]
            with socket.socket(family, kind, protocol) as channel:
                channel.settimeout(_PATIENCE)
                for one in packets:
                    channel.sendto(one, target)
        except OSError as error:
            raise SyslogUnavailable(type(error).__name__) from None
