"""What the machine lends to a build: names, certificates, proxies, mirrors, pip's own sources.

Docker's own builds get these from the engine. Here they are found at rehearsal time and nothing of
them stays in the image.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from prichexy_testing.rehearsal.sandbox import Mount, bind

__all__ = ["Loan", "borrow", "pip_environment"]

_PROXIES: Final = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_CERTIFICATE_VARIABLES: Final = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE")
_APT_KEPT: Final = re.compile(r"Acquire::(Check-|Retries|http::|https::|ForceIPv)[^ ]* \".+\";")
_PIP_LINE: Final = re.compile(r"(?P<section>[^=]+?)\.(?P<name>[a-z-]+)=(?P<value>.*)")
#: Where the lent files lie while a step runs; the folder is empty in every Debian base.
_LENT: Final = "/mnt"


@dataclass(frozen=True, slots=True)
class Loan:
    """Mounts and environment for a step, and the mount points to take away after it."""

    mounts: tuple[Mount, ...]
    environment: Mapping[str, str]

    def clear(self, root: Path) -> None:
        """Remove from ``root`` the empty mount points that the loan left."""
        for mount in self.mounts:
            point = root / mount.target.lstrip("/")
            is_ours = mount.target not in {"/etc/resolv.conf", "/etc/hosts"}
            if is_ours and mount.is_file and point.is_file() and not point.stat().st_size:
                point.unlink()
            # Up to the first folder that is not empty.
            for folder in [point, *point.parents]:
                if folder in {root, root / "mnt"} or not folder.is_dir() or any(folder.iterdir()):
                    break
                folder.rmdir()


@contextmanager
def borrow() -> Iterator[Loan]:
    """Give what this machine lends, for as long as the context lasts."""
    environment = {name: os.environ[name] for name in _PROXIES if name in os.environ}
    environment |= {"APT_CONFIG": f"{_LENT}/apt.conf", **pip_environment()}
    certificates = [os.environ.get(name, "") for name in _CERTIFICATE_VARIABLES]
    bundle = next((Path(path) for path in certificates if path and Path(path).is_file()), None)
    with TemporaryDirectory(prefix="prichexy-loan-") as folder:
        lent = Path(folder)
        lent.chmod(0o755)
        (lent / "apt.conf").write_text(_apt_settings(), encoding="utf-8")
        if bundle is not None:
            (lent / "certificates.crt").write_bytes(bundle.read_bytes())
            certificate = f"{_LENT}/certificates.crt"
            environment |= dict.fromkeys(_CERTIFICATE_VARIABLES, certificate)
        mounts = [bind(lent, _LENT, read_only=True)]
        mounts += [
            bind(Path(path), path, read_only=True) for path in ("/etc/resolv.conf", "/etc/hosts")
        ]
        folders = {path for value in pip_environment().values() for path in _local_folders(value)}
        mounts += [bind(path, str(path), read_only=True) for path in sorted(folders)]
        yield Loan(tuple(mounts), environment)


def pip_environment() -> dict[str, str]:
    """Give the machine's pip configuration as PIP_ variables, the certificate aside.

    What is set in several places ends in the one that pip itself would obey: a variable before a
    file, a file's section ``[install]`` before ``[global]``.
    """
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    )
    ranked: dict[str, tuple[int, str]] = {}
    ranks = {"global": 0, "install": 1, ":env:": 2}
    for line in listing.stdout.splitlines():
        found = _PIP_LINE.fullmatch(line)
        if not found or found["section"] not in ranks or found["name"] == "cert":
            continue
        name = f"PIP_{found['name'].upper().replace('-', '_')}"
        value = " ".join(str(ast.literal_eval(found["value"])).split())
        ranked[name] = max(ranked.get(name, (-1, "")), (ranks[found["section"]], value))
    return {name: value for name, (_, value) in ranked.items()}


def _local_folders(value: str) -> set[Path]:
    """Find what a pip setting names of this machine: files, folders, and local indexes.

    An index's pages link to files beside it, so the folder around it is lent.
    """
    found = set()
    for word in value.split():
        path = Path(word.removeprefix("file://"))
        if path.is_absolute() and path.exists():
            found.add(path.parent if word.startswith("file://") else path)
    return found - {Path("/")}


def _apt_settings() -> str:
    """Give the machine's own proxy, retry and clock settings of apt."""
    dump = subprocess.run(["apt-config", "dump"], check=True, capture_output=True, text=True)
    return "\n".join(line for line in dump.stdout.splitlines() if _APT_KEPT.fullmatch(line)) + "\n"
