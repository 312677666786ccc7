"""The Debian base images, made by debootstrap and kept as an archive."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

__all__ = ["SUITES", "BaseError", "debian_base", "pack", "unpack"]

#: The images that a Dockerfile may start from, and the Debian release that stands in for each.
SUITES: Final = {"debian:bookworm-slim": "bookworm", "debian:trixie-slim": "trixie"}

#: As in Debian's official images: no service starts, and no documentation is unpacked.
_POLICY: Final = "#!/bin/sh\nexit 101\n"
_SLIM: Final = """\
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/info/*
path-exclude /usr/share/lintian/*
path-exclude /usr/share/linda/*
path-exclude /usr/share/locale/*
path-include /usr/share/locale/locale.alias
path-exclude /usr/share/man/*
"""


class BaseError(Exception):
    """A base image could not be made; the text says what to do."""


def debian_base(image: str, cache: Path) -> Path:
    """Give the archive of the base that stands in for ``image``, made on first use.

    The mirror is PRICHEXY_DEBIAN_MIRROR, by default Debian's own. Raises BaseError for an image
    that is not known and when debootstrap is absent or fails.
    """
    suite = SUITES.get(image)
    if suite is None:
        raise BaseError(f"no stand-in for the base image {image}")
    archive = cache / f"base-{suite}.tar"
    if not archive.exists():
        if shutil.which("debootstrap") is None:
            raise BaseError("debootstrap is missing: script/install system dev")
        _debootstrap(suite, archive)
    return archive


def pack(root: Path, archive: Path) -> None:
    """Write the folder ``root`` to an archive, which is there whole or not at all."""
    partial = archive.with_suffix(".tar.partial")
    packing = ["tar", "--create", "--numeric-owner", "--file", str(partial)]
    subprocess.run([*packing, "--directory", str(root), "."], check=True)
    partial.rename(archive)


def unpack(archive: Path, root: Path) -> None:
    """Fill the new folder ``root`` from a base archive."""
    root.mkdir(parents=True)
    packed = ["tar", "--extract", "--numeric-owner", "--file", str(archive)]
    subprocess.run([*packed, "--directory", str(root)], check=True)


def _debootstrap(suite: str, archive: Path) -> None:
    mirror = os.environ.get("PRICHEXY_DEBIAN_MIRROR", "http://deb.debian.org/debian")
    security = os.environ.get(
        "PRICHEXY_DEBIAN_SECURITY_MIRROR", "http://deb.debian.org/debian-security"
    )
    root = archive.with_suffix(".partial")
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    done = subprocess.run(
        ["debootstrap", "--variant=minbase", suite, str(root), mirror],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise BaseError(f"debootstrap {suite} failed:\n{done.stdout[-2000:]}")
    _as_in_the_official_image(root, suite, mirror, security)
    pack(root, archive)
    shutil.rmtree(root)


def _as_in_the_official_image(root: Path, suite: str, mirror: str, security: str) -> None:
    suites = ((mirror, f"{suite} {suite}-updates"), (security, f"{suite}-security"))
    sources = "".join(
        f"Types: deb\nURIs: {address}\nSuites: {names}\nComponents: main\n"
        "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n"
        for address, names in suites
    )
    (root / "etc/apt/sources.list").unlink(missing_ok=True)
    (root / "etc/apt/sources.list.d/debian.sources").write_text(sources, encoding="utf-8")
    policy = root / "usr/sbin/policy-rc.d"
    policy.write_text(_POLICY, encoding="utf-8")
    policy.chmod(0o755)
    (root / "etc/dpkg/dpkg.cfg.d/docker").write_text(_SLIM, encoding="utf-8")
    for folder in ("doc", "info", "locale", "man"):
        shutil.rmtree(root / "usr/share" / folder, ignore_errors=True)
    for archive in (root / "var/cache/apt/archives").glob("*.deb"):
        archive.unlink()
    shutil.rmtree(root / "var/lib/apt/lists")
    (root / "var/lib/apt/lists/partial").mkdir(parents=True)
    # Docker fills these two when a container starts.
    for name in ("resolv.conf", "hosts", "hostname"):
        (root / "etc" / name).unlink(missing_ok=True)
        (root / "etc" / name).touch()
