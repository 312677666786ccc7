"""Until when the certificates of a worker's settings are valid."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from prichexy_worker.settings import Settings

__all__ = ["certificate_files", "valid_until"]


def certificate_files(settings: Settings) -> Iterator[tuple[str, Path]]:
    """Give each file of certificates that the settings name, with its key, once each."""
    sections: dict[str, object] = {"ingest": settings.ingest, "broker": settings.broker}
    for name, target in settings.export_targets().items():
        sections[name if name == "export" else f"targets.{name}"] = target
    seen: set[Path] = set()
    for section, holder in sections.items():
        for key in ("ca_file", "certificate_file"):
            file = getattr(holder, key, None)
            if file is not None and file not in seen:
                seen.add(file)
                yield f"{section}.{key}", file


def valid_until(file: Path) -> datetime:
    """Give the end of the certificates in a PEM file, of the one that ends first.

    Raises ValueError when one cannot be read, and when the program openssl is missing: Python's
    library reads a certificate of an authority alone.
    """
    try:
        text = file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot be read ({type(error).__name__})") from None
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    ends = [_end_of(f"{begin}{part.partition(end)[0]}{end}\n") for part in text.split(begin)[1:]]
    if not ends:
        raise ValueError("holds no certificate")
    return min(ends)


def _end_of(certificate: str) -> datetime:
    command = ["openssl", "x509", "-noout", "-enddate"]
    try:
        done = subprocess.run(
            command, input=certificate, capture_output=True, text=True, check=True
        )
        moment = ssl.cert_time_to_seconds(done.stdout.strip().removeprefix("notAfter="))
    except FileNotFoundError:
        raise ValueError("cannot be looked at: the program openssl is not installed") from None
    except (OSError, subprocess.CalledProcessError, ValueError):
        raise ValueError("holds what is no certificate") from None
    return datetime.fromtimestamp(moment, UTC)
