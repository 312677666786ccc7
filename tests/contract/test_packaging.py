"""The wheel holds what the tree holds, and imports run one way."""

import configparser
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
AREAS = ("plugin", "worker", "model", "gateway", "train")


@pytest.fixture(scope="module")
def setup_cfg() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(REPO / "setup.cfg")
    return config


def test_every_package_of_the_tree_is_listed(setup_cfg):
    found = {
        ".".join(init.parent.relative_to(REPO / area).parts)
        for area in AREAS
        for init in (REPO / area).glob("prichexy_*/**/__init__.py")
    }
    assert set(setup_cfg["options"]["packages"].split()) == found


def test_every_data_file_of_the_tree_is_shipped(setup_cfg):
    listed = setup_cfg["options.package_data"]
    missing = []
    for area in AREAS:
        for path in (REPO / area).glob("prichexy_*/**/*"):
            if (
                path.is_dir()
                or path.suffix in {".py", ".pyc", ".pyi"}
                or "__pycache__" in path.parts
            ):
                continue
            shipped = False
            for package, patterns in listed.items():
                globs = [pattern.strip() for pattern in patterns.split(",")]
                folder = REPO / area / package.replace(".", "/") if package != "*" else path.parent
                shipped |= any(path in folder.glob(glob) for glob in globs)
            if not shipped:
                missing.append(path.relative_to(REPO).as_posix())
    assert missing == []
