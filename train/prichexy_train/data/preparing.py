"""From a folder of radiographs to a prepared set: read, decode, split, pair, count, write."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import PIL
from numpy.typing import NDArray

from prichexy_train.checkpoints import write_whole
from prichexy_train.data import chestxray14, folders
from prichexy_train.data.cache import fill_cache, rows_digest
from prichexy_train.data.catalogue import PARTS, Catalogue, Part, Reading
from prichexy_train.data.drawing import draw_pairs
from prichexy_train.data.pairs import Pairs
from prichexy_train.data.prepared import (
    CATALOGUE,
    FORMAT,
    IMAGES,
    NEAR_DUPLICATES,
    PREPARED,
    SPLIT,
    PreparedSet,
    near_duplicates_text,
    pairs_file,
    split_text,
)
from prichexy_train.data.problems import Problems, UnusableData
from prichexy_train.data.settings import (
    ChestXray14Source,
    FolderSource,
    OfficialSplit,
    PairName,
    PrepareSettings,
    PublishedPairs,
)
from prichexy_train.data.splits import drawn_split, kin, official_split
from prichexy_train.data.tables import table_file
from prichexy_train.locks import held
from prichexy_train.measures.demographics import demographics_auc
from prichexy_train.randomness import numpy_generator

__all__ = ["PROBLEMS", "Tables", "count_images", "describe_pairs", "prepare_set", "tables_of"]

#: Beside a set that could not be prepared: all that is wrong with it.
PROBLEMS: Final = "problems.txt"
#: The patients whose share of a list's pairs is told.
_TOP: Final = 50

_PART_OF: Final[dict[PairName, Part]] = {
    "train": "train",
    "train_all": "train",
    "val": "val",
    "test": "test",
    "test_matched": "test",
}


@dataclass(frozen=True)
class Tables:
    """All that a prepared set says beside its pixels."""

    catalogue: Catalogue
    parts: NDArray[np.int64]
    near_duplicates: Sequence[tuple[int, int]]
    pairs: Mapping[PairName, Pairs]
    left_out: Mapping[str, int]


def prepare_set(
    settings: PrepareSettings, source: Path, to: Path, *, jobs: int = 1, progress: bool = False
) -> dict[str, Any]:
    """Prepare the set in ``source`` into the folder ``to``, and give the summary.

    The same settings and source give the same files. A call that was killed is taken up by the
    next one, and on a set that is finished only what has changed is made again.

    Raises UnusableData where anything is wrong with the set: all that is wrong with table, files
    and split in one error; else all that is wrong with the pairs; else all images that cannot be
    decoded. The file ``problems.txt`` then names everything. Raises InUse where another process
    prepares the same folder.
    """
    if not source.is_dir():
        raise UnusableData(f"{source}: is no folder")
    try:
        to.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnusableData(f"{to}: cannot be written to ({error.strerror})") from error
    with held(to / ".lock"):
        return _prepare(settings, source, to, jobs=jobs, progress=progress)


def _prepare(
    settings: PrepareSettings, source: Path, to: Path, *, jobs: int, progress: bool
) -> dict[str, Any]:
    listing = to / PROBLEMS
    listing.unlink(missing_ok=True)
    problems = Problems()

    def stop_at_problems() -> None:
        problems.stop(f"{source} cannot be prepared", listing)

    reading = _read(settings, source, problems)
    # Once before the images, so that no hours of decoding go before a table's error is told.
    tables_of(settings, source, reading, [], problems, stop_at_problems)
    _refuse_another_set(to, settings, len(reading.catalogue))
    (to / PREPARED).unlink(missing_ok=True)
    digests = fill_cache(
        to / IMAGES,
        source,
        [image.path for image in reading.catalogue.images],
        settings.size,
        problems,
        upscale=settings.upscale,
        jobs=jobs,
        progress=progress,
    )
    stop_at_problems()
    equal = _equal_pixels(digests)
    tables = tables_of(settings, source, reading, equal, problems, stop_at_problems)
    return _write(settings, source, to, tables, rows_digest(digests))


def _refuse_another_set(to: Path, settings: PrepareSettings, images: int) -> None:
    """Raise UnusableData where ``to`` holds a finished set that this one would destroy."""
    try:
        there = PreparedSet.open(to)
    except UnusableData:
        return  # unfinished or damaged: to be finished, or mended
    found = (there.name, len(there.catalogue), there.images.size)
    if found != (settings.name, images, settings.size):
        raise UnusableData(
            f"{to}: holds {found[0]}, {found[1]:,} images of {found[2]} pixels, not "
            f"{settings.name}, {images:,} of {settings.size}; name another folder"
        )


def _read(settings: PrepareSettings, source: Path, problems: Problems) -> Reading:
    if isinstance(settings.source, ChestXray14Source):
        return chestxray14.read_catalogue(source, settings.name, settings.source, problems)
    return folders.read_catalogue(source, settings.name, settings.source, problems)


def _equal_pixels(digests: NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Give pairs that tie together all images with the same pixels in the cache."""
    first: dict[bytes, int] = {}
    found = []
    for index, digest in enumerate(digests):
        before = first.setdefault(digest.tobytes(), index)
        if before != index:
            found.append((before, index))
    return found


def tables_of(
    settings: PrepareSettings,
    source: Path,
    reading: Reading,
    equal: list[tuple[int, int]],
    problems: Problems,
    stop_at_problems: Callable[[], None],
) -> Tables:
    """Give split and pairs; ``equal`` are images with the same pixels, as far as is known.

    Pairs are looked at only when split and catalogue are as they should be: whatever is wrong
    there would be told once more with every pair.
    """
    catalogue, left_out = reading.catalogue, Counter(reading.left_out)
    near = list(equal)
    if isinstance(settings.source, FolderSource) and settings.source.near_duplicates:
        file = source / settings.source.near_duplicates
        near += folders.read_near_duplicates(file, catalogue, problems)
    relatives = kin(catalogue, near)
    if isinstance(settings.split, OfficialSplit):
        lists = chestxray14.read_lists(source, _official(settings), problems)
        parts = official_split(reading, lists, settings.split.train_images, problems)
    else:
        parts, edge = drawn_split(catalogue, relatives, settings.split)
        left_out.update(edge)
    stop_at_problems()
    pairs: dict[PairName, Pairs] = {}
    for name, wanted in settings.pairs.items():
        inside = parts == PARTS.index(_PART_OF[name])
        if isinstance(wanted, PublishedPairs):
            official = _official(settings)
            file = table_file(source / official.tables, wanted.file)
            pairs[name], without = chestxray14.read_pairs(
                file, catalogue, inside, problems, complete=official.complete
            )
        else:
            random = numpy_generator(wanted.seed, "pairs", name)
            pairs[name], without = draw_pairs(
                catalogue, np.flatnonzero(inside), relatives, near, wanted, random
            )
        left_out.update({f"{name}: {reason}": count for reason, count in without.items()})
        if not 0 < pairs[name].same.sum() < len(pairs[name]):
            problems.add("No pairs of one patient, or none of two", f"pairs {name}")
    stop_at_problems()
    return Tables(catalogue, parts, near, pairs, left_out)


def _official(settings: PrepareSettings) -> ChestXray14Source:
    """Give the source of a set that has official lists: the settings allow them to no other."""
    if not isinstance(settings.source, ChestXray14Source):
        raise TypeError("not of the official layout")
    return settings.source


def _write(
    settings: PrepareSettings, source: Path, to: Path, tables: Tables, images: str
) -> dict[str, Any]:
    """Write all but the images, ``prepared.json`` last, and give the summary."""
    files = {IMAGES: images}
    for file, text in _texts(tables):
        path = to / file
        path.parent.mkdir(exist_ok=True)
        write_whole(path, text.encode())
        files[file] = hashlib.sha256(text.encode()).hexdigest()
    catalogue = tables.catalogue
    data = {
        "format": FORMAT,
        "name": settings.name,
        "size": settings.size,
        "label_names": list(catalogue.label_names),
        "pairs": list(tables.pairs),
        "files": files,
    }
    summary = _summary(tables)
    about = {
        **data,
        "digest": hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest(),
        "summary": summary,
        "settings": settings.model_dump(mode="json"),
        "source": str(source.resolve()),
        "prepared_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "libraries": {"numpy": np.__version__, "pillow": PIL.__version__},
    }
    text = json.dumps(about, indent=2, ensure_ascii=False) + "\n"
    write_whole(to / PREPARED, text.encode())
    return summary


def _texts(tables: Tables) -> Iterator[tuple[str, str]]:
    yield CATALOGUE, tables.catalogue.text()
    yield SPLIT, split_text(tables.catalogue, tables.parts)
    yield NEAR_DUPLICATES, near_duplicates_text(tables.catalogue, tables.near_duplicates)
    for name, pairs in tables.pairs.items():
        yield pairs_file(name), pairs.text(tables.catalogue)


def _summary(tables: Tables) -> dict[str, Any]:
    """Count what a reader of results must know about the data they come from."""
    catalogue = tables.catalogue
    everything = np.arange(len(catalogue))
    return {
        "all": count_images(catalogue, everything),
        "parts": {
            part: count_images(catalogue, np.flatnonzero(tables.parts == number))
            for number, part in enumerate(PARTS)
        },
        "labels": catalogue.counts(),
        "pairs": {name: describe_pairs(catalogue, pairs) for name, pairs in tables.pairs.items()},
        "left_out": dict(tables.left_out),
    }


def count_images(catalogue: Catalogue, images: NDArray[np.int64]) -> dict[str, int]:
    """Give how many images these are, of how many patients, and how many of those have several."""
    of_each = np.bincount(catalogue.patients[images], minlength=1)
    return {
        "images": len(images),
        "patients": int((of_each > 0).sum()),
        "patients_with_several": int((of_each > 1).sum()),
    }


def describe_pairs(catalogue: Catalogue, pairs: Pairs) -> dict[str, Any]:
    """Give how many pairs a list has, whose they are, and how far sex, age and view alone get."""
    of_each = np.bincount(catalogue.patients[pairs.first[pairs.same]], minlength=1)
    top = np.sort(of_each)[::-1][:_TOP].sum()
    return {
        "pairs": len(pairs),
        "same": int(pairs.same.sum()),
        "patients_behind_same": int((of_each > 0).sum()),
        f"share_of_top_{_TOP}": round(float(top / max(of_each.sum(), 1)), 4),
        "demographics_auc": round(demographics_auc([catalogue], pairs), 4),
    }
