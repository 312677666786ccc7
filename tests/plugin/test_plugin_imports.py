"""What the plugin's process loads: it shares its memory with Orthanc."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]

_SCRIPT = """
import importlib, json, pkgutil, sys
import prichexy_plugin
for module in pkgutil.walk_packages(prichexy_plugin.__path__, "prichexy_plugin."):
    importlib.import_module(module.name)
print(json.dumps(sorted(sys.modules)))
"""


def _loaded() -> set[str]:
    paths = os.pathsep.join(str(REPO / area) for area in ("plugin", "worker", "model", "gateway"))
    answer = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        check=True,
        timeout=300,
    )
    return set(json.loads(answer.stdout))


def test_the_plugin_loads_no_numeric_library_and_two_parts_of_the_worker() -> None:
    loaded = _loaded()
    assert "prichexy_plugin.wiring" in loaded
    heavy = {"torch", "monai", "numpy", "cv2", "pydicom", "pyorthanc", "prichexy_model"}
    assert not heavy & {name.partition(".")[0] for name in loaded}
    of_the_worker = {name for name in loaded if name.startswith("prichexy_worker.")}
    assert {name.split(".")[1] for name in of_the_worker} == {"contract", "retry"}


def test_nothing_but_the_package_can_be_imported_from_the_scripts_folder() -> None:
    # Orthanc puts the script's folder first on the path.
    folder = REPO / "plugin"
    importable = {
        one.name
        for one in folder.iterdir()
        if one.suffix in (".py", ".so") or (one.is_dir() and (one / "__init__.py").exists())
    }
    assert importable == {"prichexy_orthanc.py", "prichexy_plugin"}
