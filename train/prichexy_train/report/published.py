"""The figures that the paper prints, to stand beside what was measured."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from prichexy_train.report.methods import Described

__all__ = ["Published", "PublishedRow", "published"]

_FILE: Final = "published.toml"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PublishedVerification(_Strict):
    """A verification AUC in percent: mean and, where printed, deviation over runs."""

    mean: float
    deviation: float | None = None


class PublishedUtility(_Strict):
    """A mean class AUC in percent and, where printed, its 95 % interval."""

    mean: float
    low: float | None = None
    high: float | None = None


class PublishedRow(_Strict):
    """One line of the paper's table; ``method`` holds what a method of ours must agree in."""

    method: dict[str, Any]
    verification: PublishedVerification
    utility: PublishedUtility


class _Table(_Strict):
    citation: str
    data: str
    row: tuple[PublishedRow, ...]


@dataclass(frozen=True)
class Published:
    """The paper's table: where it stands, what it was measured on, and its rows."""

    citation: str
    data: str
    rows: tuple[PublishedRow, ...]

    def of(self, method: Described) -> PublishedRow | None:
        """Give the row that ``method`` can be laid beside; None where there is none.

        PriCheXy-Net was published with one operator only. Its figures stand beside both: which
        border is the paper's is the comparison.
        """
        values = dict(method.values)
        if values.get("mu_coarse"):
            return None
        for row in self.rows:
            wanted = {key: value for key, value in row.method.items() if key != "border"}
            if all(values.get(key) == value for key, value in wanted.items()):
                return row
        return None


@cache
def published() -> Published:
    """Give the figures of the data file that is part of this package."""
    file = resources.files("prichexy_train.report") / "templates" / _FILE
    table = _Table.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    return Published(table.citation, table.data, table.row)
