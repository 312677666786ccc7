"""docs/settings.md names every setting, and none that is not there."""

import re
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from prichexy_plugin.section import Section
from prichexy_worker.settings import Settings as WorkerSettings
from prichexy_worker.target_settings import KINDS, Target

REPO = Path(__file__).parents[2]
PAGE = (REPO / "docs" / "settings.md").read_text(encoding="utf-8")
TARGETS = (REPO / "docs" / "export-targets.md").read_text(encoding="utf-8")


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Give the models that an annotation holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        if part not in (NoneType, Ellipsis):
            yield from _models_in(part)


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Give all keys; of those that hold one of several models, only the key itself."""
    for name, info in model.model_fields.items():
        key = prefix + (info.alias or name)
        inner = list(_models_in(info.annotation))
        several = Ellipsis in get_args(info.annotation)
        if len(inner) != 1 or several:
            yield key
        if len(inner) == 1:
            yield from _keys(inner[0], f"{key}[]." if several else f"{key}.")


def _listed(section: str, page: str = PAGE) -> set[str]:
    """Give the keys in the first column of a section's tables."""
    text = page.split(f"\n## {section}")[1].split("\n## ", maxsplit=1)[0]
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return {key for row in rows for key in re.findall(r"`([^`]+)`", row)}


def test_every_key_of_the_plugin_is_on_the_page():
    assert _listed("Ingest") == set(_keys(Section))


def test_every_key_of_the_worker_is_on_the_page():
    assert _listed("Worker") == set(_keys(WorkerSettings))


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_of_an_export_target_is_on_its_page(kind):
    model = next(
        one for one in _models_in(Target) if kind in get_args(one.model_fields["kind"].annotation)
    )
    common = {"kind", "default"}
    assert _listed("Settings of every target", TARGETS) == common
    assert _listed(f"`{kind}`", TARGETS) == set(_keys(model)) - common


def test_the_page_on_export_targets_has_every_kind():
    assert set(re.findall(r"^## `(.+)`", TARGETS, flags=re.MULTILINE)) == set(KINDS)
    assert len(list(_models_in(Target))) == len(KINDS)


@pytest.mark.parametrize("name", ["ingest.json", "export.json"])
def test_every_variable_of_the_orthanc_configurations_is_on_the_page(name):
    text = (REPO / "orthanc-config" / name).read_text(encoding="utf-8")
    assert set(re.findall(r"\$\{(PRICHEXY_\w+)", text)) <= _listed("Variables")
