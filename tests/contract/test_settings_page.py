"""docs/settings.md names every setting, and none that is not there."""

import re
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from prichexy_plugin import settings as plugin_settings
from prichexy_worker.settings import Settings as WorkerSettings

REPO = Path(__file__).parents[2]
PAGE = (REPO / "docs" / "settings.md").read_text(encoding="utf-8")


def _model_in(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """Give the model that an annotation holds, and whether it holds several of it."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    for part in get_args(annotation):
        model, _ = _model_in(part) if part not in (NoneType, Ellipsis) else (None, False)
        if model is not None:
            return model, Ellipsis in get_args(annotation)
    return None, False


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, info in model.model_fields.items():
        key = prefix + (info.alias or name)
        inner, several = _model_in(info.annotation)
        if inner is None or several:
            yield key
        if inner is not None:
            yield from _keys(inner, f"{key}[]." if several else f"{key}.")


def _listed(section: str) -> set[str]:
    """Give the keys in the first column of a section's tables."""
    text = PAGE.split(f"\n## {section}")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return {key for row in rows for key in re.findall(r"`([^`]+)`", row)}


def test_every_key_of_the_plugin_is_on_the_page():
    assert _listed("Ingest") == set(_keys(plugin_settings._Section))


def test_every_key_of_the_worker_is_on_the_page():
    assert _listed("Worker") == set(_keys(WorkerSettings))


@pytest.mark.parametrize("name", ["ingest.json", "export.json"])
def test_every_variable_of_the_orthanc_configurations_is_on_the_page(name):
    text = (REPO / "orthanc-config" / name).read_text(encoding="utf-8")
    assert set(re.findall(r"\$\{(PRICHEXY_\w+)", text)) <= _listed("Variables")
