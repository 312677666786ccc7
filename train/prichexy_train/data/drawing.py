"""Draws pairs from one part of a split: the paper's way, or with a matched twin for each pair."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from prichexy_train.data.catalogue import Catalogue
from prichexy_train.data.pairs import Pairs
from prichexy_train.data.settings import DrawnPairs, Match

__all__ = ["draw_pairs"]

_Indices = NDArray[np.int64]

#: For an image of a group: the group's images, ordered by their ages, and those ages.
_Group = tuple[_Indices, NDArray[np.int64]]
_NO_AGE: Final = -1


def draw_pairs(
    catalogue: Catalogue,
    images: _Indices,
    relatives: _Indices,
    near_duplicates: Iterable[tuple[int, int]],
    settings: DrawnPairs,
    random: np.random.Generator,
) -> tuple[Pairs, dict[str, int]]:
    """Give pairs of ``images``, half of them of one patient, and what was left out, by reason.

    The pairs of one patient come first. No pair is there twice, in either order. Nearly equal
    pictures are no pair of one patient. Relatives (a code for each image of the catalogue) and
    neighbours by serial number are no pair of two.
    """
    same, left_out = _same_patient(catalogue, images, near_duplicates, settings, random)
    most = settings.count // 2
    if settings.match:
        same, other = _twins(catalogue, images, relatives, same, settings, random, left_out)
    else:
        if settings.a_patient is not None:
            place = _place_in_group(catalogue.patients[same[:, 0]])
            same = same[place < settings.a_patient]
        other = _of_two(catalogue, images, relatives, min(most, len(same)), random)
    half = min(most, len(same), len(other))
    chosen = np.concatenate([same[:half], other[:half]])
    answers = np.repeat([True, False], half)
    return Pairs(chosen[:, 0].copy(), chosen[:, 1].copy(), answers), left_out


def _same_patient(
    catalogue: Catalogue,
    images: _Indices,
    near_duplicates: Iterable[tuple[int, int]],
    settings: DrawnPairs,
    random: np.random.Generator,
) -> tuple[_Indices, dict[str, int]]:
    """Give all pairs of one patient that may be drawn, (n, 2), in an order drawn at random."""
    by_patient = images[np.argsort(catalogue.patients[images], kind="stable")]
    patients = catalogue.patients[by_patient]
    starts = np.flatnonzero(np.diff(patients, prepend=-1))
    groups = (group for group in np.split(by_patient, starts[1:]) if len(group) > 1)
    found = [group[np.stack(np.triu_indices(len(group), 1), axis=1)] for group in groups]
    pairs = np.concatenate([np.empty((0, 2), dtype=np.int64), *found])
    equal = np.array(list(near_duplicates), dtype=np.int64).reshape(-1, 2)
    kept = ~np.isin(_code(pairs, len(catalogue)), _code(equal, len(catalogue)))
    doubled = int((~kept).sum())
    pairs = random.permutation(pairs[kept])
    pairs = np.where(random.random(len(pairs))[:, None] < 0.5, pairs, pairs[:, ::-1])
    if settings.a_patient is not None:
        # First those that keep to the limit, in an order that does not favour patients with many;
        # behind them the others, to stand in for a pair that has no twin.
        place = _place_in_group(catalogue.patients[pairs[:, 0]])
        order = random.permutation(len(pairs))
        pairs = pairs[order[np.argsort(place[order] // settings.a_patient, kind="stable")]]
    return pairs, {"pairs of nearly the same picture": doubled} if doubled else {}


def _of_two(
    catalogue: Catalogue,
    images: _Indices,
    relatives: _Indices,
    wanted: int,
    random: np.random.Generator,
) -> _Indices:
    """Give pairs of two patients, (at most ``wanted``, 2), every pair as likely as any other."""
    number = len(images)
    possible = number * (number - 1)
    drawn = min(possible, 2 * wanted + 1000)
    while True:
        # Each number stands for an ordered pair of two different images.
        ordered = random.choice(possible, size=drawn, replace=False) if possible > 0 else 0
        first, second = np.divmod(np.atleast_1d(ordered)[:drawn], max(number - 1, 1))
        second = second + (second >= first)
        pairs = np.stack([images[first], images[second]], axis=1)
        pairs = pairs[~_related(catalogue, relatives, pairs[:, 0], pairs[:, 1])]
        _, once = np.unique(_code(pairs, len(catalogue)), return_index=True)
        pairs = pairs[np.sort(once)]
        if len(pairs) >= wanted or drawn == possible:
            return pairs[:wanted]
        drawn = min(possible, 4 * drawn)


def _twins(
    catalogue: Catalogue,
    images: _Indices,
    relatives: _Indices,
    same: _Indices,
    settings: DrawnPairs,
    random: np.random.Generator,
    left_out: dict[str, int],
) -> tuple[_Indices, _Indices]:
    """Give the pairs (a, b) of ``same`` that have a twin, and these twins (a, c).

    c agrees with b as the settings say; the nearest age is taken first, then an image that is in
    the fewest twins so far, then one at random.
    """
    groups = _Groups(catalogue, images, settings.match)
    used = np.zeros(len(catalogue), dtype=np.int64)
    limit = settings.a_patient or len(same)
    of_patient: Counter[int] = Counter()
    partners: dict[int, list[int]] = defaultdict(list)
    kept: list[tuple[int, int]] = []
    twins: list[tuple[int, int]] = []
    missing = 0
    for a, b in same.tolist():
        if len(kept) == settings.count // 2:
            break
        patient = int(catalogue.patients[a])
        if of_patient[patient] == limit:
            continue
        near, gaps = groups.like(b, settings.age_within)
        usable = ~_related(catalogue, relatives, np.array(a), near)
        usable &= ~np.isin(near, partners[a])
        near, gaps = near[usable], gaps[usable]
        if len(near) == 0:
            missing += 1
            continue
        near = near[gaps == gaps.min()]
        near = near[used[near] == used[near].min()]
        c = int(random.choice(near))
        used[c] += 1
        of_patient[patient] += 1
        partners[a].append(c)
        partners[c].append(a)
        kept.append((a, b))
        twins.append((a, c))
    if missing:
        left_out["pairs of one patient that have no match among the others"] = missing
    shape = (-1, 2)
    return np.array(kept, np.int64).reshape(shape), np.array(twins, np.int64).reshape(shape)


class _Groups:
    """The images of a part by what must agree, each group ordered by age."""

    def __init__(self, catalogue: Catalogue, images: _Indices, match: tuple[Match, ...]) -> None:
        self._by_age = "age" in match
        self._keys = [_key(catalogue, image, match) for image in range(len(catalogue))]
        self._ages = np.array(
            [_NO_AGE if image.age is None else image.age for image in catalogue.images], np.int64
        )
        members: dict[tuple[object, ...], list[int]] = defaultdict(list)
        for image in images.tolist():
            key = self._keys[image]
            if key is not None and not (self._by_age and self._ages[image] == _NO_AGE):
                members[key].append(image)
        self._groups: dict[tuple[object, ...], _Group] = {}
        for key, group in members.items():
            ordered = np.array(group, dtype=np.int64)
            ordered = ordered[np.argsort(self._ages[ordered], kind="stable")]
            self._groups[key] = (ordered, self._ages[ordered])

    def like(self, image: int, age_within: int) -> tuple[_Indices, _Indices]:
        """Give the images that agree with this one, itself among them, and how far their age is."""
        key, age = self._keys[image], int(self._ages[image])
        if key not in self._groups or key is None or (self._by_age and age == _NO_AGE):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        group, ages = self._groups[key]
        if not self._by_age:
            return group, np.zeros(len(group), dtype=np.int64)
        low, high = np.searchsorted(ages, [age - age_within, age + age_within + 1])
        return group[low:high], np.abs(ages[low:high] - age)


def _key(catalogue: Catalogue, image: int, match: tuple[Match, ...]) -> tuple[object, ...] | None:
    """Give what must agree, or None where some of it is unknown."""
    record = catalogue.images[image]
    key: list[object] = []
    if "labels" in match:
        key.append(record.labels & set(catalogue.label_names))
    for name, value in (("view", record.view), ("sex", record.sex)):
        if name in match:
            if not value:
                return None
            key.append(value)
    return tuple(key)


def _related(
    catalogue: Catalogue, relatives: _Indices, first: _Indices, second: _Indices
) -> NDArray[np.bool_]:
    """Tell for each two images whether they may show one person."""
    related: NDArray[np.bool_] = relatives[first] == relatives[second]
    series, numbers = catalogue.serials.T
    if (series >= 0).any():
        neighbours = (series[first] >= 0) & (series[first] == series[second])
        related |= neighbours & (np.abs(numbers[first] - numbers[second]) <= 1)
    return related


def _code(pairs: _Indices, images: int) -> _Indices:
    """Give one number for each pair, the same in either order."""
    low, high = np.sort(pairs, axis=1).T
    code: _Indices = low * images + high
    return code


def _place_in_group(groups: _Indices) -> _Indices:
    """Give for each entry how many of the same value come before it."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    first = np.repeat(starts, np.diff(starts, append=len(groups)))
    places = np.empty(len(groups), dtype=np.int64)
    places[order] = np.arange(len(groups)) - first
    return places
