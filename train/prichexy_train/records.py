"""Records of what was measured: one JSON file a result, its single scores beside it.

A run folder holds them in ``records/``: ``NAME.json`` and, with every score that the figures
were computed from, ``NAME.npz``. A result is finished when its JSON file is there: the scores
are written first, and either file appears whole or not at all.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from prichexy_train.checkpoints import write_whole
from prichexy_train.errors import Damaged

__all__ = [
    "FOLDER",
    "ROLES",
    "AttackRecord",
    "LabelFigures",
    "MethodOf",
    "Record",
    "RecordError",
    "RetrievalRecord",
    "Role",
    "RungOf",
    "Stored",
    "UtilityRecord",
    "find_record",
    "read_records",
    "record_name",
    "write_record",
]

#: Where the records lie inside a run folder.
FOLDER: Final = "records"

#: What a rung's figure may be used for.
#: "attack": what an attacker can do; the maximum over rungs is taken over these.
#: "baseline": an attacker with no training of his own; it counts in the maximum as well.
#: "floor": what no change of the pixels can hide (sex, age, view, size); never in the maximum.
#: "control": whether the experiment itself is sound; never in the maximum.
#: "shortcut": what strong verifiers look at; no rung, and on real images alone.
#: "trial": one verifier of a learning curve on real images; no rung either.
Role = Literal["attack", "baseline", "floor", "control", "shortcut", "trial"]
#: The ladder's, in the order in which a table has them.
ROLES: Final[tuple[Role, ...]] = ("attack", "baseline", "floor", "control")

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]{0,180}")

Share = Annotated[float, Field(ge=0, le=1)]
Interval = tuple[Share, Share]


class RecordError(Damaged):
    """A record cannot be read; the text names the file and what is wrong with it."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class MethodOf(_Frozen):
    """What made the anonymised images: the method's name, its settings, and a digest of both.

    For a trained method the digest covers the weights.
    """

    name: str
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    digest: str = ""


class RungOf(_Frozen):
    """Which attack it was: the ladder's number (0 for what is no rung), its name and its role."""

    number: int = Field(ge=0, le=9)
    name: str
    role: Role = "attack"


class _Measured(_Frozen):
    version: Literal[1] = 1
    data: str
    data_digest: str = ""
    method: MethodOf
    seed: int
    patients: int
    seconds: float = Field(ge=0)
    device: str
    scores: str
    details: dict[str, JsonValue] = Field(default_factory=dict)
    provenance: dict[str, JsonValue] = Field(default_factory=dict)


class AttackRecord(_Measured):
    """How well one attacker told pairs of one patient from pairs of two, on one list of pairs.

    ``auc`` is oriented: below 0.5 the attacker is worse than chance. ``interval`` holds 95 % of
    ``measures.bootstrap``'s resamples of patients, and is null where too few were to be had.
    The scores' file holds ``scores``, ``same``, ``first`` and ``second`` (the patients' codes),
    and ``validation``, the scores of the set's validation pairs, where there are any.

    ``details`` of whoever looks at images say how his scores did on validation pairs, an
    anonymised image and a real one: ``validation_auc`` and ``validation_interval`` as they were,
    and ``sign``, -1 where all scores of the record were turned round for it. Of an ensemble,
    ``weights``: each member's share by name, below 0 where he was turned round in it.
    """

    kind: Literal["attack"] = "attack"
    rung: RungOf
    pair_list: str
    auc: Share
    interval: Interval | None
    pairs: int
    positives: int


class RetrievalRecord(_Measured):
    """How well one attacker found a patient's other images in a gallery of real ones.

    A query's own original, what is nearly the same picture, and other patients of the serial
    numbers beside its patient's are not in its gallery. ``details`` as an ``AttackRecord``'s.
    ``chance_rank1`` is what guessing finds. The scores' file holds ``rank1``,
    ``average_precision`` and ``patient``, a value a query.
    """

    kind: Literal["retrieval"] = "retrieval"
    rung: RungOf
    rank1: Share
    rank1_interval: Interval | None
    map_at_r: Share
    map_interval: Interval | None
    chance_rank1: Share
    queries: int
    gallery: int


class LabelFigures(_Frozen):
    """One label's AUC on anonymised images, and the control's: the same real images.

    All null where too few images had the label, or too few had it not.
    """

    auc: Share | None = None
    interval: Interval | None = None
    control: Share | None = None
    control_interval: Interval | None = None
    positives: int
    negatives: int


class UtilityRecord(_Measured):
    """How well a classifier trained on real images reads the anonymised ones.

    ``auc`` is the mean over the labels that have a figure; ``control`` the same for the real
    images, resized the same way; ``difference`` = auc - control, whose interval comes of the same
    resamples for both. The scores' file holds ``scores``, ``control`` (images, labels),
    ``targets`` and ``patient``. ``details`` of a deformation hold ``displacement``, how far it
    moves pixels at 256 × 256: ``rms`` an axis, ``p95`` and ``max`` of the length.
    """

    kind: Literal["utility"] = "utility"
    auc: Share
    interval: Interval | None
    control: Share
    control_interval: Interval | None
    difference: float = Field(ge=-1, le=1)
    difference_interval: tuple[float, float] | None
    labels: dict[str, LabelFigures]
    images: int


Record = Annotated[AttackRecord | RetrievalRecord | UtilityRecord, Field(discriminator="kind")]

_RECORD: Final[TypeAdapter[AttackRecord | RetrievalRecord | UtilityRecord]] = TypeAdapter(Record)


@dataclass(frozen=True, slots=True)
class Stored:
    """A record and the JSON file that it was read from."""

    path: Path
    record: AttackRecord | RetrievalRecord | UtilityRecord

    def scores(self) -> dict[str, NDArray[Any]]:
        """Give the arrays of the scores' file by name.

        Raises RecordError when it is missing or damaged.
        """
        path = self.path.with_name(self.record.scores)
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise RecordError(f"{path}: its scores cannot be read ({error})") from error


def record_name(number: int, rung: str, seed: int, part: str = "") -> str:
    """Give the name of an attempt's record: ``rung-3.frozen.seed-1.test``, say.

    ``part`` is the list of pairs; where several sets are tested, SET.LIST or, of a search, SET.
    """
    words = (f"rung-{number}", rung, f"seed-{seed}", part)
    return ".".join(word for word in words if word)


def write_record(
    run: str | Path,
    name: str,
    record: AttackRecord | RetrievalRecord | UtilityRecord,
    scores: Mapping[str, NDArray[Any]],
) -> Path:
    """Write ``record`` and its ``scores`` as ``name`` below the run folder; give the JSON's path.

    ``record.scores`` is set to the name of the scores' file. A record of that name is replaced.
    Raises ValueError for a name that is no plain file name, Failed when the disk is full.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r}: a record's name is letters, digits and . _ = + -")
    folder = Path(run) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    record = record.model_copy(update={"scores": f"{name}.npz"})
    text = json.dumps(record.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"

    arrays = io.BytesIO()
    np.savez_compressed(arrays, **scores)  # type: ignore[arg-type]
    write_whole(folder / record.scores, arrays.getbuffer())
    write_whole(path, text.encode())
    return path


def find_record(run: str | Path, name: str) -> Stored | None:
    """Give the record ``name`` of the run folder, or None when it is not finished.

    Raises RecordError when it is there and cannot be read.
    """
    path = Path(run) / FOLDER / f"{name}.json"
    return _read(path) if path.is_file() else None


def read_records(*folders: str | Path) -> list[Stored]:
    """Give every record anywhere below the folders, in the order of their paths.

    Raises RecordError for one that cannot be read: a table with a result left out would mislead.
    """
    paths: set[Path] = set()
    for folder in folders:
        paths.update(Path(folder).glob(f"**/{FOLDER}/*.json"))
    return [_read(path) for path in sorted(paths)]


def _read(path: Path) -> Stored:
    try:
        return Stored(path, _RECORD.validate_json(path.read_bytes()))
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        raise RecordError(f"{path}: is no record: {_first(error.errors())}") from error


def _first(errors: Iterable[Any]) -> str:
    error = next(iter(errors))
    place = ".".join(str(part) for part in error["loc"])
    return f"{place}: {error['msg']}" if place else str(error["msg"])
