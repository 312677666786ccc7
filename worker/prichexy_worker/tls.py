"""How this worker speaks TLS to servers: they are always verified."""

from __future__ import annotations

import ssl
from pathlib import Path

from prichexy_worker.errors import Misconfigured

__all__ = ["client_context", "server_context"]


def client_context(
    ca_file: Path | None,
    certificate_file: Path | None = None,
    key_file: Path | None = None,
) -> ssl.SSLContext:
    """Give a context that verifies the server's certificate and name, TLS 1.2 at least.

    Without ``ca_file`` the system's authorities are trusted, with it only those in it. With
    ``certificate_file`` and its ``key_file`` we can prove who we are. Raises Misconfigured when a
    file cannot be used, or when others than its owner can read the key.
    """
    context = _trusting(ca_file, ssl.Purpose.SERVER_AUTH)
    if certificate_file is not None and key_file is not None:
        _load(context, certificate_file, key_file)
    return context


def server_context(ca_file: Path | None, certificate_file: Path, key_file: Path) -> ssl.SSLContext:
    """Give a context that proves who we are to whoever calls, and wants the same of them.

    Files and errors are those of ``client_context``.
    """
    context = _trusting(ca_file, ssl.Purpose.CLIENT_AUTH)
    context.verify_mode = ssl.CERT_REQUIRED
    _load(context, certificate_file, key_file)
    return context


def _trusting(ca_file: Path | None, purpose: ssl.Purpose) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(purpose, cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise Misconfigured(f"ca_file cannot be used ({type(error).__name__})") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _load(context: ssl.SSLContext, certificate_file: Path, key_file: Path) -> None:
    try:
        if key_file.stat().st_mode & 0o077:
            raise Misconfigured("key_file: others can read or alter the file; chmod 600 it")
        # An empty pass phrase, as OpenSSL would ask for one at the terminal.
        context.load_cert_chain(certificate_file, key_file, password="")
    except (OSError, ssl.SSLError, ValueError) as error:
        text = f"certificate_file or key_file cannot be used ({type(error).__name__})"
        raise Misconfigured(text) from None
