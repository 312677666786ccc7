"""A private certificate authority for tests, by the openssl program."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

__all__ = ["Authority", "Pair"]


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, each in a file of its own."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates in ``folder``; ``certificate`` is what to trust."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        if shutil.which("openssl") is None:
            pytest.skip("openssl is not installed")
        self._folder = folder
        self._own = self._made(name, "-addext", "basicConstraints=critical,CA:TRUE")
        self.certificate = self._own.certificate

    def pair(self, name: str, host: str = "127.0.0.1") -> Pair:
        """Sign a certificate for a server at ``host`` or a client; an empty host names none."""
        names = ["-addext", f"subjectAltName=IP:{host}"] if host else []
        return self._made(
            name, *names, "-CA", str(self._own.certificate), "-CAkey", str(self._own.key)
        )

    def _made(self, name: str, *arguments: str) -> Pair:
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
        command += ["-subj", f"/CN={name}", "-keyout", str(pair.key)]
        command += ["-out", str(pair.certificate), *arguments]
        subprocess.run(command, check=True, capture_output=True)
        pair.key.chmod(0o600)
        return pair
