"""What ChestX-ray14's own tables and the published pairs say by themselves, with no image at hand.

Everything that does not need a pixel is exercised as it is for training: the reader, the split,
the pairs, and the control that knows sex, age and view alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from prichexy_train.data import chestxray14
from prichexy_train.data.catalogue import PARTS, Catalogue
from prichexy_train.data.pairs import Pairs
from prichexy_train.data.preparing import Tables, count_images, describe_pairs, tables_of
from prichexy_train.data.problems import Problems
from prichexy_train.data.settings import (
    ChestXray14Source,
    OfficialSplit,
    PairName,
    PrepareSettings,
    PublishedPairs,
)
from prichexy_train.data.tables import file_digest, lines, table_file
from prichexy_train.errors import Misconfigured
from prichexy_train.measures.auc import auc
from prichexy_train.measures.bootstrap import Resamples, interval, weighted_auc
from prichexy_train.measures.demographics import (
    DIFFERENCES,
    Difference,
    demographics_differences,
    demographics_score,
    fitted,
)

__all__ = ["CONTROLS", "survey"]

#: What each control looks at.
CONTROLS: Final[Mapping[str, tuple[Difference, ...]]] = {
    "sex": ("sex",),
    "age": ("age",),
    "view": ("view",),
    "sex and age": ("sex", "age"),
    "sex, age and view": DIFFERENCES,
}
#: The list that controls learn from, and those that they are looked at on.
_LEARNED_FROM: Final[PairName] = "train"
_LOOKED_AT: Final[tuple[PairName, ...]] = ("val", "test", "test_matched")


def survey(settings: PrepareSettings, source: Path) -> dict[str, Any]:
    """Give all that the tables in ``source`` tell, as plain values for JSON; no identifiers.

    ``settings`` are those of ``prepare`` for ChestX-ray14; images are neither needed nor looked
    for. What is wrong with the tables is counted by kind under "problems". The same tables and
    settings give the same values. Raises Misconfigured for settings of another layout and
    UnusableData where a table is absent.
    """
    layout = settings.source
    if not isinstance(layout, ChestXray14Source) or not isinstance(settings.split, OfficialSplit):
        raise Misconfigured("official lists are of layout chestxray14, split by = official")
    problems = Problems()
    folder = source / layout.tables
    reading = chestxray14.read_catalogue(source, settings.name, layout, problems, images=False)
    lists = chestxray14.read_lists(source, layout, problems)
    tables = tables_of(settings, source, reading, [], problems, lambda: None)
    published = {
        name: table_file(folder, one.file)
        for name, one in settings.pairs.items()
        if isinstance(one, PublishedPairs)
    }
    names = (layout.table, layout.train_val_list, layout.test_list)
    files = [*(table_file(folder, name) for name in names), *published.values()]
    return {
        "name": settings.name,
        "files": {file.name.removesuffix(".gz"): file_digest(file) for file in files},
        "problems": problems.counts(),
        "notes": dict(tables.left_out),
        "images": _images(tables),
        "lists": {
            layout.train_val_list: len(lists.train_val),
            layout.test_list: len(lists.test),
            "in both": len(set(lists.train_val) & set(lists.test)),
            "in the table, but in no list": int((tables.parts < 0).sum()),
        },
        "parts": {
            part: count_images(tables.catalogue, np.flatnonzero(tables.parts == number))
            for number, part in enumerate(PARTS)
        },
        "patients_in_two_parts": _overlaps(tables),
        "pairs": {
            name: {
                "drawn": "published" if name in published else "here",
                "lines": len(list(lines(published[name]))) if name in published else None,
                **describe_pairs(tables.catalogue, pairs),
                **_reach(tables.catalogue, pairs),
            }
            for name, pairs in tables.pairs.items()
        },
        "controls": _controls(tables),
    }


def _images(tables: Tables) -> dict[str, Any]:
    images = tables.catalogue.images
    return {
        **count_images(tables.catalogue, np.arange(len(images))),
        "ages_unknown": sum(image.age is None for image in images),
        "no_finding": sum(not image.labels for image in images),
        "sex": dict(sorted(Counter(image.sex for image in images).items())),
        "view": dict(sorted(Counter(image.view for image in images).items())),
        "labels": tables.catalogue.counts(),
    }


def _overlaps(tables: Tables) -> dict[str, int]:
    """Give how many patients every two parts have in common."""
    patients = {
        part: set(tables.catalogue.patients[tables.parts == number].tolist())
        for number, part in enumerate(PARTS)
    }
    return {f"{a} and {b}": len(patients[a] & patients[b]) for a, b in combinations(PARTS, 2)}


def _reach(catalogue: Catalogue, pairs: Pairs) -> dict[str, Any]:
    """Give how far apart in a patient's history pairs lie, and of how many images a list is."""
    follow = np.array([-1 if one.followup is None else one.followup for one in catalogue.images])
    first, second = pairs.first[pairs.same], pairs.second[pairs.same]
    known = (follow[first] >= 0) & (follow[second] >= 0)
    gaps = np.abs(follow[first] - follow[second])[known]
    return {
        "median_followup_gap": float(np.median(gaps)) if len(gaps) else None,
        "images": len(np.union1d(pairs.first, pairs.second)),
    }


def _controls(tables: Tables) -> dict[str, Any]:
    """Give what sex, age and view alone reach: learned on one list, looked at on the others."""
    catalogue = tables.catalogue
    known = {
        name: (demographics_differences([catalogue], pairs), pairs)
        for name, pairs in tables.pairs.items()
        if name in (_LEARNED_FROM, *_LOOKED_AT)
    }
    differences, pairs = known[_LEARNED_FROM]
    found: dict[str, Any] = {}
    for words, by in CONTROLS.items():
        model = fitted(differences, pairs.same, by)
        found[words] = {
            "weights": {
                name: round(float(weight), 4)
                for name, weight in zip(DIFFERENCES, model.weights, strict=True)
                if name in by
            },
            "lists": {
                name: _figures(catalogue, own, model.score(known[name][0]))
                for name in _LOOKED_AT
                if name in known
                for own in [known[name][1]]
            },
        }
    found["the same, with nothing learned"] = {
        "weights": {},
        "lists": {
            name: _figures(catalogue, own, demographics_score([catalogue], own))
            for name in _LOOKED_AT
            if name in known
            for own in [known[name][1]]
        },
    }
    return found


def _figures(catalogue: Catalogue, pairs: Pairs, scores: NDArray[np.float64]) -> dict[str, Any]:
    first, second = catalogue.patients[pairs.first], catalogue.patients[pairs.second]
    resamples = Resamples(np.concatenate([first, second]))
    # Rounded first: scores of equal differences are to be equal on every machine.
    scores = scores.round(6)
    found = interval(resamples.of(weighted_auc(scores, pairs.same), first, second))
    return {
        "auc": round(auc(scores, pairs.same), 4),
        "interval": None if found is None else [round(end, 4) for end in found],
        "pairs": len(pairs),
        "patients": len(resamples.codes),
    }
