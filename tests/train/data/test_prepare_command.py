from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from prichexy_testing import miniature_chestxray14 as miniature
from prichexy_testing.miniature_chestxray14 import Miniature
from prichexy_testing.shared_data import REPO, SHARED, need
from prichexy_train.cli import create_app
from prichexy_train.data.decoding import Undecodable, decode
from prichexy_train.data.prepared import PreparedSet
from prichexy_train.data.settings import PrepareSettings
from prichexy_train.errors import Misconfigured
from prichexy_train.settings import read_settings

CONFIGS = REPO / "train" / "configs" / "data"


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(create_app(), ["prepare", *map(str, arguments)])


def test_the_official_configuration_prepares_the_miniature_from_the_command_line(
    official: Miniature, tmp_path: Path
) -> None:
    changes = [
        *("--set", "size=16"),
        *("--set", f"split.train_images={official.train_images}"),
        *("--set", 'pairs.test_matched.match=["sex", "view"]'),
    ]
    config = CONFIGS / "chestxray14.toml"
    source = ("--source", official.folder)
    result = run(config, *source, "--to", tmp_path / "to", "--jobs", "1", *changes)
    assert result.exit_code == 0, result.output
    assert f"{official.images:,} images of" in result.output.replace("  ", " ")
    for line in ("pairs train", "pairs test_matched", "sex, age and view alone: AUC", "labels"):
        assert line in result.output
    prepared = PreparedSet.open(tmp_path / "to")
    assert f"prepared, digest {prepared.digest[:16]}" in result.output
    again = run(config, "--to", tmp_path / "to", "--verify")
    assert "is as it was written" in again.output
    assert again.exit_code == 0


def test_without_a_source_there_is_only_verification(tmp_path: Path) -> None:
    result = run(CONFIGS / "chestxray14.toml", "--to", tmp_path / "to")
    assert isinstance(result.exception, Misconfigured)


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_configuration_is_valid_and_named_as_its_file(config: Path) -> None:
    assert read_settings(config, PrepareSettings).name == config.stem


def test_the_papers_protocol_stands_in_its_configuration() -> None:
    settings = read_settings(CONFIGS / "chestxray14.toml", PrepareSettings).model_dump()
    assert settings["size"] == 256
    assert settings["split"] == {"by": "official", "train_images": 75_708}
    assert settings["pairs"]["test_matched"]["match"] == ("sex", "age", "view")
    assert settings["pairs"]["test_matched"]["a_patient"] == 1
    assert settings["pairs"]["test_matched"]["age_within"] == 2


def test_small_images_are_not_stretched_without_being_asked() -> None:
    source = need(SHARED / "kermany224")
    settings = read_settings(CONFIGS / "kermany224.toml", PrepareSettings)
    assert settings.size == 224
    assert not settings.upscale
    path = next(source.rglob("*.jpeg"))
    assert decode(path, 224, upscale=settings.upscale).shape == (224, 224)
    with pytest.raises(Undecodable, match="Smaller than 256 pixels: set a smaller size"):
        decode(path, 256, upscale=settings.upscale)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"size": 100}, "multiple of 16"),
        ({"sizes": 64}, "sizes"),
        ({"split": {"by": "drawn", "val": 0.5, "test": 0.5}}, "leave nothing to train on"),
        ({"pairs": {"train": {"count": 2}}}, "no pairs are described for test, val"),
        (
            {"source": {"layout": "folder"}, "split": {"by": "official"}},
            "of layout chestxray14 only",
        ),
        (
            {"source": {"layout": "folder", "serial": r"\d+"}, "split": {"by": "drawn"}},
            "of layout chestxray14 only|with the groups",
        ),
        ({"source": {"layout": "folder", "serial": "("}}, "is no pattern"),
    ],
)
def test_settings_that_do_not_fit_together_are_told(
    official: Miniature, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        miniature.settings(official, **changes)
