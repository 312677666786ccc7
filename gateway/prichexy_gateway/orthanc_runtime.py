"""Which Orthanc runs, and where it finds our plugin: this system's, or one in a folder.

Another Debian's Orthanc, installed in a folder by debootstrap, runs by chroot. It sees that
folder as ``/``, so the plugin, the plugin's packages and the gateway's home must lie below it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prichexy_gateway.errors import Failed, Misconfigured
from prichexy_gateway.home import checkout

__all__ = ["OrthancRuntime", "native_runtime"]


@dataclass(frozen=True, slots=True)
class OrthancRuntime:
    """An Orthanc with its Python. All paths are this system's, below ``root``.

    ``script`` is prichexy_orthanc.py; ``python_path`` holds what it imports; ``executable`` and
    ``plugins`` are as the Orthanc sees them.
    """

    script: Path
    python_path: tuple[Path, ...] = ()
    root: Path = Path("/")
    executable: str = "/usr/sbin/Orthanc"
    plugins: str = "/usr/share/orthanc/plugins"

    def inside(self, path: Path) -> str:
        """Give ``path`` as the Orthanc sees it. Raises Misconfigured when it does not see it."""
        try:
            return "/" + str(path.resolve().relative_to(self.root.resolve()))
        except ValueError:
            raise Misconfigured(f"{path} is not below {self.root}: Orthanc cannot see it") from None

    def command(self, configuration: Path) -> tuple[str, ...]:
        """Give the command that starts this Orthanc."""
        orthanc = (self.executable, self.inside(configuration))
        return orthanc if self.root == Path("/") else ("chroot", str(self.root), *orthanc)

    def check(self) -> None:
        """Raise Failed when the Orthanc, its Python plugin or our script is missing."""
        needed = (
            (self.root / self.executable.lstrip("/"), "script/install system orthanc"),
            (
                self.root / self.plugins.lstrip("/") / "libOrthancPython.so",
                "script/install system orthanc",
            ),
            (self.script, "check out the whole project"),
            *((path, "script/bootstrap") for path in self.python_path),
        )
        for path, remedy in needed:
            if not path.exists():
                raise Failed(f"{path} is missing. Run: {remedy}")


def native_runtime() -> OrthancRuntime:
    """Give this system's Orthanc with the checkout's plugin and .venv-plugin's packages."""
    root = checkout()
    packages = sorted((root / ".venv-plugin" / "lib").glob("python3*/site-packages"))
    if not packages:
        raise Failed(f"{root / '.venv-plugin'} is missing. Run: script/bootstrap")
    return OrthancRuntime(
        script=root / "plugin" / "prichexy_orthanc.py",
        # Editable installs need .pth files, which PYTHONPATH does not process: name the areas.
        python_path=(root / "plugin", root / "worker", root / "model", *packages),
    )
